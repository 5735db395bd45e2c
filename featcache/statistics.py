"""Confidence intervals of metrics over test samples; they say nothing about training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ShapeError

Interval = tuple[float, float]

_CONFIDENCE = 0.95


def wilson_interval(successes: int, n: int, *, confidence: float = _CONFIDENCE) -> Interval:
    """Return Wilson's score interval of a proportion, such as top-1 accuracy.

    Unlike p ± z √(p(1-p)/n) it stays within [0, 1] and has a width at p = 0 and p = 1.

    Args:
        successes: Rows predicted right, 0 <= successes <= n.
        n: Rows, at least 1.
        confidence: Coverage, in (0, 1).

    Raises:
        ShapeError: If the counts are out of range.

    Source: Wilson 1927, JASA 22; Brown, Cai & DasGupta 2001 recommend it.
    """
    if not 0 <= successes <= n or n < 1:
        raise ShapeError(
            f"`successes` must be between 0 and `n` >= 1; got {successes} of {n}. "
            "Pass the counts of the labelled rows."
        )
    z = _normal_quantile(confidence)
    share, spread = successes / n, z * z / n
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * np.sqrt(share * (1 - share) / n + spread / (4 * n))
    low, high = float(centre - half), float(centre + half)
    return (0.0 if successes == 0 else low, 1.0 if successes == n else high)  # exact, not 1e-17


def bootstrap_mean_interval(
    values: NDArray[np.floating],
    rng: np.random.Generator,
    *,
    resamples: int = 1000,  # Efron & Tibshirani 1993, chapter 13: enough for 95 % percentiles
    confidence: float = _CONFIDENCE,
) -> Interval:
    """Return the percentile bootstrap interval of a mean over samples, such as mAP over queries.

    A single value gives an interval of zero width: the bootstrap cannot see what it never drew.

    Args:
        values: Shape (n,), one value per sample, n >= 1.
        rng: Draws the resamples.
        resamples: Number of resampled means.
        confidence: Coverage, in (0, 1).

    Raises:
        ShapeError: If there are no values.
    """
    if values.ndim != 1 or not len(values):
        raise ShapeError(
            f"`values` must be one column with at least one row; got shape {values.shape}. "
            "Measure some samples first."
        )
    wide = values.astype(np.float64)
    means = [wide[rng.integers(len(wide), size=len(wide))].mean() for _ in range(resamples)]
    tail = 50 * (1 - confidence)
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)


def bootstrap_interval(
    metric: Callable[[NDArray[np.intp]], float],
    n: int,
    rng: np.random.Generator,
    *,
    resamples: int = 200,  # Efron & Tibshirani 1993: enough to see a width, for slow metrics
    confidence: float = _CONFIDENCE,
) -> Interval:
    """Return the percentile bootstrap interval of any metric of rows.

    Args:
        metric: From row indices, shape (n,), with repeats, to the metric.
        n: Rows, at least 1.
        rng: Draws the resamples.
        resamples: Number of resampled metrics; NaN ones are left out.
        confidence: Coverage, in (0, 1).
    """
    found = [metric(rng.integers(n, size=n)) for _ in range(resamples)]
    tail = 50 * (1 - confidence)
    low, high = np.nanpercentile(found, [tail, 100 - tail])
    return float(low), float(high)


def delong_interval(
    positives: NDArray[np.floating],
    negatives: Sequence[NDArray[np.floating]],
    *,
    confidence: float = _CONFIDENCE,
) -> Interval:
    """Return DeLong's interval of an AUROC, or of the mean AUROC against several negative sets.

    With several sets the positives are shared, so their placements are averaged over the sets
    before their variance is taken; the sets are independent of each other. The interval is
    cut to [0, 1]. It is (0, 1) where a side has a single sample, as nothing is known about
    its variance, and has no width where the sides are separated perfectly.

    Args:
        positives: Shape (m,), scores of the side that should score higher.
        negatives: One array of scores, shape (n_s,), per set.
        confidence: Coverage, in (0, 1).

    Raises:
        ShapeError: If a side is empty.

    Source: DeLong, DeLong & Clarke-Pearson 1988, Biometrics 44.
    """
    sizes = [len(positives), *(len(scores) for scores in negatives)]
    if len(sizes) < 2 or 0 in sizes:
        raise ShapeError(
            f"Both sides must have at least one score; got {sizes[0]} positives and negative "
            f"sets of {sizes[1:]}. Extract some rows of each."
        )
    if 1 in sizes:
        return 0.0, 1.0
    won = [_placements(positives, scores) for scores in negatives]  # each (m,)
    lost = [1 - _placements(scores, positives) for scores in negatives]  # each (n_s,)
    placed = np.mean(won, axis=0)
    variance = placed.var(ddof=1) / len(positives)
    variance += sum(part.var(ddof=1) / len(part) for part in lost) / len(negatives) ** 2
    half = _normal_quantile(confidence) * np.sqrt(variance)
    return float(max(0, placed.mean() - half)), float(min(1, placed.mean() + half))


def _placements(scores: NDArray[np.floating], others: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return for each score the share of `others` below it, ties counting half."""
    ranked = np.sort(others)
    below = np.searchsorted(ranked, scores, side="left")
    return (below + np.searchsorted(ranked, scores, side="right")) / (2 * len(others))


