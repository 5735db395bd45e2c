"""One search of the ID train rows for every detector that looks at neighbours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from featcache.probes.ood.block import Block

_GROUP = 32  # columns that stand for one another in the first look at a row
_BANK_BYTES = 1 << 28  # of similarities at a time; long rows amortise the search for the largest
_LEAST_ROWS = 256  # in a product, for speed


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """What the train rows say of B rows; what was not asked for is None."""

    kth: torch.Tensor | None
    """Cosine to the k-th nearest train row, shape (B,)."""
    guidance: torch.Tensor | None
    """Mean of the k largest cosines, each times the train row's energy, shape (B,)."""
    relation: torch.Tensor | None
    """Sum over train rows of cosine times agreement of the softmax, shape (B,)."""


def search_bank(block: Block, wanted: frozenset[str]) -> Neighbours:
    """Compare rows with all train rows in float32, some rows with a part of the bank at a time."""
    shared = block.shared
    most = max(_LEAST_ROWS, _BANK_BYTES // (4 * shared.n_rows))
    n_rows = math.ceil(len(block.unit) / math.ceil(len(block.unit) / most))
    found = [
        _search(block, slice(start, start + n_rows), wanted)
        for start in range(0, len(block.unit), n_rows)
    ]
    return Neighbours(
        kth=_joined([one.kth for one in found]),
        guidance=_joined([one.guidance for one in found]),
        relation=_joined([one.relation for one in found]),
    )


def _search(block: Block, rows: slice, wanted: frozenset[str]) -> Neighbours:
    shared, options = block.shared, block.shared.options
    torch, queries = shared.torch, block.unit[rows].float()
    kth = _Best(shared.k) if "knn" in wanted else None
    guided = _Best(min(options.nnguide_k, shared.n_rows)) if "nnguide" in wanted else None
    relation = None
    if "relation" in wanted:
        relation = torch.zeros(len(queries), dtype=torch.float64, device=shared.device)
        shares = block.shares[rows].float()
    size = min(shared.n_rows, max(1, _BANK_BYTES // (4 * len(queries))))
    # fresh memory for each product would cost a third of its time in page faults
    room = shared.once("room", lambda: queries.new_empty(max(shared.n_rows, _BANK_BYTES // 4)))
    for start in range(0, shared.n_rows, size):
        bank = shared.bank[start : start + size]
        cosine = room[: len(queries) * len(bank)].view(len(queries), len(bank))
        _multiply(queries, bank, cosine)
        if kth is not None:
            kth.add(cosine)
        if relation is not None:
            near = shares @ shared.bank_shares(start, size).T
            near.mul_(cosine.clamp_min(0))
            near.masked_fill_(near <= options.relation_threshold, 0)
            if options.relation_power != 1:
                near.pow_(options.relation_power)
            relation += near.sum(dim=1)
        if guided is not None:  # last, as it takes the cosines' place
            guided.add(cosine.mul_(shared.patterns.energies[start : start + size].float()))
    return Neighbours(
        kth=None if kth is None else kth.values[:, -1].double(),
        guidance=None if guided is None else guided.values.double().mean(dim=1),
        relation=relation,
    )


def _joined(parts: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    import torch

    there = [one for one in parts if one is not None]
    return torch.cat(there) if there else None


def _multiply(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> None:
    """Write left · rightᵀ into `out`; on a CPU by NumPy, whose product is the faster one."""
    import numpy as np
    import torch

    if out.device.type == "cpu":
        np.matmul(left.numpy(), right.numpy().T, out=out.numpy())
    else:
        torch.mm(left, right.T, out=out)


class _Best:
    """The k largest values of each row over parts of a bank."""

    def __init__(self, k: int) -> None:
        self._k = k
        self.values: torch.Tensor

    def add(self, scores: torch.Tensor) -> None:
        """Take in another part, shape (B, n)."""
        import torch

        found = _largest(scores, min(self._k, scores.shape[1]))
        if hasattr(self, "values"):
            joined = torch.cat([self.values, found], dim=1)
            found = joined.topk(min(self._k, joined.shape[1]), dim=1).values
        self.values = found


def _largest(scores: torch.Tensor, k: int) -> torch.Tensor:
    """Return the k largest values of each row, shape (B, k), largest first.

    Columns go into groups; the k largest values lie in the k groups of the largest maxima. So
    only those groups are searched, and maxima are quicker to find than the k largest.
    """
    import torch

    n_groups = scores.shape[1] // _GROUP
    if n_groups <= 4 * k:
        return scores.topk(k, dim=1).values
    whole = scores[:, : n_groups * _GROUP].reshape(len(scores), n_groups, _GROUP)  # (B, G, 32)
    chosen = whole.amax(dim=2).topk(k, dim=1, sorted=False).indices  # (B, k)
    inside = whole.gather(1, chosen[:, :, None].expand(-1, -1, _GROUP)).flatten(1)
    rest = scores[:, n_groups * _GROUP :]
    return torch.cat([inside, rest], dim=1).topk(k, dim=1).values
