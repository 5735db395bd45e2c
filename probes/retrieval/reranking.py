"""k-reciprocal re-ranking: near are those whose neighbourhoods overlap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featcache.errors import OptionError
from featcache.probes.arrays import row_blocks
from featcache.probes.retrieval.row_lists import no_rows
from featcache.probes.retrieval.search import nearest, query_blocks

if TYPE_CHECKING:
    import torch

    Sparse = Any  # scipy.sparse.csr_array, untyped

_SHARED = 2 / 3  # Zhong et al. 2017, equation 4


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankedScorer:
    """Minus a distance between rows: by shared neighbourhoods, mixed with the cosine."""

    rows: torch.Tensor
    """Shape (N, D), float64, unit rows, queries and gallery together."""
    queries: NDArray[np.intp]
    """Shape (Q,), which rows are queries."""
    gallery: NDArray[np.intp]
    """Shape (G,), which rows are the gallery."""
    farthest: NDArray[np.float64]
    """Shape (N,), each row's largest squared distance."""
    sets: Sparse
    """Shape (N, N), the weights of each row's members, summing to 1."""
    members: Sparse
    """Shape (G, N) by column: the gallery rows that have a member, and its weight there."""
    weight: float
    """Share of the cosine distance, in [0, 1]."""

    def __call__(self, block: slice) -> torch.Tensor:
        """Return minus the mixed distance of a block of queries to the gallery, (B, G)."""
        import torch

        rows = self.queries[block]
        mixed = squared_distances(self.rows[rows], self.rows[self.gallery])
        mixed *= mixed.new_tensor(self.weight / self.farthest[rows])[:, None]
        overlap = np.stack([self._overlap(row) for row in rows])
        mixed += (1 - self.weight) * torch.from_numpy(1 - overlap / (2 - overlap)).to(mixed.device)
        return mixed.neg_()

    def _overlap(self, row: int) -> NDArray[np.float64]:
        """Return Σ min of a row's weights and those of each gallery row, shape (G,)."""
        own = slice(self.sets.indptr[row], self.sets.indptr[row + 1])
        columns, weights = self.sets.indices[own], self.sets.data[own]
        starts = self.members.indptr[columns]
        sizes = self.members.indptr[columns + 1] - starts
        within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        cells = np.repeat(starts, sizes) + within
        shared = np.minimum(np.repeat(weights, sizes), self.members.data[cells])
        total = np.bincount(self.members.indices[cells], shared, minlength=len(self.gallery))
        return np.asarray(total, np.float64)


def reranked_scorer(
    rows: torch.Tensor,
    queries: NDArray[np.intp],
    gallery: NDArray[np.intp],
    *,
    k1: int,
    k2: int,
    weight: float,
) -> RerankedScorer:
    """Build the k-reciprocal sets of all rows, from which queries are scored.

    A row's set holds itself and those of its k1 nearest rows that have it among theirs, and the
    like sets (of half the k1) of members that share over two thirds of theirs with it. A member
    weighs exp(-d), with d the squared distance over the row's largest one, and the weights sum
    to 1; then they are averaged over the k2 nearest rows. The distance of two sets is
    1 - Σ min / Σ max, and `weight` of it is replaced by d.

    Each ranking depends on all queries together. Only the nearest rows and the non-zero weights
    are kept, so memory grows with N k1 k2 and not with N². Neighbours of equal distance are
    taken in the order of the rows.

    Args:
        rows: Shape (N, D), float64, unit rows.
        queries: Shape (Q,), which rows are queries.
        gallery: Shape (G,), which rows are searched; may be the same.
        k1: Neighbours that a set is made of, at least 1.
        k2: Rows that weights are averaged over, the row itself among them, at least 1.
        weight: λ, in [0, 1].

    Raises:
        OptionError: If an argument is out of range.

    Source: Zhong et al. 2017, arXiv:1701.08398; the scaling by the largest distance is that of
    its `re_ranking.py`. Checked against a dense computation by sets.
    """
    if k1 < 1 or k2 < 1 or not 0 <= weight <= 1:
        raise OptionError(
            f"`k1` and `k2` must be at least 1 and `weight` within 0 and 1; got {k1!r}, {k2!r} "
            f"and {weight!r}. Choose values in range."
        )
    near, farthest = _neighbours(rows, max(k1 + 1, k2))
    sets = _weighted(_expanded(near, k1), rows, farthest)
    if k2 > 1:
        sets = _pattern(near[:, :k2]) / near[:, :k2].shape[1] @ sets
    sets = sets.tocsr()
    return RerankedScorer(
        rows=rows,
        queries=queries,
        gallery=gallery,
        farthest=farthest,
        sets=sets,
        members=sets[gallery].tocsc(),
        weight=weight,
    )


