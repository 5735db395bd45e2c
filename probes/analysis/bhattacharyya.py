"""GBC: how little Gaussians fitted to the classes overlap."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from featcache.probes.analysis.decomposition import (
    centred_rows,
    check_classes,
    class_sums,
    compact,
)
from featcache.probes.arrays import Features, check_features, check_labels

Covariance = Literal["diagonal", "spherical"]

_FLOOR = 1e-4  # of a variance, as published; it makes the score depend on the features' scale


def gaussian_overlap(
    features: Features, labels: NDArray[np.int64], *, covariance: Covariance
) -> float:
    """Return GBC = -Σ exp(-D_B) over ordered pairs of classes, both orders counted.

    D_B = ⅛ Σ (μ_i - μ_j)² / v + ½ Σ ln(v / √(v_i v_j)), with v the mean of the two variances.
    Variances divide by n_c and are at least 1e-4, so a class of one row is a narrow Gaussian.
    From -C (C - 1), all classes alike, to 0. Features are taken as given: diagonal variances
    change with rotation, both kinds with scale where the floor binds, none with a shift.

    Args:
        features: Shape (N, D), any float dtype; principal components in the paper.
        labels: Shape (N,), class indices from 0.
        covariance: `diagonal`, or `spherical`: one variance per class, the mean over dimensions.

    Raises:
        ShapeError: If arrays do not fit, if a row is not finite, or if there is one class only.

    Source: Pándy et al. 2022, arXiv:2111.12780, and google-research
        `stable_transfer/transferability/gbc.py`.
    """
    check_features("features", features)
    check_labels("labels", features, labels)
    check_classes(labels, "GBC")
    columns = compact(labels)
    counts = np.bincount(columns)[:, None]
    rows = centred_rows("features", features)
    means = class_sums(rows, columns) / counts  # (C, D)
    rows -= means[columns]
    variances = class_sums(np.square(rows), columns) / counts
    if covariance == "spherical":
        variances = np.broadcast_to(variances.mean(axis=1, keepdims=True), variances.shape)
    variances = np.maximum(variances, _FLOOR)
    logs = np.log(variances).sum(axis=1)  # (C,)
    overlap = 0.0
    for one in range(len(means) - 1):
        mixed = (variances[one] + variances[one + 1 :]) / 2
        apart = (np.square(means[one] - means[one + 1 :]) / mixed).sum(axis=1) / 8
        shape = (np.log(mixed).sum(axis=1) - (logs[one] + logs[one + 1 :]) / 2) / 2
        overlap += 2 * float(np.exp(-apart - shape).sum())
    return -overlap
