"""Mahalanobis distance to the nearest class mean under one covariance shared by all classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featcache.probes.arrays import (
    Features,
    check_features,
    check_labels,
    check_pair,
    row_blocks,
    to_float64,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mahalanobis:
    """A fitted model: class means in whitened coordinates."""

    centre: NDArray[np.float64]
    """Shape (D,), mean of the training rows."""
    whitener: NDArray[np.float64]
    """Shape (D, D), eigenvectors divided by the root of their variance."""
    means: NDArray[np.float64]
    """Shape (C, D), class means, centred and whitened."""
    n_floored: int
    """Eigenvalues that were raised to the floor."""

    def distances(self, features: Features) -> NDArray[np.float64]:
        """Return the squared distance of each row to its nearest class mean, shape (M,).

        Raises:
            ShapeError: If D differs from the training rows, or if values are not finite.
        """
        if len(features):
            check_pair("features", features, "means", self.means)
        nearest = np.empty(len(features))
        square = (self.means**2).sum(axis=1)  # (C,)
        row_bytes = 8 * (3 * len(self.centre) + 2 * len(self.means))
        for block in row_blocks(len(features), row_bytes):
            rows = (to_float64("features", features[block]) - self.centre) @ self.whitener
            cross = square - 2 * rows @ self.means.T  # ‖a - b‖² = ‖a‖² + (‖b‖² - 2ab)
            nearest[block] = (rows**2).sum(axis=1) + cross.min(axis=1)
        return np.maximum(nearest, 0)


def fit_mahalanobis(
    features: Features, labels: NDArray[np.int64], *, eigenvalue_floor: float
) -> Mahalanobis:
    """Fit class means and the pooled within-class covariance (divided by N).

    Eigenvalues below `eigenvalue_floor` times the largest are raised to it, so that N < D,
    dead or repeated dimensions give finite distances. Where all rows of each class are equal
    the covariance is zero and the unit matrix stands in for it.

    Args:
        features: Shape (N, D), any float dtype; sums are float64.
        labels: Shape (N,), class indices from 0, in any subset.
        eigenvalue_floor: Share of the largest eigenvalue, in (0, 1).

    Raises:
        ShapeError: If arrays do not fit together, are empty or not finite.

    Source: Lee et al. 2018, arXiv:1807.03888, without its input perturbation and mid layers.
    """
    check_features("features", features)
    check_labels("labels", features, labels)
    _, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    dim = features.shape[1]
    sums, scatter = np.zeros((len(counts), dim)), np.zeros((dim, dim))
    for block in row_blocks(len(features), 16 * dim):
        np.add.at(sums, codes[block], to_float64("features", features[block]))
    means = sums / counts[:, None]
    for block in row_blocks(len(features), 16 * dim):
        rest = features[block].astype(np.float64) - means[codes[block]]
        scatter += rest.T @ rest
    values, vectors = np.linalg.eigh(scatter / len(features))
    floor = eigenvalue_floor * values[-1] if values[-1] > 0 else 1.0
    whitener = vectors / np.sqrt(np.maximum(values, floor))
    centre = sums.sum(axis=0) / len(features)
    return Mahalanobis(
        centre=centre,
        whitener=whitener,
        means=(means - centre) @ whitener,
        n_floored=int((values < floor).sum()),
    )
