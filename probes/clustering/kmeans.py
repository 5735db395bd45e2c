"""k-means: Lloyd's algorithm from k-means++ seeds, several times."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featcache.errors import OptionError
from featcache.probes.arrays import Features, check_features, row_blocks

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Clustering:
    """One run of k-means."""

    clusters: NDArray[np.int64]
    """Shape (N,), the cluster of each row, from 0; a cluster may be empty."""
    inertia: float
    """Sum of squared distances to the cluster means."""
    steps: int
    """Lloyd's steps until no row changed its cluster, or the limit."""
    is_converged: bool


def kmeans(
    features: Features,
    *,
    n_clusters: int,
    restarts: int,
    max_iter: int,
    rng: np.random.Generator,
    device: str = "cpu",
) -> Iterator[Clustering]:
    """Cluster rows by k-means, once for each restart.

    Rows are centred in float64 first, which changes no distance and keeps float32 products
    exact enough; sums of squares and of rows are accumulated in float64. A row between two
    means of equal distance goes to the first. A cluster that loses all its rows takes the row
    farthest from its mean. With fewer different rows than clusters some stay empty.

    Args:
        features: Shape (N, D), any float dtype.
        n_clusters: 1 <= k <= N.
        restarts: Runs, each from seeds of its own.
        max_iter: Lloyd's steps of each, at least 1.
        rng: Draws the seeds.
        device: Torch device.

    Yields:
        One run after the other.

    Raises:
        OptionError: If there are more clusters than rows.
        ShapeError: If there are no rows.

    Source: Lloyd 1982; Arthur & Vassilvitskii 2007 (k-means++), with the best of 2 + ln k draws
    for each seed as in scikit-learn. Checked against scikit-learn's KMeans from equal seeds.
    """
    check_features("features", features)
    if not 1 <= n_clusters <= len(features):
        raise OptionError(
            f"`n_clusters` must be between 1 and {len(features)} (rows); got {n_clusters!r}. "
            "Lower it or extract more images."
        )
    rows = _centred(features, device)
    squares = rows.double().square().sum(dim=1)
    for _ in range(restarts):
        seeds = plus_plus_seeds(rows, squares, n_clusters, rng)
        yield lloyd(rows, squares, rows[seeds], max_iter)


def _centred(features: Features, device: str) -> torch.Tensor:
    """Return the rows less their mean, float32, on the device."""
    import torch

    mean = np.zeros(features.shape[1])
    for block in row_blocks(len(features), 16 * features.shape[1]):
        mean += features[block].astype(np.float64).sum(axis=0) / len(features)
    rows = torch.empty(features.shape, dtype=torch.float32, device=device)
    for block in row_blocks(len(features), 16 * features.shape[1]):
        rows[block] = torch.from_numpy(features[block] - mean).to(rows)
    return rows


def plus_plus_seeds(
    rows: torch.Tensor, squares: torch.Tensor, n_clusters: int, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Draw seeds, each with a chance that grows with the squared distance to those before.

    Of 2 + ln k draws the one that leaves the least sum of squared distances is taken.

    Args:
        rows: Shape (N, D), float32.
        squares: Shape (N,), float64, their squared norms.
        n_clusters: Seeds, at most N.
        rng: Draws them.

    Returns:
        Shape (k,), row indices; repeated only where all rows are seeds already.
    """
    import torch

    trials = 2 + int(np.log(n_clusters))
    seeds = [int(rng.integers(len(rows)))]
    nearest = _distances(rows, squares, rows[seeds]).squeeze(1)
    for _ in range(1, n_clusters):
        total = nearest.cumsum(dim=0).cpu().numpy()
        drawn = np.searchsorted(total, rng.random(trials) * total[-1], side="right")
        drawn = np.minimum(drawn, len(rows) - 1)
        reached = torch.minimum(nearest[:, None], _distances(rows, squares, rows[drawn]))
        best = int(reached.sum(dim=0).argmin())
        nearest = reached[:, best]
        seeds.append(int(drawn[best]))
    return np.array(seeds)


def lloyd(
    rows: torch.Tensor, squares: torch.Tensor, centres: torch.Tensor, max_iter: int
) -> Clustering:
    """Move means and rows in turn until no row changes its cluster.

    Args:
        rows: Shape (N, D), float32.
        squares: Shape (N,), float64, their squared norms.
        centres: Shape (k, D), where to begin.
        max_iter: Steps at most, at least 1.
    """
    clusters, distances = _assigned(rows, squares, centres)
    is_converged, steps = False, 0
    while not is_converged and steps < max_iter:
        centres = _means(rows, clusters, distances, centres)
        moved, distances = _assigned(rows, squares, centres)
        is_converged = bool((moved == clusters).all())
        clusters, steps = moved, steps + 1
    return Clustering(
        clusters=clusters.cpu().numpy(),
        inertia=_inertia(rows, clusters, centres),
        steps=steps,
        is_converged=is_converged,
    )


def _inertia(rows: torch.Tensor, clusters: torch.Tensor, centres: torch.Tensor) -> float:
    """Return Σ |x - c|² by differences: an expanded square is off by 1e-7 of the norms."""
    return sum(
        float((rows[block] - centres[clusters[block]]).double().square().sum())
        for block in row_blocks(len(rows), 16 * rows.shape[1])
    )


def _distances(rows: torch.Tensor, squares: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Return squared distances, shape (N, k), float64, never negative."""
    products = (rows @ centres.T).double()
    return products.mul_(-2).add_(squares[:, None]).add_(_squares(centres)).clamp_(min=0)


def _squares(rows: torch.Tensor) -> torch.Tensor:
    return rows.double().square().sum(dim=1)


def _assigned(
    rows: torch.Tensor, squares: torch.Tensor, centres: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the nearest centre of each row and its squared distance, both (N,)."""
    import torch

    clusters = torch.empty(len(rows), dtype=torch.int64, device=rows.device)
    distances = torch.empty(len(rows), dtype=torch.float64, device=rows.device)
    for block in row_blocks(len(rows), 24 * len(centres)):
        found = _distances(rows[block], squares[block], centres).min(dim=1)
        clusters[block], distances[block] = found.indices, found.values
    return clusters, distances


def _means(
    rows: torch.Tensor, clusters: torch.Tensor, distances: torch.Tensor, centres: torch.Tensor
) -> torch.Tensor:
    """Return the mean of each cluster; an empty one gets one of the farthest rows.

    Sums are products with indicator matrices, as scattered additions come in any order on a GPU.
    """
    import torch

    n_clusters = len(centres)
    sums = torch.zeros_like(centres, dtype=torch.float64)
    for block in row_blocks(len(rows), 8 * n_clusters):
        indicator = torch.nn.functional.one_hot(clusters[block], n_clusters).to(rows.dtype)
        sums += (indicator.T @ rows[block]).double()
    sizes = torch.bincount(clusters, minlength=n_clusters)
    empty = (sizes == 0).nonzero().squeeze(1)
    if len(empty):
        farthest = distances.sort(descending=True, stable=True).indices[: len(empty)]
        sums[empty] = rows[farthest].double()
    return (sums / sizes.clamp(min=1)[:, None]).to(centres.dtype)
