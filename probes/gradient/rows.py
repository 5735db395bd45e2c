"""Rows read by number, in random batches or in order, without all of them in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featcache.probes.arrays import Features, row_blocks, to_float64, unit_rows
from featcache.probes.gradient.schedule import Plan

if TYPE_CHECKING:
    import torch

_RESIDENT_BYTES = 1 << 30  # of a copy in main memory; beyond, each batch is read from the source
_RESIDENT_SHARE = 0.4  # of a GPU's free memory
_PASS_BYTES = 1 << 26  # 64 MiB of features or logits at a time


class RowReader:
    """Some rows of a feature matrix, as float32 on the device."""

    def __init__(
        self, features: Features, rows: NDArray[np.intp], *, is_unit_norm: bool, device: str
    ) -> None:
        """Check the rows, and copy them to the device as they are stored if they fit there.

        Args:
            features: Shape (N, D), any float dtype, maybe a memory map.
            rows: Numbers of the rows to be read, shape (M,); a position below is one in `rows`.
            is_unit_norm: Whether rows are scaled to unit L2 norm.
            device: Torch device of what is read.

        Raises:
            ShapeError: If a value is not finite, or a row that needs a direction is zero.
        """
        import torch

        self._torch, self._source, self._rows, self._device = torch, features, rows, device
        self.dim, self.is_unit_norm = features.shape[1], is_unit_norm
        self._resident: torch.Tensor | None = None
        if len(rows) * self.dim * features.dtype.itemsize <= self._room():
            dtype = torch.from_numpy(np.empty(0, features.dtype)).dtype
            self._resident = torch.empty((len(rows), self.dim), dtype=dtype, device=device)
        for block in row_blocks(len(rows), 16 * self.dim, _PASS_BYTES):
            part = features[rows[block]]
            (unit_rows if is_unit_norm else to_float64)("features", part)  # raises
            if self._resident is not None:
                self._resident[block] = torch.from_numpy(part).to(device)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._rows)

    def at(self, positions: torch.Tensor) -> torch.Tensor:
        """Return the rows at `positions`, shape (B,), as (B, D) float32."""
        if self._resident is not None:
            return self._prepare(self._resident.index_select(0, positions.to(self._device)))
        part = self._source[self._rows[positions.numpy()]]
        return self._prepare(self._torch.from_numpy(part).to(self._device))

    def blocks(self, row_bytes: int) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield (positions, values (B, D)) that cover all rows; a row needs `row_bytes` more."""
        for part in row_blocks(len(self), row_bytes + 8 * self.dim, _PASS_BYTES):
            yield part, self.at(self._torch.arange(part.start, part.stop))

    def _prepare(self, part: torch.Tensor) -> torch.Tensor:
        if not self.is_unit_norm:
            return part.float()
        wide = part.double()
        norms: torch.Tensor = self._torch.linalg.vector_norm(wide, dim=1, keepdim=True)
        return (wide / norms).float()

    def _room(self) -> float:
        if self._device.startswith("cuda"):
            return _RESIDENT_SHARE * self._torch.cuda.mem_get_info(self._device)[0]
        return _RESIDENT_BYTES


def batches(plan: Plan, seed: int) -> Iterator[torch.Tensor]:
    """Yield the positions of the rows of each iteration, on the CPU whatever the device.

    An epoch is one random order of the rows. Without epochs the orders are joined end to end and
    cut into batches of one size, so that each row still comes equally often.

    Args:
        plan: How many rows, and how many iterations of which batch.
        seed: The same one gives the same batches.

    Yields:
        Shape (B,), int64.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    pool = torch.empty(0, dtype=torch.int64)
    for step in range(plan.n_steps):
        if plan.per_epoch:
            if step % plan.per_epoch == 0:
                pool = torch.randperm(plan.n_rows, generator=generator)
        else:
            while len(pool) < plan.batch:
                pool = torch.cat([pool, torch.randperm(plan.n_rows, generator=generator)])
        yield pool[: plan.batch]
        pool = pool[plan.batch :]
