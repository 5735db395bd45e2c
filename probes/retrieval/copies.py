"""Copy detection: one list of (query, reference, score) pairs for all queries together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featcache.errors import OptionError, ShapeError
from featcache.probes.retrieval.ranking import Truth
from featcache.probes.retrieval.ranks import relevant_ranks
from featcache.probes.retrieval.row_lists import Flat, no_rows
from featcache.probes.retrieval.search import CosineScorer, Scorer, nearest, query_blocks

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """The best pairs of all queries, best first, wrong ones first among equal scores."""

    query: NDArray[np.intp]
    """Shape (C,), the query of each pair."""
    level: NDArray[np.float64]
    """Shape (C,), its score in whole steps of 2^-30."""
    is_match: NDArray[np.bool_]
    """Shape (C,)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copies:
    """What a search for copies found."""

    pairs: Pairs
    best_row: NDArray[np.intp]
    """Shape (Q,), the nearest reference of each query."""
    best_level: NDArray[np.float64]
    """Shape (Q,), its score in steps; minus infinity where nothing can be found."""
    match_query: NDArray[np.intp]
    """Shape (T,), the query of each true match whose reference is there."""
    match_rank: NDArray[np.int64]
    """Shape (T,), references of that query with at least its score; 0 if it is not listed."""
    n_matches: NDArray[np.int64]
    """Shape (Q,), true matches of each query, absent references included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NormalisedScorer:
    """Scores less an offset of each query, so that they compare across queries."""

    scorer: Scorer
    offsets: NDArray[np.float64]
    """Shape (Q,)."""

    def __call__(self, block: slice) -> torch.Tensor:
        """Return the shifted scores of a block of queries, shape (B, G)."""
        scores = self.scorer(block)
        return scores.sub_(scores.new_tensor(self.offsets[block])[:, None])


def background_offsets(
    scorer: CosineScorer, *, neighbours: int, beta: float
) -> NDArray[np.float64]:
    """Return beta times each query's mean similarity to its nearest background rows, shape (Q,).

    A query that is near to everything is thus no better candidate than others. The background
    must hold no copies: it is a training set, not the references.

    Args:
        scorer: The queries, with the background as their gallery.
        neighbours: Rows averaged over, at least 1; all rows if there are fewer.
        beta: Weight.

    Raises:
        OptionError: If `neighbours` is below 1.

    Source: Pizzi et al. 2022 (SSCD), arXiv:2202.10261, equation 8, there with the ranks 0 to 2
    and a weight of 1.
    """
    if neighbours < 1:
        raise OptionError(f"`neighbours` must be at least 1; got {neighbours!r}. Raise it.")
    n_queries, n_rows = len(scorer.queries), len(scorer.bank)
    offsets = np.empty(n_queries)
    for block in query_blocks(n_queries, n_rows):
        found, _, _ = nearest(scorer(block), neighbours, no_rows(n_queries).flat(block))
        offsets[block] = beta * found.mean(dim=1).cpu().numpy()
    return offsets


def find_copies(scorer: Scorer, truth: Truth, *, n_rows: int, most: int) -> Copies:
    """Score every pair and list the best `most` of them.

    Wrong pairs come first among equal scores, also where the list is cut: whoever gives one
    score to all pairs gains nothing. Pairs are gathered block by block and pruned, so that
    memory is bounded by a few times `most` and a block.

    Args:
        scorer: From a block of queries to its scores, comparable across queries, the references
            in the order of their ids; the nearest of equal ones is the first.
        truth: The true matches and what is hidden; junk is not used.
        n_rows: Number of references.
        most: Pairs listed, at least 1.

    Raises:
        OptionError: If `most` is below 1.
        ShapeError: If there is no true match.

    Source: Douze et al. 2021 (DISC21), arXiv:2106.09672, and its `metrics.py`.
    """
    if most < 1:
        raise OptionError(f"`most` must be at least 1; got {most!r}. Raise it.")
    best_row, best_level = np.empty(len(truth), np.intp), np.empty(len(truth))
    listed, cutoff, waiting = [_no_pairs()], -np.inf, 0
    matches: list[tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.int64]]] = []
    for block in query_blocks(len(truth), n_rows):
        stepped, relevant, found = _scored(scorer, truth, block)
        best_level[block], best_row[block] = (
            one.cpu().numpy() for one in (stepped.amax(dim=1), stepped.argmax(dim=1))
        )
        matches.append(found)
        listed.append(_pairs_above(stepped, cutoff, relevant, block.start))
        waiting += len(listed[-1].query)
        if waiting > 2 * most:
            listed = [_pruned(listed, most)]
            cutoff, waiting = float(listed[0].level[-1]), most
    pairs = _pruned(listed, most)
    if len(pairs.query) == most:
        cutoff = float(pairs.level[-1])
    query, level, rank = (np.concatenate(column) for column in zip(*matches, strict=True))
    n_matches = np.bincount(query, minlength=len(truth))
    if truth.n_absent is not None:
        n_matches = n_matches + truth.n_absent
    if not n_matches.any():
        raise ShapeError(
            "At least one query must have a true match; got none. Give `ground_truth`, or use "
            "splits that share classes."
        )
    return Copies(
        pairs=pairs,
        best_row=best_row,
        best_level=best_level,
        match_query=query,
        match_rank=np.where(level >= cutoff, rank, 0),
        n_matches=n_matches,
    )


def _scored(
    scorer: Scorer, truth: Truth, block: slice
) -> tuple[torch.Tensor, Flat, tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.int64]]]:
    """Return a block's levels, its true pairs, and their queries, levels and worst ranks."""
    scores = scorer(block)
    hidden, relevant = truth.hidden_pairs(block), truth.relevant.flat(block)
    nothing = no_rows(len(truth)).flat(block)
    ranks = relevant_ranks(scores, relevant, hidden, nothing, "average")  # leaves levels behind
    query, row = relevant
    level = scores.cpu().numpy()[query, row]
    order = np.lexsort((-level, query))
    order = order[np.isfinite(level[order])]  # hidden ones have no rank
    worst = (ranks.rank + ranks.tied - 1)[ranks.is_item].cpu().numpy()
    return scores, relevant, (query[order] + block.start, level[order], worst)


