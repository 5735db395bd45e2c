"""H-score: how much of the features' variance, whitened, lies between classes.

With the centred features X = U S Vᵀ and the sum u_c of U's rows of class c, the share of
direction j that lies between classes is h_j = Σ_c u_cj² / n_c, in [0, 1]. Then

- tr(Σ⁻¹ Σ_B) = Σ_j h_j over the directions with variance,
- tr(Σ_α⁻¹ (1-α) Σ_B) = Σ_j h_j (1-α) λ_j / ((1-α) λ_j + α μ) for a covariance drawn to μ I.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featcache.probes.analysis.decomposition import Decomposition, class_sums, compact
from featcache.probes.arrays import check_labels


def h_score(centred: Decomposition, labels: NDArray[np.int64]) -> float:
    """Return tr(Σ⁺ Σ_B), from 0 to the number of classes less one.

    Does not change with an invertible affine map of the features. Where N <= D + 1 every row is
    separable and it is C - 1 whatever the features are: use the shrunk one. A single class, or
    equal rows, give 0.

    Args:
        centred: Of centred features, shape (N, D).
        labels: Shape (N,), class indices from 0.

    Raises:
        ShapeError: If `labels` do not fit.

    Source: Bao et al. 2019, "An information-theoretic approach to transferability"; checked
        against Σ_c n_c d_cᵀ Σ⁺ d_c / (N - 1).
    """
    return float(_between(centred, labels)[: centred.rank].sum())


def shrunk_h_score(centred: Decomposition, labels: NDArray[np.int64]) -> tuple[float, float]:
    """Return the H-score with Ledoit and Wolf's covariance, and their amount α of shrinkage.

    Both covariances divide by N, so that α = 0 gives the plain H-score; an implementation that
    takes numpy's N - 1 for the class means alone is larger by N / (N - 1). Does not change with
    rotation and scale of the features. Equal rows give 0.

    Args:
        centred: Of centred features, shape (N, D).
        labels: Shape (N,), class indices from 0.

    Raises:
        ShapeError: If `labels` do not fit.

    Source: Ibrahim et al. 2022, arXiv:2110.06893; checked against sklearn's `LedoitWolf`.
    """
    between = _between(centred, labels)[: centred.rank]
    variances = np.square(centred.values[: centred.rank]) / len(centred.left)
    if centred.rank == 0:
        return 0.0, 1.0
    amount = ledoit_wolf(centred)
    kept = (1 - amount) * variances
    target = amount * variances.sum() / centred.right.shape[1]
    return float((between * kept / (kept + target)).sum()), amount


def ledoit_wolf(centred: Decomposition) -> float:
    """Return the shrinkage in [0, 1] that estimates a covariance best, from N centred rows.

    Equal rows give 1, and so does one dimension, where there is nothing to shrink.

    Source: Ledoit & Wolf 2004, "A well-conditioned estimator"; checked against sklearn.
    """
    n_rows, dim = len(centred.left), centred.right.shape[1]
    rows = centred.left * centred.values
    # Relative to the largest singular value, so that fourth powers neither over- nor underflow.
    scale = centred.values[0] or 1.0
    norms = np.einsum("nk,nk->n", rows / scale, rows / scale)
    variances = np.square(centred.values / scale) / n_rows
    spread = np.square(variances).sum() - variances.sum() ** 2 / dim  # |Σ - μ I|²
    noise = (np.square(norms).sum() / n_rows - np.square(variances).sum()) / n_rows
    return 1.0 if spread <= 0 else float(min(1.0, noise / spread))


def _between(centred: Decomposition, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of each direction's variance that lies between classes, shape (K,)."""
    check_labels("labels", centred.left, labels)
    columns = compact(labels)
    sums = class_sums(centred.left, columns)
    return np.asarray((np.square(sums) / np.bincount(columns)[:, None]).sum(axis=0))
