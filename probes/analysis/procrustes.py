"""Orthogonal Procrustes: how well one rotation and one scale map a set onto another."""

from __future__ import annotations

import numpy as np

from featcache.errors import ShapeError
from featcache.probes.analysis.decomposition import centred_rows
from featcache.probes.arrays import Features, check_features


def procrustes_similarity(first: Features, second: Features) -> float:
    """Return the nuclear norm of XᵀY, of sets centred and of unit Frobenius norm.

    From 0 to 1; 1 where rotation, shift and scale make the sets equal. The best rotation leaves a
    squared distance of 2 - 2 s, and of 1 - s² if a scale is fitted too. Not corrected for chance:
    it rises with D / N like biased CKA.

    Args:
        first: Shape (N, D), any float dtype.
        second: Shape (N, E), the same rows; the smaller set counts as padded with zeros.

    Raises:
        ShapeError: If rows differ in number or are not finite, or if all of a set are equal.

    Source: Schönemann 1966; Ding et al. 2021, arXiv:2108.01661; checked against scipy's
        `procrustes`.
    """
    check_features("first", first)
    check_features("second", second)
    if len(first) != len(second):
        raise ShapeError(
            f"Both sets must have the same rows; got {len(first)} and {len(second)}. "
            "Match them by id."
        )
    scaled = []
    for name, features in (("first", first), ("second", second)):
        rows = centred_rows(name, features)
        norm = np.linalg.norm(rows)
        if norm == 0:
            raise ShapeError(
                f"`{name}` must vary from row to row to be rotated; all rows are equal. "
                "Take more rows, or another tap."
            )
        scaled.append(rows / norm)
    one, other = scaled
    # With few rows the Gram side is smaller: XᵀY has the singular values of R_x R_yᵀ, X = Q R.
    if len(one) < min(one.shape[1], other.shape[1]):
        factors = [np.asarray(np.linalg.qr(rows.T, mode="r")) for rows in scaled]  # (N, N) each
        return float(np.linalg.svd(factors[0] @ factors[1].T, compute_uv=False).sum())
    return float(np.linalg.svd(one.T @ other, compute_uv=False).sum())
