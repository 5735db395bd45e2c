"""The ranks of the relevant items alone: counted, without sorting the gallery."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from featcache.probes.retrieval.order import Ties, distinct_keys, hide, levels, lowest
from featcache.probes.retrieval.row_lists import Flat, joined, without

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """Where the relevant items of B queries stand, best first, padded to the longest list P."""

    rank: torch.Tensor
    """Shape (B, P), int64 from 1; of tied items under `average` the best rank of their tie;
    G + 1 where a line is padded."""
    tied: torch.Tensor
    """Shape (B, P), int64, items in the tie that the item is in; 1 unless under `average`."""
    found: torch.Tensor
    """Shape (B,), int64, how many of the P columns are filled."""
    first_with_junk: torch.Tensor
    """Shape (B,), int64, rank of the first relevant item if junk is counted (with all that ties
    with it, where ties are not broken by id); 0 if none."""

    @property
    def is_item(self) -> torch.Tensor:
        """Shape (B, P), False where a line is padded."""
        import torch

        return torch.arange(self.rank.shape[1], device=self.rank.device) < self.found[:, None]


def relevant_ranks(
    scores: torch.Tensor, relevant: Flat, hidden: Flat, junk: Flat, ties: Ties
) -> Ranks:
    """Rank the relevant items of each query among all items that are neither hidden nor junk.

    The rank of an item is one more than the number of items above it. The scores of the R
    relevant items are sorted, each score of the gallery is placed among them by bisection, and
    a running sum of the counts gives all ranks: G log R instead of the G log G of a full sort.

    Equal scores are ordered by row with `ties: id`; with `pessimistic` relevant items come last
    among their equals; with `average` a tie is kept as a whole, for expectations over its
    orders.

    Args:
        scores: Shape (B, G), float64, larger is nearer, the gallery in the order of its ids;
            overwritten.
        relevant: Pairs (query, row); those hidden or junk are left out.
        hidden: Pairs that do not exist for the query: itself, near duplicates.
        junk: Pairs that are taken out of the ranking.
        ties: How equal scores are ordered.
    """
    import torch

    n_queries, n_rows = scores.shape
    relevant = without(relevant, joined(hidden, junk), n_rows)
    values = levels(scores)
    if ties == "id":
        values = distinct_keys(values)
    hide(values, hidden)
    bounds, found = _bounds(values, relevant, n_queries)
    first = _first_with_junk(values, bounds, found) if len(junk[0]) else None
    hide(values, junk)
    at_least = _count(bounds, values, right=True)
    if ties == "id":
        rank, tied = at_least, at_least.new_ones(at_least.shape)
    else:
        above = _count(bounds, values, right=False)
        rank, tied = above + 1, at_least - above
        if ties == "pessimistic":
            rank, tied = _last_of_tie(bounds, rank, tied), tied.new_ones(tied.shape)
    is_item = torch.arange(rank.shape[1], device=rank.device) < found[:, None]
    rank = rank.flip(1).where(is_item, n_rows + 1)
    if first is None:
        first = rank[:, 0] * (found > 0) if rank.shape[1] else found
    return Ranks(rank=rank, tied=tied.flip(1).where(is_item, 1), found=found, first_with_junk=first)


def _bounds(
    values: torch.Tensor, relevant: Flat, n_queries: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the relevant values of each query in increasing order, right-aligned: (B, P), (B,)."""
    import torch

    sizes = np.bincount(relevant[0], minlength=n_queries)
    width = int(sizes.max(initial=0))
    within = np.arange(len(relevant[0])) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    query, row, column = (torch.from_numpy(one).to(values.device) for one in (*relevant, within))
    bounds = values.new_full((n_queries, width), lowest(values))
    bounds[query, column] = values[query, row]
    return bounds.sort(dim=1).values, torch.from_numpy(sizes).to(values.device)


def _first_with_junk(
    values: torch.Tensor, bounds: torch.Tensor, found: torch.Tensor
) -> torch.Tensor:
    """Return the rank of the best relevant value, shape (B,), 0 where there is none."""
    if not bounds.shape[1]:
        return found
    return (values >= bounds[:, -1:]).sum(dim=1) * (found > 0)


def _count(bounds: torch.Tensor, values: torch.Tensor, *, right: bool) -> torch.Tensor:
    """Return how many values of a line are at least (right) or above each bound, shape (B, P)."""
    import torch

    n_queries, width = bounds.shape
    place = torch.searchsorted(bounds, values.contiguous(), right=right, out_int32=True)
    n_cells = n_queries * (width + 1)  # a block is far below 2^31 of them
    start = torch.arange(0, n_cells, width + 1, device=values.device, dtype=place.dtype)
    counts = torch.bincount(place.add_(start[:, None]).reshape(-1), minlength=n_cells)
    counts = counts.reshape(n_queries, width + 1)[:, 1:]
    return counts.flip(1).cumsum(dim=1).flip(1)


def _last_of_tie(bounds: torch.Tensor, rank: torch.Tensor, tied: torch.Tensor) -> torch.Tensor:
    """Return distinct ranks with the relevant items at the end of their tie, as `bounds` go."""
    import torch

    place = torch.arange(bounds.shape[1], device=bounds.device).expand_as(bounds).contiguous()
    below_or_equal = torch.searchsorted(bounds, bounds, right=True)
    first = torch.searchsorted(bounds, bounds, right=False)
    in_tie = below_or_equal - first  # relevant items of the tie
    nth = below_or_equal - 1 - place  # the last of equal bounds gets the best of their ranks
    return rank + tied - in_tie + nth