def squared_distances(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the squared Euclidean distances of unit rows, shape (B, N), never negative."""
    return (first @ second.T).mul_(-2).add_(2).clamp_(min=0)


def _neighbours(rows: torch.Tensor, n: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the n nearest of each row, itself among them, and its largest squared distance."""
    near = np.empty((len(rows), min(n, len(rows))), dtype=np.intp)
    farthest = np.empty(len(rows))
    none = no_rows(len(rows))
    for block in query_blocks(len(rows), len(rows)):
        distances = squared_distances(rows[block], rows)
        farthest[block] = distances.amax(dim=1).clamp(min=1e-12).cpu().numpy()
        near[block] = nearest(distances.neg_(), n, none.flat(block))[1].cpu().numpy()
    return near, farthest


def _pattern(near: NDArray[np.intp]) -> Sparse:
    """Return the sparse (N, N) matrix that is 1 where a column is among a row's neighbours."""
    from scipy import sparse

    n_rows, width = near.shape
    starts = np.arange(0, n_rows * width + 1, width)
    ones = np.ones(near.size)
    return sparse.csr_array((ones, near.reshape(-1), starts), shape=(n_rows, n_rows))


def _reciprocal(near: NDArray[np.intp]) -> Sparse:
    """Return the pattern of rows that are each other's neighbours, each row its own one."""
    from scipy import sparse

    pattern = _pattern(near)
    both = pattern.multiply(pattern.T)
    return both.maximum(sparse.eye_array(len(near), format="csr")).tocsr()


def _expanded(near: NDArray[np.intp], k1: int) -> Sparse:
    """Return the pattern of the k-reciprocal sets, grown by the sets of their members."""
    whole = _reciprocal(near[:, : k1 + 1])
    half = _reciprocal(near[:, : round(k1 / 2) + 1])
    sizes = np.diff(half.indptr)
    shared = (whole @ half.T).multiply(whole).tocoo()  # |R(i) ∩ R½(j)| for the members j of R(i)
    joins = shared.data > _SHARED * sizes[shared.coords[1]]
    grown = type(shared)((joins.astype(np.float64), shared.coords), shape=shared.shape)
    return (whole + grown.tocsr() @ half).tocoo()


def _weighted(pattern: Sparse, rows: torch.Tensor, farthest: NDArray[np.float64]) -> Sparse:
    """Return exp(-distance) where the pattern is not zero, each row divided by its sum."""
    from scipy import sparse

    kept = pattern.data > 0
    first, second = pattern.coords[0][kept], pattern.coords[1][kept]
    distances = np.empty(len(first))
    for block in row_blocks(len(first), 32 * rows.shape[1]):
        products = (rows[first[block]] * rows[second[block]]).sum(dim=1)
        distances[block] = (2 - 2 * products).clamp(min=0).cpu().numpy()
    weights = np.exp(-distances / farthest[first])
    weights /= np.bincount(first, weights, minlength=len(rows))[first]
    return sparse.csr_array((weights, (first, second)), shape=pattern.shape)
