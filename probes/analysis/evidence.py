"""LogME: the largest log evidence of class indicators under Bayesian linear regression.

For y ~ N(0, I/β + XXᵀ/α) with X = U S Vᵀ, z = Uᵀy and t = α/β the covariance is
(I + U (S²/t) Uᵀ)/β. For a given t the best 1/β is closed,

    1/β = (Σ z² / (1 + s²/t) + |y|² - |z|²) / N,

and what remains is -N/2 (ln(2π/β) + 1) - ½ Σ ln(1 + s²/t): one unknown, whatever N and D are.
Its stationary points are those of the published fixed point, which stops after 11 steps; here the
largest of a grid over t is refined, so that the maximum is global and exact. At t = ∞ features say
nothing, and that value counts too.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ShapeError
from featcache.probes.analysis.decomposition import Decomposition, class_sums, compact
from featcache.probes.arrays import Features, check_labels

_GRID = 200  # points over ln t; refined between the neighbours of the largest
_GOLDEN = (np.sqrt(5) - 1) / 2
_REFINEMENTS = 45  # 0.618^45 = 4e-10 of the bracket; a maximum is flat to its square
_MARGIN = 12.0  # e-folds beyond the smallest and largest s², where the evidence is flat


def logme(raw: Decomposition, labels: NDArray[np.int64]) -> float:
    """Return LogME: the mean over classes of the largest log evidence per row.

    Features are taken as stored, neither centred nor scaled, as published; their scale matters
    little to an exact maximum (α absorbs it), their mean does, as the model has no intercept.
    Absent classes do not count. A single class is fine.

    Args:
        raw: Of features as stored, shape (N, D).
        labels: Shape (N,), class indices from 0.

    Returns:
        Larger is better; in nats per row.

    Raises:
        ShapeError: If `labels` do not fit.

    Source: You et al. 2021, arXiv:2102.11005 and 2110.10545; checked against the density of
        scipy's multivariate normal, maximised by scipy, for N > D and N < D.
    """
    check_labels("labels", raw.left, labels)
    columns = compact(labels)
    counts = np.bincount(columns).astype(np.float64)
    return float(_largest(raw, class_sums(raw.left, columns).T, counts).mean())


def log_evidence(raw: Decomposition, targets: Features) -> NDArray[np.float64]:
    """Return the largest log evidence per row of each target column, shape (C,).

    For multi-label classes or regression; LogME is the mean. The evidence of a target that fewer
    than N dimensions reproduce exactly is unbounded; it is cut where the rest is rounding.

    Args:
        raw: Of features as stored, shape (N, D).
        targets: Shape (N, C).

    Raises:
        ShapeError: If `targets` do not fit, or if a column is zero.
    """
    if targets.ndim != 2 or len(targets) != len(raw.left):
        raise ShapeError(
            f"`targets` must be of shape ({len(raw.left)}, classes); got {targets.shape}. "
            "Pass targets and features of the same rows."
        )
    wide = targets.astype(np.float64)
    squares = np.einsum("nc,nc->c", wide, wide)
    if not (np.isfinite(squares) & (squares > 0)).all():
        raise ShapeError(
            f"`targets` must be finite, with a value other than 0 in each column; column "
            f"{int((np.isfinite(squares) & (squares > 0)).argmin())} is not. Drop it."
        )
    return _largest(raw, raw.left.T @ wide, squares)


def _largest(
    raw: Decomposition, projected: NDArray[np.float64], squares: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Maximise over t; `projected` is z of shape (K, C), `squares` |y|² of shape (C,)."""
    n_rows, rank = len(raw.left), raw.rank
    no_features = _value(n_rows, squares / n_rows, np.zeros_like(squares))
    if rank == 0:
        return no_features
    power, energy = np.square(raw.values[:rank]), np.square(projected[:rank])
    # Rows that the features span completely (N <= D) leave no rest but that of rounding.
    rest = np.zeros_like(squares) if rank == n_rows else squares - energy.sum(axis=0)
    rest = np.maximum(rest, squares * np.finfo(np.float64).eps)

    def at(log_t: NDArray[np.float64]) -> NDArray[np.float64]:
        ratio = power[:, None] / np.exp(log_t)  # (K, C) or (K, 1)
        variance = ((energy / (1 + ratio)).sum(axis=0) + rest) / n_rows
        return _value(n_rows, variance, np.asarray(np.log1p(ratio).sum(axis=0)))

    grid = np.linspace(np.log(power[-1]) - _MARGIN, np.log(power[0]) + _MARGIN, _GRID)
    values = np.stack([at(np.array([point])) for point in grid])  # (T, C)
    best = values.argmax(axis=0)
    low, high = grid[np.maximum(best - 1, 0)], grid[np.minimum(best + 1, _GRID - 1)]
    best_at = np.maximum(_golden(at, low, high), values.max(axis=0))
    return np.asarray(np.maximum(best_at, no_features))


def _golden(
    at: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the largest value between `low` and `high`, one bracket per class, by golden section.

    Both inner points are evaluated anew at each step: twice the work, and no bookkeeping of which
    class moved which end.
    """
    best = at(low)
    for _ in range(_REFINEMENTS):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        at_left, at_right = at(left), at(right)
        best = np.maximum(best, np.maximum(at_left, at_right))
        goes_left = at_left >= at_right
        low, high = np.where(goes_left, low, left), np.where(goes_left, right, high)
    return best


def _value(
    n_rows: int, variance: NDArray[np.float64], log_det: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the log evidence per row at the best β."""
    return np.asarray(-0.5 * (np.log(2 * np.pi * variance) + 1 + log_det / n_rows))
