"""SFDA: class probabilities by Fisher discriminants, after hard rows are made harder.

With all of its axes kept, the published eigenproblem E Eᵀ is the inverse of the shrunk
within-class covariance, so the classifier is linear discriminant analysis in one solve. Rows are
given by their coordinates along the principal axes: what lies outside them separates nothing, and
only counts in the mean variance that the covariance is shrunk to.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ShapeError
from featcache.probes.analysis.decomposition import (
    Decomposition,
    check_classes,
    class_sums,
    compact,
)
from featcache.probes.analysis.source_head import softmax
from featcache.probes.arrays import check_labels

_DECAY = 5.0  # of the shrinkage exp(-5 λ), as published
_LEAST_SHRINKAGE = 1e-10
_LEAST_SPREAD = 1e-20  # of the mean square norm


def sfda(centred: Decomposition, labels: NDArray[np.int64]) -> tuple[float, float]:
    """Return SFDA, a mean probability of the own class in [0, 1], and the shrinkage it chose.

    Three steps: discriminants with shrinkage exp(-5 λ), λ the largest eigenvalue of the
    within-class covariance; each row is mixed with the mean of the other classes' means, by one
    less the (softmax of the) probability of its class; discriminants again, same shrinkage. The
    features' scale decides λ and so the shrinkage: taken as stored, as published. Does not change
    with rotation and shift.

    Args:
        centred: Of centred features, shape (N, D), not otherwise scaled.
        labels: Shape (N,), class indices from 0.

    Raises:
        ShapeError: If `labels` do not fit, if there is one class only, or if no row differs from
            its class mean.

    Source: Shao et al. 2022, arXiv:2207.03036, and TencentARC/SFDA (mean probability without log;
        its λ is three power iterations, here it is exact).
    """
    check_labels("labels", centred.left, labels)
    check_classes(labels, "SFDA")
    columns, dim = compact(labels), centred.right.shape[1]
    rows = centred.left[:, : centred.rank] * centred.values[: centred.rank]
    within = _within(rows, columns)
    largest = float(np.linalg.eigvalsh(within)[-1]) if centred.rank else 0.0
    # What is left of rows that are their class mean is rounding.
    if largest <= _LEAST_SPREAD * (np.square(rows).sum() / len(rows)):
        raise ShapeError(
            "Rows must differ within a class for SFDA; each is the mean of its class. "
            "Take more rows per class."
        )
    shrinkage = max(float(np.exp(-_DECAY * largest)), _LEAST_SHRINKAGE)
    # A softmax of probabilities, as published: confidence lies between 1/(1 + (C-1)e) and e/(e+C-1)
    trust = softmax(_probabilities(rows, columns, within, dim, shrinkage))
    own = trust[np.arange(len(rows)), columns][:, None]
    means = _means(rows, columns)
    others = (means.sum(axis=0) - means) / (len(means) - 1)
    mixed = own * rows + (1 - own) * others[columns]
    mixed -= mixed.mean(axis=0)
    final = _probabilities(mixed, columns, _within(mixed, columns), dim, shrinkage)
    return float(final[np.arange(len(rows)), columns].mean()), shrinkage


def _means(rows: NDArray[np.float64], columns: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(class_sums(rows, columns) / np.bincount(columns)[:, None])


def _within(rows: NDArray[np.float64], columns: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the within-class covariance, divided by N, shape (R, R)."""
    rest = rows - _means(rows, columns)[columns]
    return np.asarray(rest.T @ rest / len(rows))


def _probabilities(
    rows: NDArray[np.float64],
    columns: NDArray[np.int64],
    within: NDArray[np.float64],
    dim: int,
    shrinkage: float,
) -> NDArray[np.float64]:
    """Return the discriminants' class probabilities of the rows they are fitted on, (N, C)."""
    shrunk = (1 - shrinkage) * within
    shrunk[np.diag_indices_from(shrunk)] += shrinkage * np.trace(within) / dim
    means = _means(rows, columns)
    weights = np.linalg.solve(shrunk, means.T)  # (D, C)
    priors = np.log(np.bincount(columns) / len(columns))
    return softmax(rows @ weights - 0.5 * np.einsum("cd,dc->c", means, weights) + priors)
