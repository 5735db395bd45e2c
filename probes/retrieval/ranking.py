"""Retrieval: rank a gallery for each query, and score the whole ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featcache.errors import OptionError, ShapeError
from featcache.probes.arrays import Features
from featcache.probes.retrieval.metrics import Convention, ranking_columns
from featcache.probes.retrieval.order import Ties
from featcache.probes.retrieval.ranks import relevant_ranks
from featcache.probes.retrieval.row_lists import (
    Flat,
    RowLists,
    joined,
    no_rows,
    own_row,
    rows_of_class,
    without,
)
from featcache.probes.retrieval.search import Scorer, cosine_scorer, query_blocks
from featcache.probes.retrieval.ties import expected_columns

_MEANS = {
    "average_precision": "mean_average_precision",
    "reciprocal_rank": "mean_reciprocal_rank",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What is relevant to each of Q queries, what is junk, and what it must not find."""

    relevant: RowLists
    hidden: tuple[RowLists, ...] = ()
    """The query itself, near duplicates: as if they were not in the gallery."""
    junk: RowLists | None = None
    """Neither right nor wrong: taken out of the ranking (Philbin et al. 2007)."""
    n_absent: NDArray[np.int64] | None = None
    """Shape (Q,), relevant items that the gallery lacks; they count as never found."""

    def __len__(self) -> int:
        """Return the number of queries."""
        return len(self.relevant.sizes)

    def hidden_pairs(self, block: slice) -> Flat:
        """Return all pairs hidden from a block of queries."""
        flat = no_rows(len(self)).flat(block)
        for lists in self.hidden:
            flat = joined(flat, lists.flat(block))
        return flat

    def junk_pairs(self, block: slice) -> Flat:
        """Return all junk pairs of a block of queries."""
        return (self.junk or no_rows(len(self))).flat(block)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """Scores of Q queries."""

    queries: NDArray[np.intp]
    """Shape (Q,), row indices into the queries that were passed."""
    n_relevant: NDArray[np.int64]
    """Shape (Q,), the R of each query."""
    columns: Mapping[str, NDArray[np.float64]]
    """Metric names to values per query, shape (Q,); see `featcache.probes.retrieval.metrics`."""

    def take(self, mask: NDArray[np.bool_]) -> Ranked:
        """Return the queries where `mask`, shape (Q,), is true."""
        columns = {name: column[mask] for name, column in self.columns.items()}
        return Ranked(queries=self.queries[mask], n_relevant=self.n_relevant[mask], columns=columns)

    def with_relevant(self) -> Ranked:
        """Return the queries that have a relevant item.

        Raises:
            ShapeError: If there is none.
        """
        if not self.n_relevant.any():
            raise ShapeError(
                "At least one query must have a relevant item in the gallery; got none. Use a "
                "labelled split in which classes have two images or more."
            )
        return self.take(self.n_relevant > 0)

    def means(self) -> dict[str, float]:
        """Return the mean of each metric over the queries, under the names of results.

        Raises:
            ShapeError: If there is no query.
        """
        if not len(self.queries):
            raise ShapeError("A mean needs at least one query; got none. Pass some queries.")
        return {
            _MEANS.get(name, name): float(column.mean())
            for name, column in self.columns.items()
            if name != "first_hit"
        }

    def class_means(self, labels: NDArray[np.int64]) -> dict[str, float]:
        """Return the means over the classes of the class means, each class counting once.

        Args:
            labels: Shape (Q,), the class of each query.
        """
        _, number, sizes = np.unique(labels, return_inverse=True, return_counts=True)
        return {
            _MEANS.get(name, name): float((np.bincount(number, column) / sizes).mean())
            for name, column in self.columns.items()
            if name != "first_hit"
        }


