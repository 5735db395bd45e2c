"""Retrieval: rank a gallery by cosine similarity to each query and score the whole ranking.

Per query, with R relevant gallery items and rel_i = 1 where the item at rank i is relevant:

- average precision (1/R) Σ_i precision@i · rel_i, rectangular, over the full ranking;
- R-precision: hits among the first R, divided by R;
- reciprocal rank: 1 / rank of the first hit;
- hit_rate@k: 1 if any of the first k is a hit. Metric learning calls its mean "Recall@k";
- recall@k: hits among the first k, divided by R, as information retrieval has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featcache.errors import OptionError, ShapeError
from featcache.probes.arrays import Features, check_pair, row_blocks, unit_rows
from featcache.probes.knn.neighbours import own_rows

if TYPE_CHECKING:
    import torch

_STEPS = 2.0**30  # similarities closer than 2^-30 count as equal: beyond any rounding order


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """Scores of the Q queries that have at least one relevant item."""

    queries: NDArray[np.intp]
    """Shape (Q,), row indices into the queries that were passed."""
    n_relevant: NDArray[np.int64]
    """Shape (Q,), the R of each query."""
    average_precision: NDArray[np.float64]
    r_precision: NDArray[np.float64]
    first_hit: NDArray[np.int64]
    """Shape (Q,), rank of the first relevant item, from 1."""
    hits: dict[int, NDArray[np.int64]]
    """For each k the relevant items among the first k, shape (Q,)."""

    @property
    def reciprocal_rank(self) -> NDArray[np.float64]:
        """Shape (Q,)."""
        return 1 / self.first_hit

    def means(self) -> dict[str, float]:
        """Return mAP, R-precision, MRR, hit rates and recalls, averaged over the queries.

        Raises:
            ShapeError: If no query has a relevant item.
        """
        if not len(self.queries):
            raise ShapeError(
                "At least one query must have a relevant item in the gallery; got none. Use a "
                "labelled split in which classes have two images or more."
            )
        found = {
            "mean_average_precision": self.average_precision,
            "r_precision": self.r_precision,
            "mean_reciprocal_rank": self.reciprocal_rank,
        }
        for k, hits in self.hits.items():
            found[f"hit_rate@{k}"] = (hits > 0).astype(np.float64)
            found[f"recall@{k}"] = hits / self.n_relevant
        return {name: float(values.mean()) for name, values in found.items()}


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
    device: str = "cpu",
) -> Ranked:
    """Rank all gallery items for each query, and score the ranking.

    An item is relevant if it has the query's label; unlabelled rows (-1) are never relevant
    and have none. Items of equal similarity are ordered by id. Queries without a relevant item
    are left out. A k above the gallery's size counts the whole gallery. Similarities are
    computed in float64, in blocks of queries.

    Args:
        queries: Shape (M, D), any float dtype; scaled to unit norm here. M may be 0.
        query_labels: Shape (M,).
        gallery: Shape (G, D).
        gallery_labels: Shape (G,).
        query_ids: Shape (M,).
        gallery_ids: Shape (G,), unique.
        k: Cut-offs of `hits`, each at least 1.
        exclude_own_id: Whether the gallery item with the query's own id is left out.
        device: Torch device of the products and sorts.

    Raises:
        OptionError: If a k is below 1.
        ShapeError: If arrays do not fit together, or if a row is zero or not finite.
    """
    if not k or min(k) < 1:
        raise OptionError(f"`k` must hold numbers from 1; got {list(k)!r}. Raise the smallest.")
    sides = ((queries, query_labels, query_ids), (gallery, gallery_labels, gallery_ids))
    if any(len({len(column) for column in side}) != 1 for side in sides):
        raise ShapeError(
            "Features, labels and ids must have one length; got "
            f"{[[len(column) for column in side] for side in sides]} for queries and gallery."
        )
    import torch

    check_pair("queries", queries if len(queries) else gallery[:1], "gallery", gallery)
    order = np.argsort(gallery_ids, kind="stable")  # so that a stable sort breaks ties by id
    bank = torch.tensor(unit_rows("gallery", gallery[order]), device=device)  # (G, D)
    labels = torch.tensor(gallery_labels[order], device=device)
    own = own_rows(gallery_ids[order], query_ids)
    if not exclude_own_id:
        own = np.full_like(own, -1)
    parts: list[dict[str, NDArray[np.float64]]] = []
    for block in row_blocks(len(queries), 40 * len(gallery)):
        scores = torch.tensor(unit_rows("queries", queries[block]), device=device) @ bank.T
        truth = torch.tensor(query_labels[block], device=device)[:, None]
        is_relevant = (labels == truth) & (truth >= 0)
        parts.append(_score_block(scores, is_relevant, own[block], k))
    return _join(parts, k)


def _score_block(
    scores: torch.Tensor, is_relevant: torch.Tensor, own: NDArray[np.int64], k: Sequence[int]
) -> dict[str, NDArray[np.float64]]:
    """Score the rankings of one block of queries, given (B, G) similarities and relevance."""
    import torch

    rows = np.flatnonzero(own >= 0)
    scores = torch.round(scores * _STEPS)
    scores[rows, own[rows]] = -torch.inf
    is_relevant[rows, own[rows]] = False
    order = torch.sort(scores, dim=1, descending=True, stable=True).indices
    relevant = is_relevant.gather(1, order)
    hits = relevant.cumsum(dim=1)  # (B, G), hits among the first i + 1
    total = hits[:, -1]
    ranks = torch.arange(1, hits.shape[1] + 1, dtype=torch.float64, device=hits.device)
    at_r = hits.gather(1, (total - 1).clamp(min=0)[:, None]).squeeze(1)
    columns = {
        "n_relevant": total,
        "average_precision": (hits / ranks * relevant).sum(dim=1) / total.clamp(min=1),
        "r_precision": at_r / total.clamp(min=1),
        "first_hit": relevant.to(torch.uint8).argmax(dim=1) + 1,
    }
    columns |= {f"hits@{cut}": hits[:, min(cut, hits.shape[1]) - 1] for cut in k}
    return {name: column.cpu().numpy() for name, column in columns.items()}


def _join(parts: list[dict[str, NDArray[np.float64]]], k: Sequence[int]) -> Ranked:
    names = ["n_relevant", "average_precision", "r_precision", "first_hit"]
    names += [f"hits@{cut}" for cut in k]
    whole = {name: np.concatenate([np.zeros(0), *(part[name] for part in parts)]) for name in names}
    kept = np.flatnonzero(whole["n_relevant"] > 0)
    return Ranked(
        queries=kept,
        n_relevant=whole["n_relevant"][kept].astype(np.int64),
        average_precision=whole["average_precision"][kept],
        r_precision=whole["r_precision"][kept],
        first_hit=whole["first_hit"][kept].astype(np.int64),
        hits={cut: whole[f"hits@{cut}"][kept].astype(np.int64) for cut in k},
    )
