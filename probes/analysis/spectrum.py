"""How many directions features use: RankMe, effective rank, α-ReQ, participation ratio."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ShapeError
from featcache.probes.analysis.decomposition import Decomposition

_RANK_ME_EPSILON = 1e-7
_FIRST, _LAST = 11, 100  # eigenvalues that α-ReQ fits, counted from 1


def rank_me(raw: Decomposition) -> float:
    """Return RankMe: exp of the entropy of the singular values of the *uncentred* features.

    From about 1 to min(N, D); 1e-7 is added to each share, as published. A large common mean
    gives a value near 1. Does not change with rotation and scale.

    Args:
        raw: Of features as stored, shape (N, D).

    Raises:
        ShapeError: If all features are zero.

    Source: Garrido et al. 2023, arXiv:2210.02885 (there on 25,600 rows; the
        value grows with N where N is not much larger than D).
    """
    _check_any(raw, "RankMe")
    values = np.zeros(min(len(raw.left), raw.right.shape[1]))
    values[: len(raw.values)] = raw.values
    shares = values / values.sum() + _RANK_ME_EPSILON
    return float(np.exp(-(shares * np.log(shares)).sum()))


def covariance_effective_rank(centred: Decomposition) -> float:
    """Return exp of the entropy of the *eigenvalues* of the covariance.

    Some packages call this RankMe; it is another quantity, as variances fall off faster than
    singular values. From 1 to the rank. Does not change with rotation, shift and scale.

    Args:
        centred: Of centred features, shape (N, D).

    Raises:
        ShapeError: If all rows are equal.

    Source: Roy & Vetterli 2007, on the covariance.
    """
    _check_any(centred, "The effective rank")
    variances = np.square(centred.values[: centred.rank] / centred.values[0])
    shares = variances / variances.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def participation_ratio(centred: Decomposition) -> float:
    """Return (Σ λ)² / Σ λ² of the eigenvalues of the covariance, from 1 to the rank.

    Args:
        centred: Of centred features, shape (N, D).

    Raises:
        ShapeError: If all rows are equal.
    """
    _check_any(centred, "The participation ratio")
    variances = np.square(centred.values / centred.values[0])
    return float(variances.sum() ** 2 / np.square(variances).sum())


def alpha_req(centred: Decomposition) -> tuple[float, tuple[int, int]]:
    """Return how fast the covariance's eigenvalues fall, λ_i ~ i^-α, and the fitted range of i.

    Least squares of ln λ_i on ln i, weighted by 1 / i, over i = 11..100. Where the rank is below
    100 the range ends there, which changes the value: compare backbones over one range. Around 1
    is thought best. Does not change with rotation, shift and scale.

    Args:
        centred: Of centred features, shape (N, D).

    Raises:
        ShapeError: If the rank is below 12, which leaves no two eigenvalues to fit.

    Source: Agrawal et al. 2022 (NeurIPS), α-ReQ; range and weights as its code has them.
    """
    last = min(_LAST, centred.rank)
    if last < _FIRST + 1:
        raise ShapeError(
            f"α-ReQ needs features of rank {_FIRST + 1} at least; got rank {centred.rank}. "
            "Take more rows, or a tap with more dimensions."
        )
    index = np.arange(_FIRST, last + 1)
    x, y, weights = np.log(index), 2 * np.log(centred.values[index - 1]), 1 / index
    x = x - np.average(x, weights=weights)
    slope = (weights * x * y).sum() / (weights * x * x).sum()
    return float(-slope), (_FIRST, last)


def dead_dimensions(features: NDArray[np.floating]) -> float:
    """Return the share of dimensions that have one value in all rows.

    A single row has only such dimensions.
    """
    return float((features.max(axis=0) == features.min(axis=0)).mean())


def _check_any(decomposition: Decomposition, what: str) -> None:
    if decomposition.rank == 0:
        raise ShapeError(
            f"{what} needs a direction with variance; features are all zero, or all rows equal. "
            "Look at the images, or at the tap."
        )
