"""How well clusters agree with classes, from their contingency table alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ShapeError

Counts = NDArray[np.int64]


def contingency(labels: NDArray[np.int64], clusters: NDArray[np.int64]) -> Counts:
    """Count the rows of each class in each cluster, shape (classes, clusters); none is empty.

    Raises:
        ShapeError: If the columns differ in length, or are empty.
    """
    if labels.shape != clusters.shape or not len(labels):
        raise ShapeError(
            "`labels` and `clusters` must be columns of one length with at least one row; got "
            f"shapes {labels.shape} and {clusters.shape}. Cluster some labelled rows."
        )
    _, row = np.unique(labels, return_inverse=True)
    _, column = np.unique(clusters, return_inverse=True)
    width = int(column.max()) + 1
    cells = np.bincount(row * width + column, minlength=(int(row.max()) + 1) * width)
    return cells.reshape(-1, width)


def agreement(counts: Counts, *, chance: float | None = None) -> dict[str, float]:
    """Return how well clusters agree with classes.

    - nmi, ami: mutual information over the mean of the entropies, as it is and less what
      chance gives at these sizes (arithmetic means throughout);
    - ari: agreement on pairs of rows, less chance;
    - homogeneity, completeness, v_measure: the shares of the classes' (clusters') entropy that
      the clusters (classes) explain, and their harmonic mean, which equals nmi;
    - purity: share of rows in the most frequent class of their cluster;
    - accuracy: share of rows right under the best one-to-one match of clusters to classes.

    Clusters that are the classes agree fully (1) whatever chance gives; one cluster over several
    classes, or several clusters over one class, explains nothing (0).

    Args:
        counts: Shape (classes, clusters), rows of each.
        chance: Expected mutual information in nats, if it is known already.

    Source: Vinh, Epps & Bailey 2010, JMLR 11; Hubert & Arabie 1985; Rosenberg & Hirschberg
    2007. Checked against scikit-learn, and accuracy against all permutations.
    """
    n, classes, clusters = counts.sum(), counts.sum(axis=1), counts.sum(axis=0)
    h_class, h_cluster = _entropy(classes), _entropy(clusters)
    shared = mutual_information(counts)
    mean = (h_class + h_cluster) / 2
    expected = expected_information(counts) if chance is None else chance
    homogeneity = shared / h_class if h_class > 0 else 1.0
    completeness = shared / h_cluster if h_cluster > 0 else 1.0
    both = homogeneity + completeness
    cells = counts > 0
    is_same = bool((cells.sum(axis=0) == 1).all() and (cells.sum(axis=1) == 1).all())
    return {
        "ami": 1.0 if is_same else _ratio(shared - expected, mean - expected),
        "ari": _adjusted_rand(counts),
        "nmi": 1.0 if is_same else _ratio(shared, mean),
        "homogeneity": float(homogeneity),
        "completeness": float(completeness),
        "v_measure": float(2 * homogeneity * completeness / both) if both > 0 else 0.0,
        "purity": float(counts.max(axis=0).sum() / n),
        "accuracy": float(matched(counts)[1].sum() / n),
    }


def matched(counts: Counts) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Match clusters to classes one to one so that most rows are right.

    Returns:
        The class of each cluster, -1 where there are more clusters than classes, and the rows
        that are right in it, both of shape (clusters,).

    Source: Kuhn 1955, by SciPy's `linear_sum_assignment`.
    """
    from scipy.optimize import linear_sum_assignment

    row, column = linear_sum_assignment(counts, maximize=True)
    classes, right = np.full(counts.shape[1], -1), np.zeros(counts.shape[1], np.int64)
    classes[column], right[column] = row, counts[row, column]
    return classes, right


def mutual_information(counts: Counts) -> float:
    """Return the mutual information of classes and clusters in nats, never negative."""
    n = counts.sum()
    row, column = np.nonzero(counts)
    joint = counts[row, column]
    sizes = counts.sum(axis=1)[row] * counts.sum(axis=0)[column].astype(np.float64)
    return max(0.0, float((joint / n * np.log(joint * n / sizes)).sum()))


def expected_information(counts: Counts) -> float:
    """Return the mutual information that random clusters of these sizes have on average, in nats.

    Args:
        counts: Shape (classes, clusters).

    Source: Vinh, Epps & Bailey 2010, equation 24, by scikit-learn.
    """
    from sklearn.metrics.cluster import expected_mutual_information

    return float(expected_mutual_information(counts, int(counts.sum())))


def standard_intervals(
    counts: Counts, rng: np.random.Generator, resamples: int = 1000
) -> dict[str, tuple[float, float]]:
    """Return 95 % intervals of the agreement over rows, the clusters being given.

    Each is the value ± 1.96 standard deviations of resampled tables, cut to [-1, 1]. Percentiles
    would be shifted, as resampling adds mutual information of its own. The chance level of ami
    is kept from the whole table: it takes seconds with 1000 classes, and hardly varies.

    Args:
        counts: Shape (classes, clusters).
        rng: Draws the tables.
        resamples: Number of tables.

    Source: Efron & Tibshirani 1993, chapter 12 (standard normal interval).
    """
    names = ("ami", "ari", "nmi", "purity", "accuracy")
    chance, n = expected_information(counts), int(counts.sum())
    whole = agreement(counts, chance=chance)
    shares = counts.reshape(-1) / n
    drawn = []
    for _ in range(resamples):
        table = rng.multinomial(n, shares).reshape(counts.shape)
        table = table[table.any(axis=1)][:, table.any(axis=0)]
        found = agreement(table, chance=chance)
        drawn.append([found[name] for name in names])
    half = 1.96 * np.std(drawn, axis=0, ddof=1)
    return {
        name: (max(-1.0, whole[name] - spread), min(1.0, whole[name] + spread))
        for name, spread in zip(names, half.tolist(), strict=True)
    }


def _entropy(sizes: Counts) -> float:
    shares = sizes[sizes > 0] / sizes.sum()
    return float(-(shares * np.log(shares)).sum()) if len(shares) > 1 else 0.0


def _ratio(above: float, below: float) -> float:
    """Return a quotient whose denominator may be rounding error: nothing to explain is 0."""
    return float(above / below) if abs(below) > 1e-12 else 0.0


def _adjusted_rand(counts: Counts) -> float:
    def pairs(sizes: Counts) -> float:
        return float((sizes * (sizes - 1.0) / 2).sum())

    together, classes = pairs(counts), pairs(counts.sum(axis=1))
    clusters, every = pairs(counts.sum(axis=0)), pairs(counts.sum(keepdims=True))
    if classes == clusters and classes in (0.0, every):
        return 1.0  # all apart on both sides, or all together
    expected = classes * clusters / every
    return float((together - expected) / ((classes + clusters) / 2 - expected))
