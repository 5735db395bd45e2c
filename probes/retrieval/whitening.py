"""Whitening: rotate features to principal axes and even out their variances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featcache.errors import OptionError, ShapeError
from featcache.probes.arrays import Features, check_features, row_blocks, unit_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Whitening:
    """A centre and a projection, fitted on rows that are not searched."""

    mean: NDArray[np.float64]
    """Shape (D,)."""
    projection: NDArray[np.float64]
    """Shape (D, d), principal axes by falling variance, each divided by variance^power."""

    def apply(self, name: str, features: Features) -> NDArray[np.float64]:
        """Return features in the whitened space, shape (N, d), not yet of unit norm.

        Args:
            name: What the rows are called in a message.
            features: Shape (N, D).

        Raises:
            ShapeError: If a row is zero or not finite, or if D differs.
        """
        if features.shape[1] != len(self.mean):
            raise ShapeError(
                f"`{name}` must have the {len(self.mean)} dimensions the whitening was fitted on; "
                f"got {features.shape[1]}. Fit it on features of the same backbone and tap."
            )
        white = np.empty((len(features), self.projection.shape[1]))
        for block in row_blocks(len(features), 24 * features.shape[1]):
            white[block] = (unit_rows(name, features[block]) - self.mean) @ self.projection
        return white


def fit_whitening(
    features: Features, *, power: float, dimension: int, shrinkage: float, floor: float
) -> Whitening:
    """Fit a PCA whitening on the unit-norm rows of a set.

    Axes that carry no variance (beyond the rank of the set, at most N - 1 axes) are dropped:
    the search set may vary along them, and a division by next to nothing would make noise of
    it. Whitening from fewer rows than dimensions amplifies noise all the same; shrink it.

    Args:
        features: Shape (N, D), N >= 2; scaled to unit norm here.
        power: Variances λ are divided out as λ^-power: 0.5 whitens, 0 is a plain PCA.
        dimension: Axes kept; 0 for all that carry variance.
        shrinkage: In [0, 1], share of the mean variance mixed into each: (1 - s) λ + s mean(λ).
        floor: Variances are at least this share of the largest one.

    Raises:
        OptionError: If `dimension` is above the axes that carry variance.
        ShapeError: If there are fewer than two rows, all are alike, or one is zero.

    Source: Jégou & Chum 2012, ECCV, "Negative evidences and co-occurences in image retrieval";
    FAISS `PCAWR` divides by λ^0.5 likewise. Checked against scikit-learn's PCA(whiten=True).
    """
    check_features("features", features)
    n_rows, dim = features.shape
    mean, second = np.zeros(dim), np.zeros((dim, dim))
    for block in row_blocks(n_rows, 24 * dim):
        mean += unit_rows("whitening rows", features[block]).sum(axis=0) / n_rows
    for block in row_blocks(n_rows, 24 * dim):  # a second pass: E[xx'] - mm' would cancel
        centred = unit_rows("whitening rows", features[block]) - mean
        second += centred.T @ centred / max(1, n_rows - 1)
    variances, axes = np.linalg.eigh(second)
    variances, axes = variances[::-1], axes[:, ::-1]
    rank = int((variances > dim * np.finfo(np.float64).eps * max(variances[0], 1e-30)).sum())
    rank = min(rank, n_rows - 1)
    if rank < 1:
        raise ShapeError(
            f"A whitening needs two different rows at least; got {n_rows} rows without variance. "
            "Fit it on a larger split."
        )
    if dimension > rank:
        raise OptionError(
            f"`dimension` must be at most {rank}, the axes along which the {n_rows} rows vary; "
            f"got {dimension}. Lower it, or fit on more rows."
        )
    kept = dimension or rank
    shrunk = (1 - shrinkage) * variances + shrinkage * variances.mean()
    spread = np.maximum(shrunk, floor * shrunk[0])[:kept]
    return Whitening(mean=mean, projection=axes[:, :kept] * spread**-power)
