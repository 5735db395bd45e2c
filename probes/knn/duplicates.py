"""Equal rows of a bank: searched once, listed all.

Every copy of a row has the same score, so thousands of copies would fill the list of nearest rows
with ties, which FAISS breaks as it likes. One row stands for its copies while FAISS searches;
afterwards the copies take their places behind it, by row index.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featcache.probes.arrays import row_blocks
from featcache.probes.knn.threads import each_block

_CACHE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Copies:
    """Groups of equal rows of two or more."""

    first: NDArray[np.int64]
    """Shape (G,), the first row of each group, ascending: it stands for the group."""
    starts: NDArray[np.int64]
    """Shape (G,), where the group begins in `members`."""
    sizes: NDArray[np.int64]
    """Shape (G,), rows of the group."""
    members: NDArray[np.int64]
    """The rows of each group, ascending, group after group."""

    def shifted(self, offset: int) -> Copies:
        """Return the groups with `offset` added to each row index."""
        return Copies(
            first=self.first + offset,
            starts=self.starts,
            sizes=self.sizes,
            members=self.members + offset,
        )

    def of(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the group of each row, 0 where it stands for itself, and the group's size.

        Args:
            rows: Any shape; -1, for no row, has size 0.
        """
        size = (rows >= 0).astype(np.int64)
        if not len(self.first):
            return np.zeros_like(rows), size
        group = np.minimum(np.searchsorted(self.first, rows), len(self.first) - 1)
        is_first = self.first[group] == rows
        return np.where(is_first, group, 0), np.where(is_first, self.sizes[group], size)


def find_copies(rows: NDArray[np.float32]) -> tuple[Copies, NDArray[np.int64]]:
    """Group the rows that are equal bit for bit.

    Args:
        rows: Shape (N, D), C-contiguous.

    Returns:
        The groups, and the indices of the rows that stand for themselves or for a group,
        ascending. Two different rows whose 64-bit hashes are equal stand for themselves.
    """
    keys = _hashes(rows)
    order = np.argsort(keys, kind="stable")
    is_new = np.ones(len(rows), dtype=bool)
    is_new[1:] = keys[order[1:]] != keys[order[:-1]]
    group = np.cumsum(is_new) - 1
    leader = order[is_new][group]  # of the row at each place of `order`
    for block in row_blocks(len(rows), 8 * rows.shape[1]):
        at = block.start + np.flatnonzero(~is_new[block])
        differs = (rows[order[at]] != rows[leader[at]]).any(axis=1)
        leader[at[differs]] = order[at[differs]]
    first = np.empty(len(rows), dtype=np.int64)
    first[order] = leader
    kept = np.flatnonzero(first == np.arange(len(rows)))
    counts = np.bincount(first, minlength=len(rows))
    grouped = np.flatnonzero(counts[first] > 1)
    members = grouped[np.argsort(first[grouped], kind="stable")]
    chosen = np.flatnonzero(counts > 1)
    sizes = counts[chosen]
    return Copies(first=chosen, starts=np.cumsum(sizes) - sizes, sizes=sizes, members=members), kept


def join(parts: list[Copies]) -> Copies:
    """Put the groups of consecutive blocks of rows together, rows of each block after the last."""
    total = np.cumsum([0] + [len(part.members) for part in parts])
    starts = [part.starts + base for part, base in zip(parts, total[:-1], strict=True)]
    empty = [np.zeros(0, dtype=np.int64)]
    return Copies(
        first=np.concatenate(empty + [part.first for part in parts]),
        starts=np.concatenate(empty + starts),
        sizes=np.concatenate(empty + [part.sizes for part in parts]),
        members=np.concatenate(empty + [part.members for part in parts]),
    )


def list_copies(
    copies: Copies,
    scores: NDArray[np.float32],
    rows: NDArray[np.int64],
    own: NDArray[np.int64],
    k: int,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Put all copies into the lists and cut these to k, by (score descending, row).

    Args:
        copies: The groups.
        scores: Shape (M, w), descending; -inf where there is no row.
        rows: Shape (M, w), rows that stand for groups or for themselves; -1 for none.
        own: Shape (M,), the row that each query must not find; -1 for none.
        k: Rows wanted; the copies of each line are k + 1 at least, or k without its own row.

    Returns:
        Scores and rows, shape (M, k).
    """
    group, counts = copies.of(rows)
    counts = np.minimum(counts, k + 1)  # one more, as the query's own row may be among them
    have = counts.cumsum(axis=1)
    last = np.where(have[:, -1] > k, (have > k).argmax(axis=1), rows.shape[1] - 1)
    worst = np.take_along_axis(scores, last[:, None], 1)
    counts[scores < worst] = 0
    flat = counts.ravel()
    cell = np.repeat(np.arange(flat.size), flat)
    place = np.arange(len(cell)) - np.repeat(flat.cumsum() - flat, flat)
    found = rows.ravel()[cell]
    is_group = (copies.of(found)[1] > 1) & (place >= 0)
    at = copies.starts[group.ravel()[cell[is_group]]] + place[is_group]
    found[is_group] = copies.members[at]
    line = cell // rows.shape[1]
    keep = found != own[line]
    line, found, value = line[keep], found[keep], scores.ravel()[cell[keep]]
    order = np.lexsort((found, -value, line))
    rank = np.arange(len(order)) - np.searchsorted(line, line)  # `line` is sorted already
    order = order[rank < k]
    return value[order].reshape(-1, k), found[order].reshape(-1, k)


def _hashes(rows: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Multiply the words of each row by odd numbers and add them up, modulo 2⁶⁴."""
    n, dim = rows.shape
    odd = 2 * np.random.default_rng(0).integers(0, 1 << 63, (1, dim), dtype=np.uint64) + 1
    keys = np.empty(n, dtype=np.uint64)

    def fill(block: slice) -> None:
        words: NDArray[np.uint64] = (
            rows[block].view(np.uint32 if dim % 2 else np.uint64).astype(np.uint64)
        )
        words ^= words >> np.uint64(29)  # round numbers have zeros in their low bits
        keys[block] = (words * odd[:, : words.shape[1]]).sum(axis=1)

    each_block(fill, row_blocks(n, 8 * dim, _CACHE_BYTES))
    return keys
