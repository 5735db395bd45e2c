"""Exact nearest neighbours, in an order that depends on the features alone.

Neighbours are sorted by (score descending, row ascending). FAISS proposes a few more than are
asked for; near-ties among them are scored again one pair at a time, and a query whose last places
might hold more ties than were proposed is searched again with a longer list. So the chosen rows
are the same on any device, and for a bank in one piece or in blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featcache.errors import OptionError
from featcache.probes.arrays import Features, check_pair, row_blocks
from featcache.probes.knn.duplicates import join, list_copies
from featcache.probes.knn.flat import BANK_BYTES, GPU_MAX_K, FlatBank
from featcache.probes.knn.space import Metric, Normalize, make_space
from featcache.probes.knn.threads import each_block

_SPARE = 16  # proposals beyond k: more near-ties than these at the k-th place are rare
_GROWTH = 8  # a longer list, where there are more

_LIST_BYTES = 1 << 30  # of proposals: for each such part of the queries the bank is walked once
_SETTLE_BYTES = 1 << 28
_PAIR_BYTES = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposals:
    """What FAISS proposed for some queries."""

    queries: NDArray[np.float32]
    """Shape (m, D), in the form that is compared."""
    scores: NDArray[np.float32]
    """Shape (m, w), descending; -inf where the bank has no more rows."""
    rows: NDArray[np.int64]
    """Shape (m, w); -1 where the bank has no more rows."""
    own: NDArray[np.int64]
    """Shape (m,), the row to leave out; -1 for none."""


class ExactSearch:
    """A bank that is prepared once and searched for many queries."""

    def __init__(
        self,
        bank: Features,
        *,
        metric: Metric = "cosine",
        normalize: Normalize = "l2",
        device: str = "cpu",
        bank_bytes: int = BANK_BYTES,
    ) -> None:
        """Prepare the bank; the arguments are those of `nearest_rows`."""
        self._space = make_space(bank, metric=metric, normalize=normalize)
        self._flat = FlatBank(bank, self._space, device=device, bank_bytes=bank_bytes)
        self._on_gpu = device.startswith("cuda") and not self._flat.note
        self.n_rows, self.metric = len(bank), metric
        self.notes = [self._flat.note] if self._flat.note else []
        """Where the search did not run as asked, in sentences."""

    def nearest(
        self, queries: Features, k: int, own_rows: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Find the k nearest rows to each query; see `nearest_rows`."""
        if len(queries):
            check_pair("bank", self._flat.bank, "queries", queries)
        own = no_rows(len(queries)) if own_rows is None else own_rows
        has_own = bool((own >= 0).any())
        check_k(k, self.n_rows - has_own)
        least = k + has_own
        scores = np.empty((len(queries), k), dtype=np.float32)
        rows = np.empty((len(queries), k), dtype=np.int64)
        lines, width = np.arange(len(queries)), self._first_width(least)
        while len(lines):
            left = []
            for block in row_blocks(len(lines), 12 * width, _LIST_BYTES):
                chosen = lines[block]
                asked = queries[chosen] if len(lines) < len(queries) else queries[block]
                found = self._flat.propose(asked, width)
                for part in row_blocks(len(chosen), 400 * width, _SETTLE_BYTES):
                    at = chosen[part]
                    proposals = Proposals(
                        queries=self._space.rows("queries", asked[part]),
                        scores=found[0][part],
                        rows=found[1][part],
                        own=own[at],
                    )
                    scores[at], rows[at], is_complete = self._settle(proposals, k, least)
                    left.append(at[~is_complete])
            lines = np.concatenate(left)
            width = min(_GROWTH * width, self.n_rows)
        return scores, rows

    def _first_width(self, least: int) -> int:
        width = min(least + _SPARE, self.n_rows)
        if self._on_gpu and width > GPU_MAX_K:
            if least < GPU_MAX_K:
                return GPU_MAX_K
            note = f"{least} neighbours are more than FAISS lists on a GPU; the CPU searched"
            self.notes = sorted({*self.notes, note})
        return width

    def _settle(
        self, proposals: Proposals, k: int, least: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.bool_]]:
        """Order the proposals and cut them to k; tell which lines hold all that could be in it."""
        found, own = proposals.scores, proposals.own
        slack = 2 * self._space.tolerance(proposals.queries, found[:, least - 1])
        lists_all: NDArray[np.bool_] = found[:, -1] == -np.inf
        lists_all |= found.shape[1] == self.n_rows
        is_complete = np.asarray(lists_all | (found[:, -1] < found[:, least - 1] - slack))
        scores, rows, doubtful = self._rescored(proposals, slack)
        copies = self._flat.copies or join([])
        with_copies = np.zeros(len(rows), dtype=np.bool_)
        if len(copies.first):
            with_copies |= (copies.of(rows)[1] > 1).any(axis=1)
        is_own: NDArray[np.bool_] = rows == own[:, None]
        is_own[with_copies] = False
        scores[is_own] = -np.inf
        lines = np.flatnonzero(with_copies | (is_own | doubtful).any(axis=1))
        order = np.lexsort((rows[lines], -scores[lines]), axis=1)
        scores[lines] = np.take_along_axis(scores[lines], order, 1)
        rows[lines] = np.take_along_axis(rows[lines], order, 1)
        near, places = scores[:, :k], rows[:, :k]
        if with_copies.any():
            near[with_copies], places[with_copies] = list_copies(
                copies, scores[with_copies], rows[with_copies], own[with_copies], k
            )
        return near, places, is_complete

    def _rescored(
        self, proposals: Proposals, slack: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.bool_]]:
        """Score again, pair by pair, what is within `slack` of the proposal before or after it.

        Returns:
            New scores and copied rows, shape (m, w), in the proposed order; and which pairs
            were scored again.
        """
        scores, rows = proposals.scores.copy(), proposals.rows.copy()
        doubtful = np.zeros(scores.shape, dtype=bool)
        with np.errstate(invalid="ignore"):  # -inf less -inf: neither is a row
            is_near = scores[:, :-1].astype(np.float64) - scores[:, 1:] <= slack[:, None]
        doubtful[:, 1:] |= is_near
        doubtful[:, :-1] |= is_near
        if self._space.is_distance:
            doubtful[:] = True  # ‖q‖² - 2 q·b + ‖b‖² is too coarse for a distance near 0
        doubtful &= rows >= 0
        line, place = np.nonzero(doubtful)

        def fill(block: slice) -> None:
            at = line[block], place[block]
            scores[at] = self._space.pair_scores(
                proposals.queries[at[0]], self._flat.prepared(rows[at])
            )

        each_block(fill, row_blocks(len(line), 8 * proposals.queries.shape[1], _PAIR_BYTES))
        return scores, rows, doubtful