def _no_pairs() -> Pairs:
    return Pairs(query=np.zeros(0, np.intp), level=np.zeros(0), is_match=np.zeros(0, np.bool_))


def _pairs_above(stepped: torch.Tensor, cutoff: float, relevant: Flat, start: int) -> Pairs:
    """Return the pairs of a block that may still be listed."""
    kept = stepped.isfinite() & (stepped >= cutoff)
    query, row = (column.cpu().numpy() for column in kept.nonzero(as_tuple=True))
    n_rows = stepped.shape[1]
    return Pairs(
        query=query + start,
        level=stepped[kept].cpu().numpy(),
        is_match=np.isin(query * n_rows + row, relevant[0] * n_rows + relevant[1]),
    )


def _pruned(listed: list[Pairs], most: int) -> Pairs:
    """Return the best pairs of all, in order; those of one query and score are alike."""
    level = np.concatenate([one.level for one in listed])
    query = np.concatenate([one.query for one in listed])
    is_match = np.concatenate([one.is_match for one in listed])
    order = np.lexsort((query, is_match, -level))[:most]
    return Pairs(query=query[order], level=level[order], is_match=is_match[order])


def copy_metrics(copies: Copies) -> dict[str, float]:
    """Return micro_ap, recall@p90, recall@rank1 and recall@rank10.

    micro_ap is Σ over the listed matches of the precision of the list up to them, divided by
    the number of true matches, found or not. recall@p90 is the largest recall at which the
    precision is at least 0.9, or 0 if it never is. recall@rank<k> is the share of true matches
    that are listed and for whose query fewer than k other references score as high.
    """
    total = int(copies.n_matches.sum())
    precision, hits = _precision(copies.pairs)
    at_match = copies.pairs.is_match
    reached = hits[precision >= 0.9]  # 0.9: the operating point of DISC21
    listed = copies.match_rank[copies.match_rank > 0]
    return {
        "micro_ap": float(precision[at_match].sum() / total),
        "recall@p90": float(reached.max() / total) if len(reached) else 0.0,
        "recall@rank1": float((listed <= 1).sum() / total),
        "recall@rank10": float((listed <= 10).sum() / total),
    }


def _precision(pairs: Pairs) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    hits = np.cumsum(pairs.is_match, dtype=np.int64)
    return hits / np.arange(1, len(hits) + 1), hits


def micro_ap_resamples(copies: Copies, rng: np.random.Generator, resamples: int) -> Iterator[float]:
    """Yield micro_ap of resampled queries: each counts as often as it is drawn.

    Draws without a true match are skipped.

    Args:
        copies: What was found.
        rng: Draws the queries.
        resamples: Number of draws.
    """
    n_queries = len(copies.n_matches)
    query, is_match = copies.pairs.query, copies.pairs.is_match
    for _ in range(resamples):
        counts = np.bincount(rng.integers(n_queries, size=n_queries), minlength=n_queries)
        total = counts @ copies.n_matches
        if total:
            weights = counts[query].astype(np.float64)
            hits = weights * is_match
            seen = np.maximum(np.cumsum(weights), 1)
            yield float((hits * np.cumsum(hits) / seen).sum() / total)
