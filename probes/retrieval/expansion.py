"""Rows moved towards their nearest neighbours: query expansion and database augmentation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featcache.errors import OptionError
from featcache.probes.arrays import unit_rows
from featcache.probes.retrieval.row_lists import RowLists, joined, no_rows
from featcache.probes.retrieval.search import CosineScorer, nearest, query_blocks


def expand(
    scorer: CosineScorer, hidden: tuple[RowLists, ...], *, neighbours: int, alpha: float
) -> NDArray[np.float64]:
    """Return each query plus its nearest gallery rows, weighted by similarity^alpha.

    The sum q + Σ max(s_i, 0)^alpha x_i is of unit rows, and is scaled to unit norm. A neighbour
    of negative similarity adds nothing: its cube would turn it round, and a fractional power
    does not exist. Neighbours of equal similarity are taken by id. A query with fewer rows to
    find takes those; one with none stays as it is.

    With the gallery as its own queries this is database-side augmentation; hide each row from
    itself, or it only gets longer.

    Args:
        scorer: Queries and gallery.
        hidden: Gallery rows that each query must not take.
        neighbours: How many rows, at least 1.
        alpha: Exponent, at least 0: 0 is the plain mean.

    Returns:
        Shape (Q, D), float64, unit rows.

    Raises:
        OptionError: If an argument is out of range.
        ShapeError: If a query is zero or not finite.

    Source: Radenović et al. 2019, arXiv:1711.02512, section 3.3 (αQE); Chum et al. 2007 (mean);
    Turcot & Lowe 2009 (augmentation). Checked against a dense sum.
    """
    if neighbours < 1 or alpha < 0:
        raise OptionError(
            f"`neighbours` must be at least 1 and `alpha` at least 0; got {neighbours!r} and "
            f"{alpha!r}. Raise the one that is too small."
        )
    import torch

    n_queries, bank = len(scorer.queries), scorer.bank
    moved = np.empty((n_queries, bank.shape[1]))
    for block in query_blocks(n_queries, len(bank) + neighbours * bank.shape[1]):
        flat = no_rows(n_queries).flat(block)
        for lists in hidden:
            flat = joined(flat, lists.flat(block))
        found, rows, is_row = nearest(scorer(block), neighbours, flat)
        weights = found.clamp(min=0).pow(alpha) * (is_row & (found > 0))  # 0^0 is no neighbour
        added = torch.einsum("bn,bnd->bd", weights, bank[rows])
        own = unit_rows("queries", scorer.queries[block])
        moved[block] = unit_rows("expanded queries", own + added.cpu().numpy())
    return moved
