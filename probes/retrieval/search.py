"""Cosine similarities of queries to a gallery, block by block, and the nearest rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from featcache.probes.arrays import Features, check_pair, row_blocks, unit_rows
from featcache.probes.retrieval.order import distinct_keys, hide, levels
from featcache.probes.retrieval.row_lists import Flat

if TYPE_CHECKING:
    import torch

Scorer = Callable[[slice], "torch.Tensor"]
"""From a block of queries to its scores, shape (B, G), float64, new, larger is nearer."""

_BLOCK_BYTES = 1 << 26  # 64 MiB: half as long as 256 MiB blocks, whose passes leave the cache


@dataclass(frozen=True, slots=True, kw_only=True)
class CosineScorer:
    """Products of unit rows in float64."""

    queries: Features
    """Shape (Q, D), any float dtype, scaled to unit norm block by block."""
    bank: torch.Tensor
    """Shape (G, D), float64, unit rows, on the device of the products."""

    def __call__(self, block: slice) -> torch.Tensor:
        """Return the similarities of a block of queries, shape (B, G).

        Raises:
            ShapeError: If a query is zero or not finite.
        """
        import torch

        rows = torch.from_numpy(unit_rows("queries", self.queries[block]))
        return rows.to(self.bank.device) @ self.bank.T


def cosine_scorer(queries: Features, gallery: Features, device: str) -> CosineScorer:
    """Scale the gallery to unit rows and put it on the device.

    Args:
        queries: Shape (Q, D), Q may be 0.
        gallery: Shape (G, D).
        device: Torch device of the products.

    Raises:
        ShapeError: If D differs, or if a row of the gallery is zero or not finite.
    """
    import torch

    check_pair("queries", queries if len(queries) else gallery[:1], "gallery", gallery)
    bank = torch.empty(gallery.shape, dtype=torch.float64, device=device)
    for block in row_blocks(len(gallery), 16 * gallery.shape[1]):
        bank[block] = torch.from_numpy(unit_rows("gallery", gallery[block])).to(device)
    return CosineScorer(queries=queries, bank=bank)


def query_blocks(n_queries: int, n_rows: int) -> Iterator[slice]:
    """Yield blocks of queries whose (B, G) arrays stay within a few hundred MiB together."""
    return row_blocks(n_queries, 40 * n_rows, _BLOCK_BYTES)


def nearest(
    scores: torch.Tensor, n: int, hidden: Flat
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the n best rows of each query, ties by row, those hidden left out.

    Args:
        scores: Shape (B, G), float64.
        n: At least 1; more than G give G.
        hidden: Pairs (query, row) that a query must not find.

    Returns:
        Scores (B, n), rows (B, n), and whether each is one: a line with fewer than n rows to
        find ends in False, with score 0.
    """
    keys = distinct_keys(levels(scores.clone()))
    hide(keys, hidden)
    top = keys.topk(min(n, scores.shape[1]), dim=1)
    is_row = top.values > keys.new_full((), -(2**62))
    return scores.gather(1, top.indices) * is_row, top.indices, is_row
