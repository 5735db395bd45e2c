from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from scipy.stats import bootstrap as scipy_bootstrap

from featcache.errors import ShapeError
from featcache.probes.ood.metrics import detection_metrics
from featcache.statistics import bootstrap_mean_interval, delong_interval, wilson_interval


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
