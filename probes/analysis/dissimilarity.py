"""Dissimilarity of all pairs of rows: RSA between two sets, PARC between a set and its labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ShapeError
from featcache.probes.analysis.decomposition import (
    Decomposition,
    check_classes,
    compact,
    principal_components,
)
from featcache.probes.arrays import Features, check_features, check_labels, to_float64


def correlation_distances(features: Features) -> NDArray[np.float64]:
    """Return 1 - Pearson correlation over dimensions of each pair of rows i < j.

    Args:
        features: Shape (N, D), N >= 3 and D >= 2.

    Returns:
        The upper triangle row by row, shape (N (N - 1) / 2,); N x N values are held meanwhile.

    Raises:
        ShapeError: If there are fewer rows or dimensions, or if a row is constant or not finite.
    """
    check_features("features", features)
    if len(features) < 3 or features.shape[1] < 2:
        raise ShapeError(
            f"Pairs of rows need 3 rows and 2 dimensions to be ranked; got shape {features.shape}. "
            "Take more rows."
        )
    rows = to_float64("features", features)
    rows /= np.maximum(np.abs(rows).max(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    rows -= rows.mean(axis=1, keepdims=True)
    norms = np.sqrt(np.einsum("nd,nd->n", rows, rows))
    is_constant = norms <= 1e-12  # of rows whose largest value was 1
    if is_constant.any():
        raise ShapeError(
            f"A row must vary over its dimensions to be correlated; {int(is_constant.sum())} rows "
            f"are constant, the first is row {int(is_constant.argmax())}. Drop them."
        )
    rows /= norms[:, None]
    return np.asarray(1 - (rows @ rows.T)[np.triu_indices(len(rows), 1)])


def rank_pairs(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ranks as unit vector, so that two of them multiply to Spearman's correlation.

    Equal distances share the mean of their ranks.

    Raises:
        ShapeError: If all distances are equal.
    """
    from scipy.stats import rankdata

    ranks = rankdata(distances)
    ranks -= ranks.mean()
    norm = np.sqrt(ranks @ ranks)
    if norm == 0:
        raise ShapeError(
            f"Distances must differ to be ranked; all {len(distances)} are equal. Take other rows."
        )
    return np.asarray(ranks / norm)


def rsa(first: Features, second: Features) -> float:
    """Return Spearman's correlation of the pair distances of two sets of the same rows.

    Does not change with scale; it does with rotation, as correlations over dimensions do.

    Args:
        first: Shape (N, D).
        second: Shape (N, E).

    Raises:
        ShapeError: If rows differ in number, or as `correlation_distances`.

    Source: Kriegeskorte et al. 2008; checked against scipy's `spearmanr`.
    """
    if len(first) != len(second):
        raise ShapeError(
            f"Both sets must have the same rows; got {len(first)} and {len(second)}. "
            "Match them by id."
        )
    ranks = [rank_pairs(correlation_distances(one)) for one in (first, second)]
    return float(ranks[0] @ ranks[1])


def parc(centred: Decomposition, labels: NDArray[np.int64], *, dims: int) -> float:
    """Return PARC: 100 times Spearman's correlation of feature distances and label distances.

    Features are principal components, z-scored, then compared by 1 - correlation; labels are
    compared as one-hot rows, so their distances take two values and most pairs tie. Correlations
    over dimensions depend on the axes, hence on the sign convention of `principal_components`.

    Args:
        centred: Of centred features, shape (N, D).
        labels: Shape (N,), class indices from 0.
        dims: Principal components at most; 0 for all.

    Raises:
        ShapeError: If arrays do not fit, if all rows are equal, or if there is one class only.

    Source: Bolya et al. 2021, arXiv:2111.06977, and dbolya/parc (PCA 32, then z-score).
    """
    check_labels("labels", centred.left, labels)
    check_classes(labels, "PARC")
    rows = principal_components(centred, dims)
    rows /= rows.std(axis=0)  # components have mean 0, and variance by their choice
    pairs = np.triu_indices(len(rows), 1)
    columns = compact(labels)
    differs = (columns[pairs[0]] != columns[pairs[1]]).astype(np.float64)
    return 100 * float(rank_pairs(correlation_distances(rows)) @ rank_pairs(differs))
