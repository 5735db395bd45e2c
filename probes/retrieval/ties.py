"""Expected scores of a ranking whose ties are in random order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from featcache.probes.retrieval.metrics import ideal_gain
from featcache.probes.retrieval.ranks import Ranks

if TYPE_CHECKING:
    import torch


def expected_columns(
    ranks: Ranks, n_relevant: torch.Tensor, *, k: Sequence[int], n_rows: int
) -> dict[str, torch.Tensor]:
    """Return the mean of each metric over all orders of tied items, in closed form.

    A relevant item in a tie of n items, r of them relevant, behind t items of which c are
    relevant, stands at each rank t + i (i = 1 .. n) with chance 1/n, and there the expected
    number of relevant items up to it is c + 1 + (i - 1)(r - 1)/(n - 1). Summing over i needs
    the harmonic numbers alone. What is a ratio of two chances (map@k/hits) or depends on which
    tie comes first (hit_rate@k) is left out.

    Args:
        ranks: As `relevant_ranks` gives them with `ties: average`.
        n_relevant: Shape (B,).
        k: Cut-offs, each at least 1.
        n_rows: Size of the gallery.

    Returns:
        As `ranking_columns` in the standard convention, with fewer metrics.

    Source: McSherry & Najork 2008, ECIR, "Computing information retrieval performance measures
    efficiently in the presence of tied scores". Checked against all orders of small ties.
    """
    import torch

    places = torch.arange(n_rows + 1, dtype=torch.float64, device=ranks.rank.device)
    harmonic = torch.where(places > 0, 1 / places.clamp(min=1), 0).cumsum(dim=0)
    gains = torch.where(places > 0, 1 / torch.log2(1 + places.clamp(min=1)), 0).cumsum(dim=0)
    relevant = n_relevant.to(torch.float64).clamp(min=1)
    whole = _precision_sum(ranks, harmonic, torch.full_like(relevant, n_rows))
    columns = {
        "average_precision": whole / relevant,
        "map@r": _precision_sum(ranks, harmonic, relevant) / relevant,
        "r_precision": _hits(ranks, relevant) / relevant,
        "reciprocal_rank": _reciprocal_rank(ranks),
    }
    for cut in k:
        depth = torch.full_like(relevant, cut)
        hits, total = _hits(ranks, depth), _precision_sum(ranks, harmonic, depth)
        columns |= {
            f"recall@{cut}": hits / relevant,
            f"precision@{cut}": hits / cut,
            f"map@{cut}/r": total / relevant,
            f"map@{cut}/min": total / relevant.clamp(max=cut),
            f"ndcg@{cut}": _gain(ranks, gains, depth) / ideal_gain(relevant, cut),
        }
    return columns


def _ahead(ranks: Ranks) -> torch.Tensor:
    """Return the items above each item's tie, shape (B, P), 0 where a line is padded."""
    return (ranks.rank - 1) * ranks.is_item


def _within(ranks: Ranks, depth: torch.Tensor) -> torch.Tensor:
    """Return how many places of each item's tie are among the first `depth`, shape (B, P)."""
    import torch

    room = (depth[:, None].to(torch.int64) - _ahead(ranks)).clamp(min=0)
    return torch.minimum(room, ranks.tied) * ranks.is_item


def _hits(ranks: Ranks, depth: torch.Tensor) -> torch.Tensor:
    """Return the expected hits among the first `depth`, shape (B,)."""
    return (_within(ranks, depth) / ranks.tied.to(depth.dtype)).sum(dim=1)


def _gain(ranks: Ranks, gains: torch.Tensor, depth: torch.Tensor) -> torch.Tensor:
    ahead, within = _ahead(ranks), _within(ranks, depth)
    return ((gains[ahead + within] - gains[ahead]) / ranks.tied).sum(dim=1)


def _precision_sum(ranks: Ranks, harmonic: torch.Tensor, depth: torch.Tensor) -> torch.Tensor:
    """Return the expected Σ precision at the hits among the first `depth`, shape (B,)."""
    hits_ahead, in_tie = _relevant_of_tie(ranks)
    ahead, within = _ahead(ranks), _within(ranks, depth)
    size = ranks.tied.to(harmonic.dtype)
    inverse = harmonic[ahead + within] - harmonic[ahead]  # Σ 1/(t + i)
    growth = (in_tie - 1) / (size - 1).clamp(min=1)
    rising = within - (ahead + 1) * inverse  # Σ (i - 1)/(t + i)
    return (((hits_ahead + 1) * inverse + growth * rising) / size).sum(dim=1)


def _relevant_of_tie(ranks: Ranks) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the relevant items above each item's tie and in it, both (B, P)."""
    import torch

    rank = ranks.rank.contiguous()
    first = torch.searchsorted(rank, rank, right=False)
    return first, torch.searchsorted(rank, rank, right=True) - first


def _reciprocal_rank(ranks: Ranks) -> torch.Tensor:
    """Return the expected reciprocal rank of the first hit, shape (B,).

    The first of r among n places is i with chance C(n - i, r - 1) / C(n, r), here from one i to
    the next.
    """
    import torch

    if not ranks.rank.shape[1]:
        return ranks.found.to(torch.float64)
    size = ranks.tied[:, 0].to(torch.float64)
    in_tie = _relevant_of_tie(ranks)[1][:, 0].to(torch.float64)
    ahead, total = _ahead(ranks)[:, 0], torch.zeros_like(size)
    chance = in_tie / size
    for i in range(1, int(ranks.tied[:, 0].max()) + 1):
        total += chance / (ahead + i)
        chance *= ((size - i - in_tie + 1) / (size - i).clamp(min=1)).clamp(min=0)
    return total * (ranks.found > 0)
