from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.stats import multivariate_normal, ortho_group
from sklearn.covariance import OAS, LedoitWolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from featcache.errors import OptionError, ShapeError
from featcache.probes.closed_form import moments
from featcache.probes.closed_form.discriminant import fit_lda, lda_of_moments, shrinkage_amount
from featcache.probes.closed_form.moments import class_moments, streamed_moments
from featcache.probes.closed_form.options import LdaOptions
from tests.probes.conftest import shares_of


def residuals(x, y):
    wide = x.astype(np.float64)
    means = np.array([wide[y == c].mean(axis=0) for c in np.unique(y)])
    return wide - means[np.searchsorted(np.unique(y), y)], means


def relative_logits(logits):
    return logits - logits[:, :1]


def uneven(make_clusters, n=120, dim=8):
    """Four classes, one of them a third as large."""
    x, y = make_clusters(n, dim, 4, spread=0.4)
    keep = (y != 1) | (np.arange(n) % 3 == 0)
    return x[keep], y[keep]


@pytest.mark.parametrize(("n", "dim"), [(120, 8), (40, 60)])
@pytest.mark.parametrize("amount", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("solver", ["lsqr", "eigen"])
def test_a_fixed_shrinkage_is_that_of_scikit_learn(make_clusters, n, dim, amount, solver):
    x, y = uneven(make_clusters, n, dim)
    queries, _ = make_clusters(50, dim, 4, spread=0.4, seed=1)
    oracle = LinearDiscriminantAnalysis(solver=solver, shrinkage=amount).fit(x.astype(float), y)
    head = fit_lda(x, y, shrinkage=amount)
    expected = oracle.decision_function(queries.astype(float))
    np.testing.assert_allclose(
        relative_logits(head.logits(queries)), relative_logits(expected), rtol=1e-7, atol=1e-7
    )
    shares = shares_of(head, queries, 4)
    np.testing.assert_allclose(shares, oracle.predict_proba(queries.astype(float)), atol=1e-6)


def test_no_shrinkage_is_that_of_scikit_learn_divided_by_n(make_clusters):
    x, y = uneven(make_clusters)
    wide = x.astype(np.float64)
    head = fit_lda(x, y, shrinkage="none")
    oracle = LinearDiscriminantAnalysis(solver="lsqr").fit(wide, y)
    got, expected = head.logits(x), oracle.decision_function(wide)
    np.testing.assert_allclose(relative_logits(got), relative_logits(expected), rtol=1e-8)


def test_posteriors_are_those_of_gaussians_with_the_pooled_covariance(make_clusters):
    x, y = uneven(make_clusters)
    rest, means = residuals(x, y)
    for priors in ("empirical", "uniform"):
        shares = np.bincount(y) / len(y) if priors == "empirical" else np.full(4, 0.25)
        logs = [multivariate_normal(mean, rest.T @ rest / len(y)).logpdf(x) for mean in means]
        weighted = np.exp(logs).T * shares
        head = fit_lda(x, y, shrinkage="none", priors=priors)
        expected = weighted / weighted.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(shares_of(head, x, 4), expected, atol=1e-6)


def test_uniform_priors_are_those_of_scikit_learn_for_classes_of_one_size(make_clusters):
    x, y = make_clusters(80, 6, 4, spread=0.4)
    oracle = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.2, priors=[0.25] * 4)
    expected = oracle.fit(x.astype(float), y).predict_proba(x.astype(float))
    head = fit_lda(x, y, shrinkage=0.2, priors="uniform")
    np.testing.assert_allclose(shares_of(head, x, 4), expected, atol=1e-6)


