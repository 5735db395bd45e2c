"""For each query a list of gallery rows: what is relevant to it, or what it must not find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Flat = tuple[NDArray[np.intp], NDArray[np.intp]]
"""Pairs as two columns: the query, counted from the start of its block, and the gallery row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowLists:
    """Q lists as slices of one pool, so that the queries of a class share one slice."""

    pool: NDArray[np.intp]
    """Gallery rows, any number."""
    starts: NDArray[np.intp]
    """Shape (Q,), where each query's slice begins."""
    sizes: NDArray[np.intp]
    """Shape (Q,), how long it is; 0 for an empty list."""

    def flat(self, block: slice) -> Flat:
        """Return the pairs of a block of queries, by query."""
        starts, sizes = self.starts[block], self.sizes[block]
        query = np.repeat(np.arange(len(sizes)), sizes)
        within = np.arange(len(query)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return query, self.pool[np.repeat(starts, sizes) + within]


def no_rows(n_queries: int) -> RowLists:
    """Return an empty list for each query."""
    none = np.zeros(n_queries, dtype=np.intp)
    return RowLists(pool=np.zeros(0, dtype=np.intp), starts=none, sizes=none)


def rows_of_class(query_labels: NDArray[np.int64], gallery_labels: NDArray[np.int64]) -> RowLists:
    """Return for each query the gallery rows of its class; none where its label is negative."""
    pool = np.argsort(gallery_labels, kind="stable")
    ordered = gallery_labels[pool]
    starts = np.searchsorted(ordered, query_labels, side="left")
    ends = np.searchsorted(ordered, query_labels, side="right")
    sizes = np.where(query_labels >= 0, ends - starts, 0)
    return RowLists(pool=pool, starts=starts, sizes=sizes)


def rows_of_ids(lists: Sequence[Sequence[str]], gallery_ids: NDArray[np.str_]) -> RowLists:
    """Return for each query the rows of the gallery ids it lists.

    An id that the gallery lacks is left out, one listed twice counts once.

    Args:
        lists: One list of gallery ids per query.
        gallery_ids: Shape (G,), unique and in increasing order.
    """
    named = [sorted(set(names)) for names in lists]
    sizes = np.array([len(names) for names in named], dtype=np.intp)
    wanted = np.array([name for names in named for name in names], dtype=np.str_)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    rows = np.searchsorted(gallery_ids, wanted)
    is_there = gallery_ids[np.minimum(rows, len(gallery_ids) - 1)] == wanted
    sizes = np.bincount(owner[is_there], minlength=len(sizes))
    return RowLists(pool=rows[is_there], starts=np.cumsum(sizes) - sizes, sizes=sizes)


def own_row(query_ids: NDArray[np.str_], gallery_ids: NDArray[np.str_]) -> RowLists:
    """Return for each query the row that has its own id, none if the gallery lacks it.

    Args:
        query_ids: Shape (Q,).
        gallery_ids: Shape (G,), unique and in increasing order.
    """
    rows = np.minimum(np.searchsorted(gallery_ids, query_ids), len(gallery_ids) - 1)
    sizes = (gallery_ids[rows] == query_ids).astype(np.intp)
    return RowLists(pool=rows, starts=np.arange(len(rows)), sizes=sizes)


def joined(first: Flat, second: Flat) -> Flat:
    """Return the pairs of both."""
    return np.concatenate([first[0], second[0]]), np.concatenate([first[1], second[1]])


def without(pairs: Flat, removed: Flat, n_rows: int) -> Flat:
    """Return the pairs that are not among those removed, in their order.

    Args:
        pairs: Any pairs.
        removed: Pairs of the same block of queries.
        n_rows: Rows of the gallery.
    """
    if not len(removed[0]):
        return pairs
    code, other = (query * n_rows + row for query, row in (pairs, removed))
    kept = ~np.isin(code, other)
    return pairs[0][kept], pairs[1][kept]
