from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, sem, t
from scipy.stats import bootstrap as scipy_bootstrap

from featcache.errors import ShapeError
from featcache.probes.ood.metrics import detection_metrics
from featcache.statistics import (
    balanced_interval,
    bootstrap_interval,
    bootstrap_mean_interval,
    delong_interval,
    hierarchical_interval,
    mean_interval,
    wilson_interval,
)


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (10, 10), (7, 20), (990, 1000), (1, 1)])
def test_wilson_is_that_of_scipy(successes, n):
    expected = binomtest(successes, n).proportion_ci(method="wilson")
    assert wilson_interval(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_bootstrap_is_near_that_of_scipy_and_repeats_with_the_seed():
    values = np.random.default_rng(0).gamma(2, size=300)
    expected = scipy_bootstrap(
        (values,), np.mean, method="percentile", rng=np.random.default_rng(1), n_resamples=4000
    ).confidence_interval
    got = bootstrap_mean_interval(values, np.random.default_rng(2), resamples=4000)
    assert got == pytest.approx((expected.low, expected.high), abs=0.02)
    assert got == bootstrap_mean_interval(values, np.random.default_rng(2), resamples=4000)


def test_bootstrap_of_one_value_has_no_width():
    assert bootstrap_mean_interval(np.array([0.3]), np.random.default_rng(0)) == (0.3, 0.3)


def brute_delong(positives, negatives):
    wins = (positives[:, None] > negatives) + 0.5 * (positives[:, None] == negatives)
    variance = wins.mean(axis=1).var(ddof=1) / len(positives)
    variance += wins.mean(axis=0).var(ddof=1) / len(negatives)
    half = 1.959963984540054 * np.sqrt(variance)
    return wins.mean() - half, wins.mean() + half


@pytest.mark.parametrize("steps", [1e9, 4])
def test_delong_is_that_of_all_pairs(steps):
    rng = np.random.default_rng(0)
    positives = np.round(rng.normal(0.8, 1, size=60) * steps) / steps
    negatives = np.round(rng.normal(0, 1, size=40) * steps) / steps
    got = delong_interval(positives, [negatives])
    assert got == pytest.approx(brute_delong(positives, negatives))
    assert np.mean(got) == pytest.approx(detection_metrics(positives, negatives)["auroc"])


def test_delong_covers_the_mean_over_sets_as_often_as_it_says():
    rng = np.random.default_rng(0)
    truth = 0.7602499389065233  # Φ(1 / √2), the AUROC of two unit normals one apart
    covered = []
    for _ in range(400):
        sets = [rng.normal(size=50), rng.normal(size=70)]
        low, high = delong_interval(rng.normal(1, 1, size=60), sets)
        covered.append(low <= truth <= high)
    assert 0.91 <= np.mean(covered) <= 0.98


def test_delong_of_a_single_sample_knows_nothing():
    assert delong_interval(np.ones(1), [np.zeros(5)]) == (0.0, 1.0)


def test_wrong_counts_are_refused():
    with pytest.raises(ShapeError, match="got 5 of 4"):
        wilson_interval(5, 4)
    with pytest.raises(ShapeError, match="at least one row"):
        bootstrap_mean_interval(np.zeros(0), np.random.default_rng(0))
    with pytest.raises(ShapeError, match="at least one score"):
        delong_interval(np.ones(3), [np.zeros(0)])
    with pytest.raises(ShapeError, match="at least one score"):
        delong_interval(np.ones(3), [])


def test_the_interval_of_mean_per_class_is_that_of_a_stratified_bootstrap():
    rng = np.random.default_rng(0)
    labels, right = np.repeat([0, 1, 4], [50, 20, 200]), rng.random(270) < 0.7
    rates = np.array([right[labels == c].mean() for c in (0, 1, 4)])
    spread = np.sqrt((rates * (1 - rates) / [50, 20, 200]).sum()) / 3
    low, high = balanced_interval(labels, right, np.random.default_rng(0), resamples=4000)
    assert low == pytest.approx(rates.mean() - 1.96 * spread, abs=0.006)
    assert high == pytest.approx(rates.mean() + 1.96 * spread, abs=0.006)
    with pytest.raises(ShapeError, match="one length, at least 1"):
        balanced_interval(labels[:0], right[:0], rng)


def test_the_bootstrap_of_any_metric_is_that_of_the_mean():
    values = np.random.default_rng(0).gamma(2, size=100)
    got = bootstrap_interval(
        lambda rows: float(values[rows].mean()), 100, np.random.default_rng(1), resamples=1000
    )
    assert got == pytest.approx(
        bootstrap_mean_interval(values, np.random.default_rng(1)), rel=1e-12
    )


def test_the_interval_over_draws_is_students():
    values = np.array([0.6, 0.7, 0.65, 0.9])
    expected = t.interval(0.95, 3, loc=values.mean(), scale=sem(values))
    assert mean_interval(values) == pytest.approx(expected)
    with pytest.raises(ShapeError, match="at least two rows"):
        mean_interval(values[:1])


def test_the_hierarchical_interval_sees_draws_and_samples():
    rng = np.random.default_rng(0)
    alike = np.tile(rng.random(400) < 0.7, (5, 1))
    by_sample = hierarchical_interval(alike, np.random.default_rng(0))
    expected = bootstrap_mean_interval(alike[0].astype(float), np.random.default_rng(0))
    assert by_sample == pytest.approx(expected, abs=0.01)
    apart = np.repeat([[0.2], [0.4], [0.6], [0.8]], 400, axis=1)
    low, high = hierarchical_interval(apart, np.random.default_rng(0))
    assert low < 0.35 < 0.65 < high
    with pytest.raises(ShapeError, match="at least one of each"):
        hierarchical_interval(alike[:0], rng)
