"""The rows of a regression as its solver sees them: scaled, centred, weighted, in blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ShapeError
from featcache.probes.arrays import Features, check_features, row_blocks
from featcache.probes.closed_form.targets import ClassTargets
from featcache.probes.linear.scaling import Scaling, Standardise

if TYPE_CHECKING:
    import torch

_FLOAT64_VALUES = 1 << 24  # up to 128 MiB of features is worked on in float64, more in float32
_PASS_BYTES = 1 << 25  # 32 MiB of rows or predictions at a time: more leaves the caches


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """N training rows with their targets and weights."""

    features: Features
    """Shape (N, D), as stored."""
    targets: ClassTargets
    row_weights: NDArray[np.float64]
    """Shape (N,), positive."""
    scaling: Scaling
    centre: NDArray[np.float64]
    """Shape (D,), weighted mean of the scaled rows."""
    target_mean: NDArray[np.float64]
    """Shape (C,), weighted."""
    bias_feature: float | None
    """Value of a constant feature that is penalised; None if the intercept is free."""
    device: str

    @classmethod
    def of(
        cls,
        features: Features,
        targets: ClassTargets,
        *,
        standardise: Standardise,
        row_weights: NDArray[np.float64] | None,
        bias_feature: float | None,
        epsilon: float,
        device: str,
    ) -> Design:
        """Learn scaling and centres from the rows; the arguments are those of `decompose`.

        Raises:
            ShapeError: If arrays do not fit together, are empty or not finite, or if a weight is
                not positive.
        """
        check_features("features", features)
        targets.check_rows(len(features))
        weights = np.ones(len(features)) if row_weights is None else row_weights.astype(np.float64)
        if weights.shape != (len(features),) or not (np.isfinite(weights) & (weights > 0)).all():
            raise ShapeError(
                "`row_weights` must be one positive finite number per row; got shape "
                f"{weights.shape} for {len(features)} rows. Drop rows that should not count."
            )
        scaling = Scaling.of(features, standardise, epsilon=epsilon)
        centre, target_mean = np.zeros(features.shape[1]), np.zeros(targets.n_classes)
        row_bytes = 16 * (features.shape[1] + targets.n_classes)
        for rows in row_blocks(len(features), row_bytes, _PASS_BYTES):
            centre += weights[rows] @ scaling.apply(features[rows])
            target_mean += weights[rows] @ targets.array(rows)
        return cls(
            features=features,
            targets=targets,
            row_weights=weights,
            scaling=scaling,
            centre=centre / weights.sum(),
            target_mean=target_mean / weights.sum(),
            bias_feature=bias_feature,
            device=device,
        )

    def __len__(self) -> int:
        return len(self.features)

    @property
    def dim(self) -> int:
        """D."""
        return int(self.features.shape[1])

    @property
    def dtype(self) -> torch.dtype:
        """What products with the rows are computed in."""
        import torch

        return torch.float64 if self.features.size <= _FLOAT64_VALUES else torch.float32

    def blocks(self, width: int) -> Iterator[slice]:
        """Yield blocks of rows for work that takes `width` numbers a row besides the row."""
        yield from row_blocks(len(self), 8 * (3 * self.dim + width), _PASS_BYTES)

    def tensor(self, values: NDArray[np.float64], dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return `values` on the device, of the design's dtype unless another is named."""
        import torch

        return torch.tensor(values, dtype=dtype or self.dtype, device=self.device)

    def rows(self, rows: slice, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return scaled rows less the centre, shape (B, D); rounded only once centred."""
        wide = self.scaling.apply(self.features[rows])
        wide -= self.centre
        return self.tensor(wide, dtype)

    def wanted(self, rows: slice, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return the targets, shape (B, C)."""
        return self.tensor(self.targets.array(rows), dtype)

    def intercept_shares(self, strengths: Sequence[float]) -> NDArray[np.float64]:
        """Return the share of the target mean that the intercept keeps, shape (K,)."""
        if self.bias_feature is None:
            return np.ones(len(strengths))
        value = self.row_weights.sum() * self.bias_feature**2
        return np.asarray(value / (value + np.asarray(strengths)))