def nearest_rows(
    bank: Features,
    queries: Features,
    *,
    k: int,
    own_rows: NDArray[np.int64] | None = None,
    device: str = "cpu",
    metric: Metric = "cosine",
    normalize: Normalize = "l2",
    bank_bytes: int = BANK_BYTES,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Find the k rows of `bank` nearest to each query.

    Rows of equal score are ordered by row index, at the k-th place too. Scores of float32 are
    equal where rows are equal, or where float64 products or distances round to one float32. No
    queries give empty arrays of shape (0, k).

    Args:
        bank: Shape (N, D), any float dtype; rows need not have unit norm. A memory map larger
            than `bank_bytes` is read block by block.
        queries: Shape (M, D).
        k: 1 <= k <= N, or N - 1 where `own_rows` leaves a row out.
        own_rows: Shape (M,), the row of `bank` that each query must not find; -1 for none.
        device: `cuda` or `cuda:1` searches on that GPU where FAISS has one; above 2,048
            neighbours, the most it lists there, the CPU does.
        metric: `cosine`, `dot` or `euclidean`.
        normalize: `l2` scales rows to unit norm first; `none` takes them as they are.
        bank_bytes: Bytes of float32 rows held at a time.

    Returns:
        Scores (M, k), descending, and row indices (M, k). A score is the similarity, or minus
        the Euclidean distance.

    Raises:
        OptionError: If k is out of range, or a name is unknown or contradicts another.
        ShapeError: If D differs, or if a row is not finite, or zero where it needs a direction.

    Source: FAISS, exhaustive search; checked against IndexFlatIP, IndexFlatL2 and scikit-learn.
    """
    search = ExactSearch(
        bank, metric=metric, normalize=normalize, device=device, bank_bytes=bank_bytes
    )
    return search.nearest(queries, k, own_rows)


def own_rows(bank_ids: NDArray[np.str_], query_ids: NDArray[np.str_]) -> NDArray[np.int64]:
    """Return the row of each query's id in `bank_ids`, or -1 where it is absent, shape (M,)."""
    if not len(bank_ids):
        return no_rows(len(query_ids))
    order = np.argsort(bank_ids, kind="stable")
    place = np.searchsorted(bank_ids, query_ids, sorter=order)
    rows = order[np.minimum(place, len(order) - 1)]
    return np.where(bank_ids[rows] == query_ids, rows, -1).astype(np.int64)


def no_rows(n_queries: int) -> NDArray[np.int64]:
    """Return -1 for each query, shape (M,): none has a row of its own."""
    return np.full(n_queries, -1, dtype=np.int64)


def check_k(k: int, most: int) -> None:
    """Refuse a number of neighbours that no query can find.

    Raises:
        OptionError: If k is below 1 or above `most`.
    """
    if not 1 <= k <= most:
        raise OptionError(
            f"`k` must be between 1 and {most} (rows that a query can find); got {k!r}. "
            "Lower k or extract more images."
        )
