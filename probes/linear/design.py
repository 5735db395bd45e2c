"""Features as a solver sees them: centred, on the device or streamed block by block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from featcache.probes.arrays import row_blocks, to_float64
from featcache.probes.linear.scaling import Rows

if TYPE_CHECKING:
    import torch

_EXACT_VALUES = 1 << 20  # up to 8 MiB of features is solved in float64 from the start
_RESIDENT_BYTES = 1 << 32  # of a float32 copy in main memory; beyond, each pass reads the source
_RESIDENT_SHARE = 0.4  # of a GPU's free memory
_PASS_BYTES = 1 << 22  # 4 MiB of features or logits at a time: larger temporaries leave the caches
_CONSTANT = 1e-12  # a deviation of this share of the mean is rounding alone


class Design:
    """Centred rows, and the principal axes of their second moments."""

    def __init__(self, features: Rows, device: str) -> None:
        """Measure the features, and copy them to the device if they fit there.

        Raises:
            ShapeError: If a value is not finite.
        """
        import torch

        self._torch, self._source, self.device = torch, features, device
        self.n_rows, self.dim = features.shape
        values = self.n_rows * self.dim
        self.dtype = torch.float64 if values <= _EXACT_VALUES else torch.float32
        self.mean = self._mean()
        """Shape (D,), float64."""
        self._resident: torch.Tensor | None = None
        if values * self.dtype.itemsize <= self._room():
            self._resident = self._copy()
        moments = self._second_moments()
        variance = moments.diagonal()
        self.is_constant = variance.sqrt() <= _CONSTANT * self.mean.abs()
        """Shape (D,): nothing but rounding varies there."""
        self.square = float(variance.sum()) or 1.0  # all rows are equal: any number does
        """Mean square norm of the rows."""
        variances, axes = torch.linalg.eigh(moments)
        self.variances, self.axes = variances.clamp_min(0).to(self.dtype), axes.to(self.dtype)
        """Shapes (D,) and (D, D), the axes as columns."""

    @property
    def is_resident(self) -> bool:
        """Whether the device holds a copy, so that a pass reads nothing."""
        return self._resident is not None

    def blocks(self, width: int, dtype: torch.dtype) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield (rows, centred values (B, D)) that cover all rows, for logits of `width` columns.

        A dtype wider than that of the copy is read from the source again, so nothing is lost.
        """
        row_bytes = dtype.itemsize * max(2 * width, self.dim)
        if self._resident is None or dtype.itemsize > self._resident.dtype.itemsize:
            for rows, block in self._read(row_bytes):
                yield rows, block.sub_(self.mean).to(dtype)
            return
        for rows in row_blocks(self.n_rows, row_bytes, _PASS_BYTES):
            yield rows, self._resident[rows]

    def _read(self, row_bytes: int = 0) -> Iterator[tuple[slice, torch.Tensor]]:
        """Read float64 blocks from the source; they travel to the device as they are stored."""
        for rows in row_blocks(self.n_rows, max(row_bytes, 8 * self.dim), _PASS_BYTES):
            part = np.ascontiguousarray(self._source[rows])
            if not part.flags.writeable:  # torch warns of read-only memory, which a map is
                part = part.copy()
            block = self._torch.from_numpy(part).to(self.device, self._torch.float64, copy=True)
            if not bool(block.isfinite().all()):
                to_float64("features", part)  # names the row
            yield rows, block

    def _mean(self) -> torch.Tensor:
        total = self._torch.zeros(self.dim, dtype=self._torch.float64, device=self.device)
        for _, block in self._read():
            total += block.sum(dim=0)
        return total / self.n_rows

    def _copy(self) -> torch.Tensor:
        copy = self._torch.empty(self.n_rows, self.dim, dtype=self.dtype, device=self.device)
        for rows, block in self._read():
            copy[rows] = block.sub_(self.mean)
        return copy

    def _second_moments(self) -> torch.Tensor:
        moments = self._torch.zeros(
            self.dim, self.dim, dtype=self._torch.float64, device=self.device
        )
        for _, block in self.blocks(self.dim, self.dtype):
            moments += block.T @ block
        return moments / self.n_rows

    def _room(self) -> float:
        if self.device.startswith("cuda"):
            return _RESIDENT_SHARE * self._torch.cuda.mem_get_info(self.device)[0]
        return _RESIDENT_BYTES