@pytest.mark.parametrize(("n", "dim"), [(120, 8), (40, 60), (30, 1), (500, 3)])
@pytest.mark.parametrize(("name", "kind"), [("ledoit_wolf", LedoitWolf), ("oas", OAS)])
def test_estimated_shrinkage_is_that_of_scikit_learn(make_clusters, n, dim, name, kind):
    x, y = uneven(make_clusters, n, dim)
    rest, means = residuals(x, y)
    oracle = kind(assume_centered=True).fit(rest)
    head = fit_lda(x, y, shrinkage=name)
    assert head.details["shrinkage_amount"] == pytest.approx(oracle.shrinkage_, rel=1e-10)
    precision = np.linalg.inv(oracle.covariance_)
    prior = np.log(np.bincount(y) / len(y))
    expected = x.astype(float) @ precision @ means.T + prior
    expected -= 0.5 * np.einsum("cd,de,ce->c", means, precision, means)
    np.testing.assert_allclose(
        relative_logits(head.logits(x)), relative_logits(expected), rtol=1e-7, atol=1e-7
    )


def test_shrinkage_of_a_sphere_and_of_two_points_stays_within_bounds():
    rng = np.random.default_rng(0)
    for n, dim in ((40, 30), (4, 30), (3000, 2)):
        rows = rng.normal(size=(n, dim))
        rows = np.concatenate([rows, -rows])
        got = class_moments(rows, np.zeros(2 * n, dtype=np.int64))
        for name, kind in (("ledoit_wolf", LedoitWolf), ("oas", OAS)):
            amount = shrinkage_amount(got, name, dim)
            assert 0 <= amount <= 1
            expected = kind(assume_centered=True).fit(rows).shrinkage_
            assert amount == pytest.approx(expected, rel=1e-9)


def test_fewer_rows_than_dimensions_is_solved_in_their_space(make_clusters):
    x, y = make_clusters(30, 70, 3, spread=0.4)
    queries, _ = make_clusters(20, 70, 3, seed=1)
    for shrinkage in ("ledoit_wolf", "oas", 0.3):
        small = fit_lda(x, y, shrinkage=shrinkage)
        whole = lda_of_moments(class_moments(x, y), shrinkage=shrinkage)
        assert small.details["shrinkage_amount"] == pytest.approx(whole.details["shrinkage_amount"])
        np.testing.assert_allclose(small.logits(queries), whole.logits(queries), rtol=1e-9)


@pytest.mark.parametrize("n", [30, 200])
def test_a_singular_covariance_gives_finite_weights_that_separate(make_clusters, n):
    x, y = make_clusters(n, 40, 3, spread=2.0)
    padded = np.concatenate([x, x[:, :5], np.zeros((n, 3)), np.full((n, 2), 0.3)], axis=1)
    head = fit_lda(padded, y, shrinkage="none")
    assert head.details["raised_eigenvalues"] > 0
    assert np.isfinite(head.weights).all()
    np.testing.assert_array_equal(head.logits(padded).argmax(axis=1), y)
    if n > 40:  # only the added dimensions are singular, and say nothing new
        plain = fit_lda(x, y, shrinkage="none")
        assert plain.details["raised_eigenvalues"] == 0
        np.testing.assert_allclose(
            relative_logits(head.logits(padded)), relative_logits(plain.logits(x)), rtol=1e-6
        )


@pytest.mark.parametrize("dim", [3, 30])
def test_rows_equal_to_their_class_mean_give_the_nearest_mean(make_clusters, dim):
    x, _ = make_clusters(5, dim, 5)
    queries, _ = make_clusters(40, dim, 5, seed=1)
    distances = ((queries[:, None].astype(float) - x) ** 2).sum(axis=2)
    for repeats in (1, 3):
        rows, y = np.repeat(x, repeats, axis=0), np.repeat(np.arange(5), repeats)
        for shrinkage in ("none", "ledoit_wolf", "oas", 0.5):
            head = fit_lda(rows, y, shrinkage=shrinkage)
            np.testing.assert_array_equal(
                head.logits(queries).argmax(axis=1), distances.argmin(axis=1)
            )


def test_rows_that_are_all_equal_give_the_priors():
    for dim in (2, 9):
        head = fit_lda(np.full((4, dim), 0.1), np.array([0, 0, 0, 1]))
        np.testing.assert_allclose(shares_of(head, np.ones((1, dim)), 2), [[0.75, 0.25]])


