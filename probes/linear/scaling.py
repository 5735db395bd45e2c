"""What is done to rows before a solver sees them, block by block, so that no copy is made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from featcache.probes.arrays import Features, check_features, row_blocks, to_float64, unit_rows

Standardise = Literal["none", "centre", "zscore", "l2"]

_CONSTANT = 1e-12  # a deviation of this share of the mean is rounding alone
_BLOCK_BYTES = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """Unit norm or not, then (x - shift) / scale."""

    is_unit_norm: bool
    shift: NDArray[np.float64]
    """Shape (D,)."""
    scale: NDArray[np.float64]
    """Shape (D,), positive."""

    @classmethod
    def of(
        cls, features: Rows | Features, standardise: Standardise, *, epsilon: float = 0.0
    ) -> Self:
        """Learn the mean and the deviation from rows; that of a constant dimension is taken as 1.

        Args:
            features: Shape (N, D).
            standardise: `centre` changes nothing in a classifier with a free bias; `zscore`
                divides by the deviation (over N); `l2` scales rows to unit norm.
            epsilon: Added to each deviation.

        Raises:
            ShapeError: If there are no rows, or if values are not finite.
        """
        if not isinstance(features, Rows):
            check_features("features", features)
        n_rows, dim = features.shape
        if standardise in ("none", "l2"):
            is_unit_norm = standardise == "l2"
            return cls(is_unit_norm=is_unit_norm, shift=np.zeros(dim), scale=np.ones(dim))
        blocks = list(row_blocks(n_rows, 8 * dim, _BLOCK_BYTES))
        total, square = np.zeros(dim), np.zeros(dim)
        for rows in blocks:
            total += to_float64("features", features[rows]).sum(axis=0)
        mean = total / n_rows
        if standardise == "centre":
            return cls(is_unit_norm=False, shift=mean, scale=np.ones(dim))
        for rows in blocks:
            square += ((features[rows].astype(np.float64) - mean) ** 2).sum(axis=0)
        deviation = np.sqrt(square / n_rows)
        is_constant = deviation <= _CONSTANT * np.abs(mean)
        scale = np.where(is_constant, 1.0, deviation) + epsilon
        return cls(is_unit_norm=False, shift=mean, scale=scale)

    @property
    def is_identity(self) -> bool:
        """Whether rows stay as they are."""
        return not self.is_unit_norm and not self.shift.any() and bool((self.scale == 1).all())

    def apply(self, block: Features) -> NDArray[np.float64]:
        """Return the scaled rows of a block, shape (B, D), as a new array.

        Raises:
            ShapeError: If a value is not finite, or if a row that needs a direction is zero.
        """
        wide = unit_rows("features", block) if self.is_unit_norm else to_float64("features", block)
        wide -= self.shift
        wide /= self.scale
        return wide


class Rows:
    """Some rows of a feature matrix, scaled when a block of them is read."""

    def __init__(
        self,
        features: Features,
        rows: NDArray[np.intp] | None = None,
        scaling: Scaling | None = None,
    ) -> None:
        """Look at `rows` (all if None) of `features`, shape (N, D)."""
        check_features("features", features)
        self._features, self._rows, self._scaling = features, rows, scaling
        count = len(features) if rows is None else len(rows)
        self.shape = (count, features.shape[1])

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.shape[0]

    def __getitem__(self, block: slice) -> Features:
        """Return a block of rows, shape (B, D); as stored where no scaling changes them."""
        values = self._features[block if self._rows is None else self._rows[block]]
        if self._scaling is None or self._scaling.is_identity:
            return values
        return self._scaling.apply(values)

    def blocks(self) -> Iterator[slice]:
        """Yield slices that cover all rows, a few MiB each."""
        return row_blocks(len(self), 8 * self.shape[1], _BLOCK_BYTES)

    def scaled(self, scaling: Scaling) -> Rows:
        """Return the same rows behind a scaling."""
        return Rows(self._features, self._rows, scaling)
