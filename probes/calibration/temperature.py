"""Temperature scaling by a convex solve: one number that divides all logits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ShapeError
from featcache.probes.arrays import row_blocks

_LARGEST = 2.0**10  # of 1 / T and T: beyond, the rows are separated, or say nothing
_ENOUGH = 1e-10  # relative step at which Newton's method has converged
_STEPS = 100


@dataclass(frozen=True, slots=True)
class Temperature:
    """A fitted temperature."""

    value: float
    """T > 0; above 1 the probabilities were too sure."""
    is_capped: bool
    """Whether the likelihood still rose at the largest or smallest temperature allowed."""


def fit_temperature(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> Temperature:
    """Return the T that minimises the mean of -log softmax(logits / T)[label].

    The loss is convex in 1 / T, so a Newton step that leaves the bracket is replaced by bisection,
    and the answer is the optimum. Where every row is right by a margin the optimum is T = 0, and
    where logits say less than nothing T is infinite: both end at a cap of 2^10, and say so.

    Args:
        logits: Shape (M, C), of rows that had no part in fitting the classifier.
        labels: Shape (M,), columns of `logits`.

    Raises:
        ShapeError: If there are no rows, if the shapes differ, or if a logit is not finite.

    Source: Guo et al. 2017, arXiv:1706.04599; checked against scikit-learn.
    """
    if logits.ndim != 2 or not len(logits) or labels.shape != (len(logits),):
        raise ShapeError(
            "`logits` must be a matrix with a row per label, at least one; got shapes "
            f"{logits.shape} and {labels.shape}. Hold out some labelled rows."
        )
    if not np.isfinite(logits).all():
        raise ShapeError("`logits` must be finite; got NaN or infinity. Look at the features.")
    if not 0 <= labels.min() <= labels.max() < logits.shape[1]:
        raise ShapeError(
            f"`labels` must be columns of `logits`, 0 to {logits.shape[1] - 1}; got "
            f"{labels.min()} to {labels.max()}. Leave rows without a label out."
        )
    low, high = 1 / _LARGEST, _LARGEST  # of the inverse temperature
    if _derivatives(logits, labels, high)[0] <= 0:
        return Temperature(1 / high, is_capped=True)
    if _derivatives(logits, labels, low)[0] >= 0:
        return Temperature(1 / low, is_capped=True)
    inverse = 1.0
    for _ in range(_STEPS):
        slope, bend = _derivatives(logits, labels, inverse)
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        step = inverse - slope / bend if bend > 0 else 0.0
        following = step if low < step < high else np.sqrt(low * high)
        if abs(following - inverse) <= _ENOUGH * inverse:
            break
        inverse = float(following)
    return Temperature(1 / inverse, is_capped=False)


def _derivatives(
    logits: NDArray[np.floating], labels: NDArray[np.int64], inverse: float
) -> tuple[float, float]:
    """Return the first and second derivative of the mean loss by the inverse temperature."""
    slope = bend = 0.0
    for rows in row_blocks(len(logits), 32 * logits.shape[1]):
        wide = logits[rows].astype(np.float64)
        wide -= wide.max(axis=1, keepdims=True)
        shares = np.exp(inverse * wide)
        shares /= shares.sum(axis=1, keepdims=True)
        mean = (shares * wide).sum(axis=1)
        slope += float((mean - wide[np.arange(len(wide)), labels[rows]]).sum())
        bend += float((shares * (wide - mean[:, None]) ** 2).sum())
    return slope / len(logits), bend / len(logits)
