"""Scores of a ranking from the ranks of its relevant items, one column of numbers per metric.

Of a query with R relevant items, of which those found stand at the ranks r_1 < r_2 < ... :

- average_precision (1/R) Σ_j j / r_j: rectangular, over the whole ranking;
- map@r the same sum over r_j <= R (Musgrave et al. 2020, arXiv:2003.08505);
- map@k/r, map@k/min and map@k/hits: the sum over r_j <= k divided by R, by min(k, R) (Google
  Landmarks), or by the hits among the first k (torchmetrics); 0 where there is no hit;
- r_precision: hits among the first R, divided by R;
- reciprocal_rank 1 / r_1, or 0 where nothing is found;
- precision@k and recall@k: hits among the first k, divided by k and by R;
- hit_rate@k: 1 if any of the first k is a hit. Metric learning calls its mean "Recall@k";
- ndcg@k: Σ 1 / log2(1 + r_j) over r_j <= k, divided by the sum of an ideal ranking (binary
  relevance; trec_eval's `ndcg_cut`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from featcache.errors import OptionError
from featcache.probes.retrieval.ranks import Ranks

if TYPE_CHECKING:
    import torch

Convention = Literal["standard", "revisited", "bob"]


def ranking_columns(
    ranks: Ranks, n_relevant: torch.Tensor, *, k: Sequence[int], convention: Convention
) -> dict[str, torch.Tensor]:
    """Return each metric for each query; queries without relevant items get 0 everywhere.

    A cut-off k above the size of the gallery counts the whole gallery; precision@k still
    divides by k, as trec_eval does.

    Args:
        ranks: Distinct ranks (`tied` all 1).
        n_relevant: Shape (B,), R of each query, at least the number of items found.
        k: Cut-offs, each at least 1.
        convention: `standard` as above. `revisited`: average precision by trapezoids, and
            precision@k over min(k, rank of the last relevant item). `bob`: the same, but the
            reciprocal rank counts junk.

    Returns:
        Metric names to columns of shape (B,), float64; `first_hit` is a rank, 0 for none.

    Raises:
        OptionError: If a k is below 1.

    Source: Manning et al. 2008, chapter 8; Radenović et al. 2018, arXiv:1803.11285 and its
    `evaluate.py` for `revisited`; Goldblum et al. 2023, arXiv:2310.19909, for `bob`. Checked
    against pytorch-metric-learning 2.9, pytrec_eval and scikit-learn.
    """
    if not k or min(k) < 1:
        raise OptionError(f"`k` must hold numbers from 1; got {list(k)!r}. Raise the smallest.")
    import torch

    is_item, rank = ranks.is_item, ranks.rank.to(torch.float64)
    nth = torch.arange(1, rank.shape[1] + 1, dtype=torch.float64, device=rank.device)
    relevant = n_relevant.to(torch.float64).clamp(min=1)
    first = _first(ranks)
    precision = nth / rank * is_item  # (B, P), at each relevant item
    steps = precision if convention == "standard" else _trapezoids(rank, nth) * is_item
    columns = {
        "average_precision": steps.sum(dim=1) / relevant,
        "map@r": (precision * (rank <= relevant[:, None])).sum(dim=1) / relevant,
        "r_precision": (is_item & (rank <= relevant[:, None])).sum(dim=1) / relevant,
        "reciprocal_rank": _inverse(ranks.first_with_junk if convention == "bob" else first),
        "first_hit": first.to(torch.float64),
    }
    last = (rank * is_item).amax(dim=1) if rank.shape[1] else relevant
    for cut in k:
        is_hit = is_item & (rank <= cut)
        hits = is_hit.sum(dim=1).to(torch.float64)
        total = (precision * is_hit).sum(dim=1)
        depth = torch.full_like(last, cut)
        if convention != "standard":
            depth = last.clamp(min=1, max=cut)
        gain = (is_hit / torch.log2(1 + rank)).sum(dim=1)
        columns |= {
            f"hit_rate@{cut}": (hits > 0).to(torch.float64),
            f"recall@{cut}": hits / relevant,
            f"precision@{cut}": hits / depth,
            f"map@{cut}/r": total / relevant,
            f"map@{cut}/min": total / relevant.clamp(max=cut),
            f"map@{cut}/hits": total / hits.clamp(min=1),
            f"ndcg@{cut}": gain / ideal_gain(relevant, cut),
        }
    return columns


def ideal_gain(relevant: torch.Tensor, cut: int) -> torch.Tensor:
    """Return Σ 1 / log2(1 + i) over the first min(k, R) ranks, shape (B,)."""
    import torch

    rank = torch.arange(1, cut + 1, dtype=torch.float64, device=relevant.device)
    sums = (1 / torch.log2(1 + rank)).cumsum(dim=0)
    return sums[relevant.clamp(max=cut).to(torch.int64) - 1]


def _first(ranks: Ranks) -> torch.Tensor:
    """Return the rank of the first relevant item, shape (B,), 0 where there is none."""
    if not ranks.rank.shape[1]:
        return ranks.found
    return ranks.rank[:, 0] * (ranks.found > 0)


def _inverse(rank: torch.Tensor) -> torch.Tensor:
    """Return 1 / rank, and 0 for rank 0, in float64."""
    import torch

    return (rank > 0) / rank.clamp(min=1).to(torch.float64)


def _trapezoids(rank: torch.Tensor, nth: torch.Tensor) -> torch.Tensor:
    """Return the mean of the precisions just before and at each relevant item.

    Before the item at rank r that is the j-th relevant one it is (j - 1) / (r - 1), and 1
    before the first rank. So a single relevant item at rank 2 gives (0/1 + 1/2) / 2 = 0.25.
    """
    import torch

    before = torch.where(rank > 1, (nth - 1) / (rank - 1).clamp(min=1), 1.0)
    return (before + nth / rank) / 2
