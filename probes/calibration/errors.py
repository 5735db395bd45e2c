"""Calibration errors of top-1 confidences and of whole distributions.

A confidence lies in bin floor(15 p), so bins are [low, high); 1 belongs to the last of them, which
is [14/15, 1]. torchmetrics gives confidences of exactly 1 a sixteenth bin of their own. Bins of
equal mass hold the confidences between quantiles; equal confidences share a bin.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ShapeError

BINS = 15  # Guo et al. 2017, arXiv:1706.04599
_NULL_DRAWS = 200
_NULL_QUANTILE = 0.95


def width_bins(confidences: NDArray[np.floating], n_bins: int = BINS) -> NDArray[np.intp]:
    """Return the bin of equal width of each confidence, shape (M,)."""
    return np.minimum((confidences * n_bins).astype(np.intp), n_bins - 1)


def mass_bins(confidences: NDArray[np.floating], n_bins: int = BINS) -> NDArray[np.intp]:
    """Return the bin of equal mass of each confidence, shape (M,); equal ones share the lowest."""
    ranked = np.sort(confidences)
    below = np.searchsorted(ranked, confidences, side="left")
    return np.asarray(below * n_bins // max(1, len(ranked)))


def expected_error(
    confidences: NDArray[np.floating], is_right: NDArray[np.bool_], bins: NDArray[np.intp]
) -> float:
    """Return Σ_b n_b/n · abs(accuracy_b - confidence_b), the expected calibration error.

    Args:
        confidences: Shape (M,), in [0, 1], M >= 1.
        is_right: Shape (M,).
        bins: Shape (M,), from `width_bins` or `mass_bins`.

    Raises:
        ShapeError: If there are no rows, or if the shapes differ.

    Source: Naeini et al. 2015; Guo et al. 2017; checked against torchmetrics, below a confidence
        of 1.
    """
    counts, gaps, _ = _by_bin(confidences, is_right, bins)
    return float((counts * np.abs(gaps)).sum() / counts.sum())


def debiased_error(
    confidences: NDArray[np.floating], is_right: NDArray[np.bool_], bins: NDArray[np.intp]
) -> float:
    """Return the expected calibration error less what sampling alone adds to it, at least 0.

    A bin's gap d is estimated with a standard error s, so that abs(d) is too large by
    E abs(N(d, s²)) - abs(d) on average, which is taken off in closed form.

    Source: Kumar, Liang & Ma 2019, arXiv:1909.10155, the plug-in correction of the L1 error.
    """
    from math import erf

    counts, gaps, rates = _by_bin(confidences, is_right, bins)
    spread = np.sqrt(rates * (1 - rates) / counts)
    size = np.abs(gaps)
    ratio = np.divide(size, spread, out=np.full(len(size), np.inf), where=spread > 0)
    folded = spread * np.sqrt(2 / np.pi) * np.exp(-(np.minimum(ratio, 1e9) ** 2) / 2)
    folded += size * np.array([erf(value / np.sqrt(2)) for value in ratio])
    return max(0.0, float((counts * (2 * size - folded)).sum() / counts.sum()))


def null_band(
    confidences: NDArray[np.floating], bins: NDArray[np.intp], rng: np.random.Generator
) -> float:
    """Return the 95 % quantile of the error of a perfectly calibrated model of these confidences.

    An error below it is no evidence of miscalibration. The order of the rows changes nothing.
    """
    order = np.argsort(confidences, kind="stable")
    confidences, bins = confidences[order], bins[order]
    draws = [
        expected_error(confidences, rng.random(len(confidences)) < confidences, bins)
        for _ in range(_NULL_DRAWS)
    ]
    return float(np.quantile(draws, _NULL_QUANTILE))


def class_wise_error(
    probabilities: NDArray[np.floating], labels: NDArray[np.int64], n_bins: int = BINS
) -> float:
    """Return the expected calibration error of each class's probability, averaged over classes.

    Args:
        probabilities: Shape (M, C), rows sum to 1.
        labels: Shape (M,), columns of `probabilities`.
        n_bins: Bins of equal width.

    Raises:
        ShapeError: If there are no rows, if the shapes differ, or if a label is no column.

    Source: Kull et al. 2019, arXiv:1910.12656 (class-wise ECE).
    """
    _check_columns(probabilities, labels)
    errors = [
        expected_error(column, labels == place, width_bins(column, n_bins))
        for place, column in enumerate(probabilities.T)
    ]
    return float(np.mean(errors))


def brier_scores(
    probabilities: NDArray[np.floating], labels: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return Σ_c (p_c - y_c)² of each row, shape (M,), in [0, 2]; 0 is best.

    scikit-learn's binary score is half of it. Arguments and errors as in `class_wise_error`.
    """
    _check_columns(probabilities, labels)
    own = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    square = np.einsum("mc,mc->m", probabilities, probabilities, dtype=np.float64)
    return np.asarray(square - 2 * own + 1)


def _check_columns(probabilities: NDArray[np.floating], labels: NDArray[np.int64]) -> None:
    if probabilities.ndim != 2 or not len(labels) or labels.shape != (len(probabilities),):
        raise ShapeError(
            "`probabilities` must be a matrix with a row per label, at least one; got shapes "
            f"{probabilities.shape} and {labels.shape}. Pass the same labelled rows."
        )
    if not 0 <= labels.min() <= labels.max() < probabilities.shape[1]:
        raise ShapeError(
            f"`labels` must be columns of `probabilities`, 0 to {probabilities.shape[1] - 1}; got "
            f"{labels.min()} to {labels.max()}. Leave rows without a label out."
        )


def _by_bin(
    confidences: NDArray[np.floating], is_right: NDArray[np.bool_], bins: NDArray[np.intp]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Return rows, accuracy less confidence, and accuracy, of each bin that has rows."""
    if not len(confidences) or not len(confidences) == len(is_right) == len(bins):
        raise ShapeError(
            "`confidences`, `is_right` and `bins` must have one length, at least 1; got "
            f"{len(confidences)}, {len(is_right)} and {len(bins)}. Pass the same labelled rows."
        )
    counts = np.bincount(bins)
    kept = counts > 0
    rates = np.bincount(bins, is_right)[kept] / counts[kept]
    means = np.bincount(bins, confidences.astype(np.float64))[kept] / counts[kept]
    return counts[kept], rates - means, rates
