"""Maximum-likelihood Weibull fits of the largest distances of each class, all classes at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_STEPS = 200
_ENOUGH = 1e-12
_STEEPEST = 1e6  # shape of a tail whose values are all equal: a step


@dataclass(frozen=True, slots=True, kw_only=True)
class Weibull:
    """One distribution per class, of x - shift + 1."""

    shape: NDArray[np.float64]
    """Shape (C,)."""
    scale: NDArray[np.float64]
    """Shape (C,)."""
    shift: NDArray[np.float64]
    """Shape (C,), the smallest value of the tail; infinite for a class without rows."""


def fit_weibull(tails: NDArray[np.float64]) -> Weibull:
    """Fit a two-parameter Weibull to each row's values, less the row's smallest, plus one.

    Args:
        tails: Shape (C, T), the T largest distances of each class; -inf where there are fewer.

    Source: The convention of Scheirer et al. 2011's libMR, as OpenMax uses it; checked against
        scipy.stats.weibull_min.
    """
    is_there = np.isfinite(tails)
    count = is_there.sum(axis=1)
    shift = np.where(is_there, tails, np.inf).min(axis=1, initial=np.inf)
    values = np.where(is_there, tails - np.where(count, shift, 0)[:, None] + 1, 1.0)
    logs = np.log(values)
    mean_log = (logs * is_there).sum(axis=1) / np.maximum(count, 1)
    shape = _solve_shape(logs, is_there, mean_log)
    top = logs.max(axis=1)
    powers = np.exp(shape[:, None] * (logs - top[:, None])) * is_there
    mean_power = powers.sum(axis=1) / np.maximum(count, 1)
    scale = np.exp(top + np.log(np.maximum(mean_power, np.finfo(float).tiny)) / shape)
    return Weibull(shape=shape, scale=scale, shift=shift)


def _solve_shape(
    logs: NDArray[np.float64], is_there: NDArray[np.bool_], mean_log: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Solve Σ x^k log x / Σ x^k - 1/k = mean log x for k by bisection: the left side rises."""
    low, high = np.full(len(logs), 1e-6), np.full(len(logs), _STEEPEST)
    for _ in range(_STEPS):
        shape = np.sqrt(low * high)
        powers = np.exp(shape[:, None] * (logs - logs.max(axis=1, keepdims=True))) * is_there
        total = np.maximum(powers.sum(axis=1), np.finfo(float).tiny)
        is_low = (powers * logs).sum(axis=1) / total - 1 / shape < mean_log
        low, high = np.where(is_low, shape, low), np.where(is_low, high, shape)
        if ((high - low) <= _ENOUGH * high).all():
            break
    return np.asarray(np.sqrt(low * high))
