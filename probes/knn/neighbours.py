"""Exact cosine neighbours by FAISS, in an order that does not depend on the machine's mood."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.errors import OptionError
from featcache.probes.arrays import Features, check_pair, row_blocks, unit_rows

_GPU_MAX_K = 2048  # faiss gpu/utils/DeviceDefs: GPU_MAX_SELECTION_K


def nearest_rows(
    bank: Features,
    queries: Features,
    *,
    k: int,
    own_rows: NDArray[np.int64] | None = None,
    device: str = "cpu",
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Find the k rows of `bank` with the largest cosine similarity to each query.

    Rows of equal similarity are ordered by row index, at the k-th place too. Similarities are
    float32 as FAISS computes them, so equality means equality of those. No queries give empty
    arrays of shape (0, k).

    Args:
        bank: Shape (N, D), any float dtype; rows need not have unit norm.
        queries: Shape (M, D).
        k: 1 <= k <= N, or N - 1 with `own_rows`.
        own_rows: Shape (M,), the row of `bank` that each query must not find; -1 for none.
        device: `cuda` searches on the GPU where FAISS has one and k allows it.

    Returns:
        Similarities (M, k), descending, and row indices (M, k).

    Raises:
        OptionError: If k is out of range.
        ShapeError: If D differs, or if a row is zero or not finite.

    Source: FAISS IndexFlatIP, exact search.
    """
    if len(queries):
        check_pair("bank", bank, "queries", queries)
    most = len(bank) - (own_rows is not None)
    if not 1 <= k <= most:
        raise OptionError(
            f"`k` must be between 1 and {most} (rows that a query can find); got {k!r}. "
            "Lower k or extract more images."
        )
    index = _index(bank, device, k)
    wanted = min(len(bank), k + 1 + (own_rows is not None))  # one more shows a tie at k
    scores = np.empty((len(queries), k), dtype=np.float32)
    rows = np.empty((len(queries), k), dtype=np.int64)
    for block in row_blocks(len(queries), 8 * bank.shape[1] + 12 * wanted):
        unit = unit_rows("queries", queries[block]).astype(np.float32)
        own = None if own_rows is None else own_rows[block]
        found, places = _ordered(index.search(unit, wanted), own)
        if wanted > k:
            tied = np.flatnonzero((found[:, k - 1] == found[:, k]) & np.isfinite(found[:, k]))
            if len(tied):
                own = None if own is None else own[tied]
                found[tied, :k], places[tied, :k] = _search_all(index, unit[tied], own, k)
        scores[block], rows[block] = found[:, :k], places[:, :k]
    return scores, rows


def own_rows(bank_ids: NDArray[np.str_], query_ids: NDArray[np.str_]) -> NDArray[np.int64]:
    """Return the row of each query's id in `bank_ids`, or -1 where it is absent, shape (M,)."""
    order = np.argsort(bank_ids, kind="stable")
    place = np.searchsorted(bank_ids, query_ids, sorter=order)
    rows = order[np.minimum(place, len(order) - 1)]
    return np.where(bank_ids[rows] == query_ids, rows, -1).astype(np.int64)


def _index(bank: Features, device: str, k: int) -> Any:  # noqa: ANN401  faiss is untyped
    import torch  # noqa: F401, I001  before faiss, always: they ship two OpenMP runtimes

    import faiss

    index: Any = faiss.IndexFlatIP(bank.shape[1])
    if device.startswith("cuda") and hasattr(faiss, "GpuIndexFlatIP") and k + 2 <= _GPU_MAX_K:
        index = faiss.GpuIndexFlatIP(faiss.StandardGpuResources(), bank.shape[1])
    for block in row_blocks(len(bank), 12 * bank.shape[1]):
        index.add(unit_rows("bank", bank[block]).astype(np.float32))
    return index


def _ordered(
    pair: tuple[NDArray[np.float32], NDArray[np.int64]], own: NDArray[np.int64] | None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Sort each line by (similarity descending, row), with the query's own row last."""
    scores, rows = pair
    if own is not None:
        scores = np.where(rows == own[:, None], np.float32(-np.inf), scores)
    order = np.lexsort((rows, -scores), axis=1)
    return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)


def _search_all(
    index: Any,  # noqa: ANN401  faiss is untyped
    queries: NDArray[np.float32],
    own: NDArray[np.int64] | None,
    k: int,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Rank the whole bank for queries whose k-th place is tied: FAISS keeps any of the tied."""
    bank = index.reconstruct_n(0, index.ntotal)
    scores = np.empty((len(queries), k), dtype=np.float32)
    rows = np.empty((len(queries), k), dtype=np.int64)
    for block in row_blocks(len(queries), 24 * index.ntotal):
        full = queries[block] @ bank.T
        every = np.broadcast_to(np.arange(index.ntotal), full.shape)
        found, places = _ordered((full, every), None if own is None else own[block])
        scores[block], rows[block] = found[:, :k], places[:, :k]
    return scores, rows
