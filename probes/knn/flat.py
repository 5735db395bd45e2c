"""Exhaustive search by FAISS over a bank of any size: what it proposes as nearest rows."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.probes.arrays import Features, row_blocks
from featcache.probes.knn.duplicates import Copies, find_copies, join
from featcache.probes.knn.space import Space

BANK_BYTES = 1 << 32
"""4 GiB of float32 rows at a time: ImageNet-1k's train rows at 768 dimensions in one block."""

GPU_MAX_K = 2048  # faiss gpu/utils/DeviceDefs: GPU_MAX_SELECTION_K

_QUERY_BYTES = 1 << 27
_SCATTERED = 64  # rows read here and there of a map: each may bring megabytes of pages along


class FlatBank:
    """A bank in the form that is searched: in memory if it fits, else prepared block by block."""

    def __init__(
        self, bank: Features, space: Space, *, device: str = "cpu", bank_bytes: int = BANK_BYTES
    ) -> None:
        """Prepare the bank, if it fits.

        Args:
            bank: Shape (N, D), N >= 1; may be a memory map.
            space: What near means.
            device: `cuda` or `cuda:1` searches there where FAISS can.
            bank_bytes: Bytes of prepared rows at a time, in memory and on the device.

        Raises:
            ShapeError: If a row cannot be compared.
        """
        self.bank, self.space = bank, space
        self.copies: Copies | None = None
        """Groups of equal rows within a block, known after the first search."""
        self._gpu, self.note = gpu_number(device)
        self._block_bytes = bank_bytes
        self._only: _Block | None = None
        if 4 * bank.size <= bank_bytes:
            self._only = self._prepare(slice(0, len(bank)))
            self.copies = self._only.copies

    def propose(
        self, queries: Features, width: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """List for each query the rows of the largest scores as FAISS computes them.

        Equal rows of one block are listed once, by the first of them.

        Args:
            queries: Shape (M, D).
            width: Rows to list, at least 1.

        Returns:
            Scores (M, width), descending, squared distances negated; and row indices. Where the
            bank has fewer different rows, the rest of a line is -inf and -1.
        """
        scores = np.full((len(queries), width), -np.inf, dtype=np.float32)
        rows = np.full((len(queries), width), -1, dtype=np.int64)
        copies: list[Copies] = []
        for block in self._blocks():
            for part in row_blocks(len(queries), 12 * queries.shape[1] + 48 * width, _QUERY_BYTES):
                found, places = block.search(self.space.rows("queries", queries[part]), width)
                if copies:  # of blocks before
                    found = np.concatenate([scores[part], found], axis=1)
                    places = np.concatenate([rows[part], places], axis=1)
                    order = np.argsort(-found, axis=1, kind="stable")[:, :width]
                    found = np.take_along_axis(found, order, 1)
                    places = np.take_along_axis(places, order, 1)
                n_found = found.shape[1]
                scores[part, :n_found], rows[part, :n_found] = found, places
            copies.append(block.copies)
            del block  # before the next is prepared: one at a time in memory
        if self.copies is None:
            self.copies = join(copies)
        return scores, rows

    def prepared(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return rows in the form that is compared.

        Args:
            rows: Shape (P,), indices that `propose` listed.
        """
        if self._only is not None:
            return self._only.rows_at(rows)
        wanted, back = np.unique(rows, return_inverse=True)
        found = np.empty((len(wanted), self.bank.shape[1]), dtype=np.float32)
        for block in row_blocks(len(wanted), 1, _SCATTERED):
            found[block] = self.space.rows("bank", self.bank[wanted[block]])
            _release_pages(self.bank)
        return found[back]

    def _blocks(self) -> Iterator[_Block]:
        if self._only is not None:
            yield self._only
            return
        for block in row_blocks(len(self.bank), 4 * self.bank.shape[1], self._block_bytes):
            yield self._prepare(block)
            _release_pages(self.bank)

    def _prepare(self, block: slice) -> _Block:
        rows = self.space.rows("bank", self.bank[block])
        return _Block(rows, block.start, self._gpu, is_l2=self.space.searches_l2)


class _Block:
    """Some consecutive rows, equal ones once."""

    def __init__(
        self, rows: NDArray[np.float32], start: int, gpu: int | None, *, is_l2: bool
    ) -> None:
        copies, kept = find_copies(rows)
        if len(kept) < len(rows):  # move the kept rows to the front, in place
            for part in row_blocks(len(kept), 4 * rows.shape[1], _QUERY_BYTES):
                rows[part] = rows[kept[part]]
        self.copies = copies.shifted(start)
        self._rows, self._places, self._is_l2 = rows[: len(kept)], kept + start, is_l2
        self._index = None if gpu is None else _gpu_index(self._rows, gpu, is_l2=is_l2)

    def search(
        self, queries: NDArray[np.float32], width: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return scores and rows of the bank, shape (M, min(width, rows))."""
        width = min(width, len(self._rows))
        if self._index is not None and width <= GPU_MAX_K:
            found, at = self._index.search(queries, width)
        else:
            faiss = load_faiss()
            metric = faiss.METRIC_L2 if self._is_l2 else faiss.METRIC_INNER_PRODUCT
            found, at = faiss.knn(queries, self._rows, width, metric=metric)
        return (-found if self._is_l2 else found), self._places[at]

    def rows_at(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return self._rows[np.searchsorted(self._places, rows)]


def load_faiss() -> Any:  # noqa: ANN401  faiss is untyped
    """Import FAISS after torch, always: they ship two OpenMP runtimes."""
    import torch  # noqa: F401, I001

    import faiss

    return faiss


def gpu_number(device: str) -> tuple[int | None, str]:
    """Return the GPU that a device string names, if FAISS can use it, or a note why not."""
    kind, _, number = device.partition(":")
    if kind != "cuda":
        return None, ""
    faiss = load_faiss()
    asked = int(number or 0)
    if not hasattr(faiss, "GpuIndexFlat") or faiss.get_num_gpus() <= asked:
        return None, f"FAISS finds no GPU for {device!r}; the CPU searched"
    return asked, ""


def _gpu_index(rows: NDArray[np.float32], gpu: int, *, is_l2: bool) -> Any:  # noqa: ANN401
    faiss = load_faiss()
    config = faiss.GpuIndexFlatConfig()
    config.device = gpu
    metric = faiss.METRIC_L2 if is_l2 else faiss.METRIC_INNER_PRODUCT
    index = faiss.GpuIndexFlat(faiss.StandardGpuResources(), rows.shape[1], metric, config)
    index.add(rows)
    return index


def _release_pages(bank: Features) -> None:
    """Let go of what was read of a read-only map: clean pages, but they count as our memory."""
    owner: Any = bank
    is_read_only = False
    while isinstance(owner, np.ndarray):
        is_read_only |= isinstance(owner, np.memmap) and owner.mode == "r"
        owner = owner.base
    if isinstance(owner, mmap.mmap) and is_read_only and hasattr(mmap, "MADV_DONTNEED"):
        owner.madvise(mmap.MADV_DONTNEED)