def score_rankings(
    scorer: Scorer,
    truth: Truth,
    *,
    n_rows: int,
    k: Sequence[int],
    ties: Ties = "id",
    convention: Convention = "standard",
) -> Ranked:
    """Rank the gallery for each query and score the rankings, in blocks of queries.

    Args:
        scorer: From a block of queries to its scores, the gallery in the order of its ids.
        truth: What counts as a hit.
        n_rows: Size of the gallery.
        k: Cut-offs, each at least 1.
        ties: Order of equal scores: by id; relevant ones last; or the mean over all orders.
        convention: See `ranking_columns`.

    Returns:
        All queries, with 0 in each column where nothing is relevant.

    Raises:
        OptionError: If a k is below 1, or if `ties: average` meets trapezoids or junk, for
            which the mean is not defined here.
    """
    if not k or min(k) < 1:
        raise OptionError(f"`k` must hold numbers from 1; got {list(k)!r}. Raise the smallest.")
    if ties == "average" and convention != "standard":
        raise OptionError(
            f"`ties: average` needs `convention: standard`; got {convention!r}. Use "
            "pessimistic, or id."
        )
    parts: list[dict[str, NDArray[np.float64]]] = []
    absent = np.zeros(len(truth), np.int64) if truth.n_absent is None else truth.n_absent
    for block in query_blocks(len(truth), n_rows):
        scores = scorer(block)
        hidden, junk = truth.hidden_pairs(block), truth.junk_pairs(block)
        relevant = without(truth.relevant.flat(block), joined(hidden, junk), n_rows)
        ranks = relevant_ranks(scores, relevant, hidden, junk, ties)
        total = ranks.found + ranks.found.new_tensor(absent[block])
        if ties == "average":
            columns = expected_columns(ranks, total, k=k, n_rows=n_rows)
        else:
            columns = ranking_columns(ranks, total, k=k, convention=convention)
        columns["n_relevant"] = total
        parts.append({name: column.cpu().numpy() for name, column in columns.items()})
    names = list(parts[0]) if parts else []
    whole = {name: np.concatenate([part[name] for part in parts]) for name in names}
    n_relevant = whole.pop("n_relevant", np.zeros(0)).astype(np.int64)
    return Ranked(queries=np.arange(len(truth)), n_relevant=n_relevant, columns=whole)


def rank_gallery(
    queries: Features,
    query_labels: NDArray[np.int64],
    gallery: Features,
    gallery_labels: NDArray[np.int64],
    *,
    query_ids: NDArray[np.str_],
    gallery_ids: NDArray[np.str_],
    k: Sequence[int],
    exclude_own_id: bool = True,
    ties: Ties = "id",
    device: str = "cpu",
) -> Ranked:
    """Rank all gallery items for each query by cosine similarity; the same label is relevant.

    Unlabelled rows (-1) are never relevant and have none. Queries without a relevant item are
    left out. A k above the gallery's size counts the whole gallery. Similarities are computed
    in float64, in blocks of queries.

    Args:
        queries: Shape (M, D), any float dtype; scaled to unit norm here. M may be 0.
        query_labels: Shape (M,).
        gallery: Shape (G, D).
        gallery_labels: Shape (G,).
        query_ids: Shape (M,).
        gallery_ids: Shape (G,), unique.
        k: Cut-offs, each at least 1.
        exclude_own_id: Whether the gallery item with the query's own id is left out.
        ties: Order of items of equal similarity.
        device: Torch device of the products and counts.

    Raises:
        OptionError: If a k is below 1.
        ShapeError: If arrays do not fit together, or if a row is zero or not finite.
    """
    sides = ((queries, query_labels, query_ids), (gallery, gallery_labels, gallery_ids))
    if any(len({len(column) for column in side}) != 1 for side in sides):
        raise ShapeError(
            "Features, labels and ids must have one length; got "
            f"{[[len(column) for column in side] for side in sides]} for queries and gallery."
        )
    order = np.argsort(gallery_ids, kind="stable")
    scorer = cosine_scorer(queries, gallery[order], device)
    truth = Truth(
        relevant=rows_of_class(query_labels, gallery_labels[order]),
        hidden=(own_row(query_ids, gallery_ids[order]),) if exclude_own_id else (),
    )
    ranked = score_rankings(scorer, truth, n_rows=len(gallery), k=k, ties=ties)
    return ranked.take(ranked.n_relevant > 0)
