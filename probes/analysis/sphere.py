"""How features lie on the unit sphere: uniformity, alignment, isotropy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ShapeError
from featcache.probes.analysis.decomposition import class_sums, compact
from featcache.probes.arrays import (
    Features,
    check_features,
    check_labels,
    row_blocks,
    to_float64,
    unit_rows,
)


def uniformity(features: Features, *, temperature: float = 2.0) -> float:
    """Return log of the mean over pairs of exp(-t |x - y|²), rows of unit norm.

    From -4 t at best (two opposite rows; about -2 t in many dimensions) to 0, all rows alike;
    smaller is more uniform. Pairs are walked block by block, and summed in float64.

    Args:
        features: Shape (N, D), N >= 2, any float dtype.
        temperature: t; 2 as published.

    Raises:
        ShapeError: If there is one row, or if one is zero or not finite.

    Source: Wang & Isola 2020, arXiv:2005.10242.
    """
    rows = _pairs_of(features)
    largest, total = -np.inf, 0.0
    for block in row_blocks(len(rows), 24 * len(rows)):
        # |x - y|² = 2 - 2 xᵀy; a rounded negative is 0
        squares = np.maximum(2 - 2 * rows[block] @ rows.T, 0)
        exponents = -temperature * squares
        ahead = np.arange(len(rows))[None] > np.arange(block.start, block.stop)[:, None]
        if not ahead.any():
            continue
        peak = max(largest, float(exponents[ahead].max()))
        total = total * np.exp(largest - peak) + float(np.exp(exponents[ahead] - peak).sum())
        largest = peak
    return float(largest + np.log(total) - np.log(len(rows) * (len(rows) - 1) / 2))


def alignment(features: Features, labels: NDArray[np.int64]) -> float:
    """Return the mean of |x - y|² over pairs of one class, rows of unit norm.

    From 0, each class in one point, to 4; smaller is better aligned. The paper's positives are two
    views of an image; without views they are two images of a class. Each pair counts once, so
    large classes count more.

    Args:
        features: Shape (N, D), any float dtype.
        labels: Shape (N,), class indices from 0.

    Raises:
        ShapeError: If arrays do not fit, if a row is zero or not finite, or if no class has two
            rows.

    Source: Wang & Isola 2020, arXiv:2005.10242; Σ_{i<j} |x_i - x_j|² = n Σ |x - x̄|².
    """
    check_features("features", features)
    check_labels("labels", features, labels)
    columns = compact(labels)
    counts = np.bincount(columns)
    pairs = (counts * (counts - 1) / 2).sum()
    if pairs == 0:
        raise ShapeError(
            "Alignment needs a class with two rows; each has one. Take more rows per class."
        )
    rows = unit_rows("features", features)
    rows -= (class_sums(rows, columns) / counts[:, None])[columns]
    squares = np.einsum("nd,nd->n", rows, rows)
    return float((counts[columns] * squares).sum() / pairs)


def mean_cosine(features: Features) -> float:
    """Return the mean cosine over pairs of rows: 0 if directions cancel, 1 if all rows are alike.

    Also called anisotropy; it may be slightly negative, down to -1 / (N - 1).

    Args:
        features: Shape (N, D), N >= 2, any float dtype.

    Raises:
        ShapeError: If there is one row, or if one is zero or not finite.

    Source: Ethayarajh 2019, arXiv:1909.00512.
    """
    rows = _pairs_of(features)
    total = rows.sum(axis=0)
    return float((total @ total - len(rows)) / (len(rows) * (len(rows) - 1)))


def mean_norm(features: Features) -> float:
    """Return the mean L2 norm of the rows.

    Raises:
        ShapeError: If `features` is no matrix, is empty or not finite.
    """
    check_features("features", features)
    return float(np.linalg.norm(to_float64("features", features), axis=1).mean())


def _pairs_of(features: Features) -> NDArray[np.float64]:
    check_features("features", features)
    if len(features) < 2:
        raise ShapeError("Pairs need two rows at least; got one. Take more rows.")
    return unit_rows("features", features)