def _normal_quantile(confidence: float) -> float:
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def balanced_interval(
    labels: NDArray[np.int64],
    is_right: NDArray[np.bool_],
    rng: np.random.Generator,
    *,
    resamples: int = 1000,  # as in `bootstrap_mean_interval`
    confidence: float = _CONFIDENCE,
) -> Interval:
    """Return the bootstrap interval of the mean over classes of their accuracy.

    Rows are drawn anew within each class, so a class keeps its size; that makes its number of
    right rows binomial.

    Args:
        labels: Shape (n,), n >= 1.
        is_right: Shape (n,).
        rng: Draws the resamples.
        resamples: Number of resampled means.
        confidence: Coverage, in (0, 1).

    Raises:
        ShapeError: If there are no rows, or if the shapes differ.
    """
    if labels.shape != is_right.shape or labels.ndim != 1 or not len(labels):
        raise ShapeError(
            "`labels` and `is_right` must be two columns of one length, at least 1; got shapes "
            f"{labels.shape} and {is_right.shape}. Pass the same labelled rows."
        )
    _, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    rates = np.bincount(codes, is_right) / counts
    means = (rng.binomial(counts, rates, size=(resamples, len(counts))) / counts).mean(axis=1)
    tail = 50 * (1 - confidence)
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)


def mean_interval(values: NDArray[np.floating], *, confidence: float = _CONFIDENCE) -> Interval:
    """Return Student's interval of the mean of a few independent values, such as draws of shots.

    Args:
        values: Shape (n,), n >= 2.
        confidence: Coverage, in (0, 1).

    Raises:
        ShapeError: If there are fewer than two values: their spread is then unknown.

    Source: Checked against scipy.stats.t.
    """
    if values.ndim != 1 or len(values) < 2:
        raise ShapeError(
            f"`values` must be one column with at least two rows; got shape {values.shape}. "
            "Draw more often."
        )
    from scipy.stats import t

    half = float(t.ppf(0.5 + confidence / 2, len(values) - 1))
    half *= float(values.std(ddof=1)) / len(values) ** 0.5
    centre = float(values.mean())
    return centre - half, centre + half


def hierarchical_interval(
    values: NDArray[np.generic],
    rng: np.random.Generator,
    *,
    resamples: int = 1000,  # as in `bootstrap_mean_interval`
    confidence: float = _CONFIDENCE,
) -> Interval:
    """Return the bootstrap interval of a mean over draws and samples, both drawn anew.

    With a single draw it says nothing of the spread between draws.

    Args:
        values: Shape (draws, n), one value per draw and sample, each at least 1.
        rng: Draws the resamples.
        resamples: Number of resampled means.
        confidence: Coverage, in (0, 1).

    Raises:
        ShapeError: If there are no values.
    """
    if values.ndim != 2 or 0 in values.shape:
        raise ShapeError(
            f"`values` must be a matrix (draws, samples) with at least one of each; got shape "
            f"{values.shape}. Measure some samples first."
        )
    wide = values.astype(np.float64)
    n_draws, n = wide.shape
    means = []
    for _ in range(resamples):
        counts = np.bincount(rng.integers(n, size=n), minlength=n)
        means.append((wide @ counts)[rng.integers(n_draws, size=n_draws)].mean() / n)
    tail = 50 * (1 - confidence)
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)
