"""What is done to a row before a linear method sees it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featcache.probes.arrays import Features, check_features, row_blocks, to_float64, unit_rows
from featcache.probes.closed_form.options import Standardise


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """Unit norm or not, then (x - shift) / scale."""

    is_unit_norm: bool
    shift: NDArray[np.float64]
    """Shape (D,)."""
    scale: NDArray[np.float64]
    """Shape (D,), positive."""

    @classmethod
    def of(cls, features: Features, standardise: Standardise, *, epsilon: float = 0.0) -> Scaling:
        """Learn the scaling from training rows, shape (N, D).

        Args:
            features: Any float dtype.
            standardise: `none`; `centre` subtracts the mean; `zscore` also divides by the standard
                deviation (1/N); `l2` gives unit rows and no shift.
            epsilon: Added to each deviation; that of a constant dimension is taken as 1.

        Raises:
            ShapeError: If `features` is no matrix, is empty or not finite.
        """
        check_features("features", features)
        n_rows, dim = features.shape
        shift, scale = np.zeros(dim), np.ones(dim)
        if standardise in ("centre", "zscore"):
            for block in row_blocks(n_rows, 16 * dim):
                shift += to_float64("features", features[block]).sum(axis=0)
            shift /= n_rows
        if standardise == "zscore":
            square = np.zeros(dim)
            for block in row_blocks(n_rows, 16 * dim):
                rest = features[block].astype(np.float64) - shift
                square += np.einsum("nd,nd->d", rest, rest)
            deviation = np.sqrt(square / n_rows)
            is_constant = deviation <= 1e-12 * np.abs(shift)  # rounding of the mean alone
            scale = np.where(is_constant, 1.0, deviation) + epsilon
        return cls(is_unit_norm=standardise == "l2", shift=shift, scale=scale)

    def apply(self, features: Features) -> NDArray[np.float64]:
        """Return scaled rows, shape (B, D), float64.

        Raises:
            ShapeError: If a value is not finite, or if a row that needs a direction is zero.
        """
        rows = (unit_rows if self.is_unit_norm else to_float64)("features", features)
        rows -= self.shift
        rows /= self.scale
        return rows
