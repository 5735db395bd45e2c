"""TransRate: how much shorter the code of features becomes if their class is known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featcache.errors import OptionError
from featcache.probes.analysis.decomposition import centred_rows, compact
from featcache.probes.arrays import Features, check_features, check_labels


def trans_rate(features: Features, labels: NDArray[np.int64], *, epsilon: float) -> float:
    """Return R(Z, ε) - Σ_c (n_c / n) R(Z_c, ε), with R = ½ log det(I + ZᵀZ / (n ε)), in nats.

    Features are centred once, over all rows, and divided by one number, so that the mean of their
    squared norms is 1: published implementations skip that, and their value then changes with the
    scale of the features. Does not change with rotation, shift and scale; it does with other
    linear maps. A single class, or equal rows, give 0.

    Args:
        features: Shape (N, D), any float dtype.
        labels: Shape (N,), class indices from 0.
        epsilon: Distortion, positive; relative to features of unit mean square norm.

    Raises:
        OptionError: If `epsilon` is not positive.
        ShapeError: If arrays do not fit, or if a row is not finite.

    Source: Huang et al. 2022, arXiv:2106.09362; classes weigh n_c / n, not
        1 / C as in the paper's listing.
    """
    check_features("features", features)
    check_labels("labels", features, labels)
    if not epsilon > 0:
        raise OptionError(f"`epsilon` must be positive; got {epsilon!r}. Take 1e-4.")
    rows = centred_rows("features", features)
    if scale := float(np.sqrt(np.einsum("nd,nd->", rows, rows) / len(rows))):
        rows /= scale
    columns = compact(labels)
    within = 0.0
    for column in range(int(columns.max()) + 1):
        chosen = rows[columns == column]
        within += len(chosen) / len(rows) * _rate(chosen, epsilon)
    return _rate(rows, epsilon) - within


def _rate(rows: NDArray[np.float64], epsilon: float) -> float:
    """Return the coding rate from the smaller of the two Gram matrices, whose log det is one."""
    gram = rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows
    gram /= len(rows) * epsilon
    gram[np.diag_indices_from(gram)] += 1
    return 0.5 * float(np.linalg.slogdet(gram)[1])