def test_streamed_blocks_and_float32_products_give_the_same_classifier(make_clusters, monkeypatch):
    x, y = make_clusters(2000, 20, 4, spread=0.4)
    exact = fit_lda(x, y)
    monkeypatch.setattr(moments, "_FLOAT64_VALUES", 0)
    blocks = [(x[i : i + 300], y[i : i + 300]) for i in range(0, 2000, 300)]
    head = lda_of_moments(streamed_moments(lambda: blocks))
    np.testing.assert_allclose(head.logits(x), exact.logits(x), rtol=1e-4, atol=1e-4)
    assert head.details["shrinkage_amount"] == pytest.approx(
        exact.details["shrinkage_amount"], rel=1e-5
    )


@pytest.mark.parametrize("n", [30, 120])
@pytest.mark.parametrize("shrinkage", ["none", "ledoit_wolf", "oas", 0.3])
def test_rotation_order_and_names_change_nothing(make_clusters, n, shrinkage):
    x, y = make_clusters(n, 20, 3, spread=0.5)
    if n == 30 and shrinkage == "none":
        shrinkage = 0.01
    plain = fit_lda(x, y, shrinkage=shrinkage).logits(x)
    turn = ortho_group.rvs(20, random_state=0)
    turned = x.astype(float) @ turn
    got = fit_lda(turned, y, shrinkage=shrinkage).logits(turned)
    np.testing.assert_allclose(got, plain, rtol=1e-7, atol=1e-7)
    order, names = np.random.default_rng(0).permutation(n), np.array([2, 0, 1])
    got = fit_lda(x[order], names[y][order], shrinkage=shrinkage).logits(x)
    np.testing.assert_allclose(got[:, names], plain, rtol=1e-7, atol=1e-7)


def test_an_offset_changes_nothing(make_clusters):
    x, y = make_clusters(100, 6, 3, spread=0.4)
    moved = x.astype(np.float64) + 1e5
    np.testing.assert_allclose(fit_lda(moved, y).logits(moved), fit_lda(x, y).logits(x), atol=1e-4)


def test_classes_missing_or_alone_are_fine(make_clusters):
    x, y = make_clusters(60, 6, 3, spread=0.5)
    head = fit_lda(x, np.array([1, 4, 9])[y])
    np.testing.assert_array_equal(head.classes, [1, 4, 9])
    np.testing.assert_allclose(head.weights, fit_lda(x, y).weights)
    for n in (1, 3, 60):
        alone = fit_lda(x[:n], np.full(n, 2), shrinkage="none")
        np.testing.assert_array_equal(shares_of(alone, x, 3), np.tile([0, 0, 1], (60, 1)))


def test_float16_rows_with_overflowing_squares_are_fitted(make_clusters):
    x, y = make_clusters(60, 6, 3, spread=0.5)
    huge = (x * 5000).astype(np.float16)
    got, expected = fit_lda(huge, y).logits(huge), fit_lda(x, y).logits(x)
    assert np.abs(got - expected).max() < 0.1


def test_wrong_arguments_are_refused(make_clusters):
    x, y = make_clusters(10, 4, 2)
    with pytest.raises(OptionError, match="a number from 0 to 1; got 1.5"):
        fit_lda(x, y, shrinkage=1.5)
    with pytest.raises(ShapeError, match="one label per row"):
        fit_lda(x, y[:-1])
    with pytest.raises(ShapeError, match="at least one of each"):
        fit_lda(x[:0], y[:0])
    x[3, 1] = np.nan
    with pytest.raises(ShapeError, match="the first is row 3"):
        fit_lda(x, y)
    with pytest.raises(ShapeError, match="the first is row 3"):
        fit_lda(np.tile(x, (1, 5)), y)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shrinkage": "ledoitwolf"}, "Did you mean 'ledoit_wolf'"),
        ({"shrinkage_amount": 1.5}, "between 0 and 1; got 1.5"),
        ({"priors": "equal"}, "must be one of empirical, uniform"),
    ],
)
def test_options_out_of_range_are_refused(changes, message):
    with pytest.raises(OptionError, match=message):
        dataclasses.replace(LdaOptions(), **changes)
