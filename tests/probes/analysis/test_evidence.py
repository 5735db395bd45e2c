from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from featcache.errors import ShapeError
from featcache.probes.analysis.decomposition import decompose
from featcache.probes.analysis.evidence import log_evidence, logme


def exact(features, target):
    """The density of y ~ N(0, I/β + XXᵀ/α), maximised over ln α and ln β from several starts."""
    n = len(target)

    def loss(logs):
        alpha, beta = np.exp(np.clip(logs, -40, 40))
        covariance = np.eye(n) / beta + features @ features.T / alpha
        return -multivariate_normal.logpdf(target, np.zeros(n), covariance) / n

    starts = [(a, b) for a in (-1.0, 4.0) for b in (0.0, 3.0)]
    options = {"xatol": 1e-10, "fatol": 1e-13, "maxiter": 4000}
    found = [minimize(loss, x, method="Nelder-Mead", options=options).fun for x in starts]
    return -min(found)


def fixed_point(features, target, steps):
    """The published iteration from α = β = 1 (You et al. 2021), run to convergence."""
    n, dim = features.shape
    alpha = beta = 1.0
    gram = features.T @ features
    values = np.linalg.eigvalsh(gram)
    for _ in range(steps):
        mean = np.linalg.solve(alpha / beta * np.eye(dim) + gram, features.T @ target)
        gamma = (values / (values + alpha / beta)).sum()
        rest = np.square(features @ mean - target).sum()
        alpha, beta = gamma / (mean @ mean), (n - gamma) / rest
    mean = np.linalg.solve(alpha / beta * np.eye(dim) + gram, features.T @ target)
    rest = np.square(features @ mean - target).sum()
    total = dim * np.log(alpha) + n * np.log(beta) - np.log(alpha + beta * values).sum()
    return (total - beta * rest - alpha * mean @ mean - n * np.log(2 * np.pi)) / (2 * n)


@pytest.mark.parametrize(("n", "dim"), [(40, 8), (24, 60), (20, 20)])
def test_logme_is_the_maximum_of_the_exact_evidence(make_clusters, n, dim):
    rows, labels = make_clusters(n, dim, 3, spread=0.6)
    raw = decompose(rows, centre=False)
    expected = [exact(rows.astype(float), (labels == c).astype(float)) for c in range(3)]
    assert logme(raw, labels) == pytest.approx(np.mean(expected), abs=1e-6)
    per_class = log_evidence(raw, labels[:, None] == np.arange(3))
    np.testing.assert_allclose(per_class, expected, atol=1e-6)


def test_logme_is_where_the_published_fixed_point_converges_to(make_clusters):
    rows, labels = make_clusters(300, 12, 4, spread=0.5)
    wide = rows.astype(float)
    expected = [fixed_point(wide, (labels == c).astype(float), 200) for c in range(4)]
    assert logme(decompose(rows, centre=False), labels) == pytest.approx(
        np.mean(expected), abs=1e-9
    )


def test_unrelated_targets_have_the_evidence_of_plain_noise():
    features = np.zeros((50, 3))
    features[:25, 0] = 1.0
    target = np.r_[np.zeros(25), np.random.default_rng(0).normal(size=25)]  # orthogonal to them
    variance = np.square(target).mean()
    found = log_evidence(decompose(features, centre=False), target[:, None])
    assert found[0] == pytest.approx(-0.5 * (np.log(2 * np.pi * variance) + 1), abs=1e-12)


def test_logme_hardly_depends_on_scale_and_does_depend_on_the_mean(make_clusters):
    rows, labels = make_clusters(80, 10, 3)
    one = logme(decompose(rows, centre=False), labels)
    assert logme(decompose(rows * np.float32(64), centre=False), labels) == pytest.approx(
        one, abs=1e-9
    )
    assert abs(logme(decompose(rows + 50, centre=False), labels) - one) > 1e-3


def test_logme_does_not_change_with_rotation_order_or_class_numbers(make_clusters):
    rows, labels = make_clusters(80, 10, 3)
    wide = rows.astype(float)
    one = logme(decompose(wide, centre=False), labels)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(10, 10)))[0]
    order = np.random.default_rng(1).permutation(80)
    assert logme(decompose(wide @ rotation, centre=False), labels) == pytest.approx(one, abs=1e-9)
    assert logme(decompose(wide[order], centre=False), labels[order]) == pytest.approx(
        one, abs=1e-9
    )
    assert logme(decompose(wide, centre=False), 5 - labels) == pytest.approx(one, abs=1e-12)


def test_logme_is_finite_on_degenerate_rows():
    rows = np.ones((6, 4), np.float16) * 60000
    labels = np.array([0, 0, 0, 0, 0, 1])
    assert np.isfinite(logme(decompose(rows, centre=False), labels))
    assert np.isfinite(logme(decompose(np.zeros((6, 4)), centre=False), labels))
    assert np.isfinite(logme(decompose(rows, centre=False), np.zeros(6, np.int64)))
    assert np.isfinite(logme(decompose(rows[:1], centre=False), np.zeros(1, np.int64)))


def test_targets_must_fit():
    raw = decompose(np.eye(4), centre=False)
    with pytest.raises(ShapeError, match=r"must be of shape \(4, classes\); got \(3, 1\)"):
        log_evidence(raw, np.ones((3, 1)))
    with pytest.raises(ShapeError, match="column 1 is not"):
        log_evidence(raw, np.array([[1.0, 0.0]] * 4))
    with pytest.raises(ShapeError, match="one label per row"):
        logme(raw, np.zeros(3, np.int64))
