from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ortho_group
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.preprocessing import StandardScaler, normalize

from featcache.errors import OptionError, ShapeError
from featcache.probes.closed_form import design, moments, ridge
from featcache.probes.closed_form.ridge import decompose
from featcache.probes.closed_form.targets import ClassTargets

STRENGTHS = (1e-3, 0.1, 3.0, 100.0, 1e5)
SHAPES = [(60, 8, 4), (20, 50, 3), (9, 8, 3), (10, 8, 3), (40, 39, 2)]
"""Rows, dimensions, classes: more and fewer rows than dimensions, and both sides of the switch."""


def targets_of(y, n_classes, kind="plus_minus"):
    return ClassTargets.of_columns(y, n_classes, kind)


def matrix(y, n_classes):
    return np.where(y[:, None] == np.arange(n_classes), 1.0, -1.0)


def refitted(x, wanted, strength, weights=None):
    """Predict each row by scikit-learn's ridge on all others."""
    found = np.empty_like(wanted)
    for row in range(len(x)):
        rest = np.arange(len(x)) != row
        model = Ridge(alpha=strength, solver="svd")
        model.fit(x[rest], wanted[rest], None if weights is None else weights[rest])
        found[row] = model.predict(x[row : row + 1])[0]
    return found


def check_left_out(system, strength, expected, wanted):
    """Compare what leave-one-out says with predictions of refits, shape (N, C)."""
    found = system.leave_one_out([strength])
    is_right = expected.argmax(axis=1) == wanted.argmax(axis=1)
    assert found.accuracy[0] == is_right.mean()
    assert found.squared_error[0] == pytest.approx(((expected - wanted) ** 2).mean(), rel=1e-8)


@pytest.mark.parametrize(("n", "dim", "n_classes"), SHAPES, ids=str)
def test_every_strength_is_the_ridge_of_scikit_learn(make_clusters, n, dim, n_classes):
    x, y = make_clusters(n, dim, n_classes, spread=0.5)
    system = decompose(x, targets_of(y, n_classes))
    for strength in STRENGTHS:
        weights, bias = system.solve(strength)
        oracle = Ridge(alpha=strength, solver="svd").fit(x.astype(float), matrix(y, n_classes))
        np.testing.assert_allclose(weights, oracle.coef_.T, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(bias, oracle.intercept_, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("n", "dim", "n_classes"), SHAPES, ids=str)
@pytest.mark.parametrize("is_weighted", [False, True])
def test_leave_one_out_is_that_of_refits(make_clusters, n, dim, n_classes, is_weighted):
    x, y = make_clusters(n, dim, n_classes, spread=0.5)
    rng = np.random.default_rng(0)
    row_weights = rng.uniform(0.2, 3, n) if is_weighted else None
    system = decompose(x, targets_of(y, n_classes), row_weights=row_weights)
    wanted, wide = matrix(y, n_classes), x.astype(np.float64)
    found = system.leave_one_out(STRENGTHS)
    for i, strength in enumerate(STRENGTHS):
        expected = refitted(wide, wanted, strength, row_weights)
        assert found.accuracy[i] == (expected.argmax(axis=1) == y).mean()
        assert found.squared_error[i] == pytest.approx(((expected - wanted) ** 2).mean(), rel=1e-8)


@pytest.mark.parametrize(("n", "dim", "n_classes"), SHAPES[:2], ids=str)
def test_leave_one_out_errors_are_those_of_ridge_cv(make_clusters, n, dim, n_classes):
    x, y = make_clusters(n, dim, n_classes, spread=0.5)
    system = decompose(x, targets_of(y, n_classes))
    oracle = RidgeCV(alphas=STRENGTHS, store_cv_results=True).fit(
        x.astype(float), matrix(y, n_classes)
    )
    expected = oracle.cv_results_.mean(axis=(0, 1))
    np.testing.assert_allclose(system.leave_one_out(STRENGTHS).squared_error, expected, rtol=1e-7)


@pytest.mark.parametrize("standardise", ["none", "centre", "zscore", "l2"])
@pytest.mark.parametrize("n", [14, 60])
def test_rows_are_standardised_and_weights_are_for_stored_rows(make_clusters, standardise, n):
    x, y = make_clusters(n, 20, 3, spread=0.5)
    x[:, 4] = 0.1
    queries, _ = make_clusters(30, 20, 3, seed=1)
    x, queries = x.astype(np.float64), queries.astype(np.float64)
    prepared, asked = x, queries
    if standardise == "zscore":
        scaler = StandardScaler().fit(x)
        prepared, asked = scaler.transform(x), scaler.transform(queries)
    elif standardise == "l2":
        prepared, asked = normalize(x), normalize(queries)
    oracle = Ridge(alpha=0.5, solver="svd").fit(prepared, matrix(y, 3))
    system = decompose(x, targets_of(y, 3), standardise=standardise)
    weights, bias = system.solve(0.5)
    raw = normalize(queries) if standardise == "l2" else queries
    np.testing.assert_allclose(raw @ weights + bias, oracle.predict(asked), rtol=1e-8, atol=1e-9)
    expected = refitted(prepared, matrix(y, 3), 0.5)
    check_left_out(system, 0.5, expected, matrix(y, 3))


@pytest.mark.parametrize(("n", "dim"), [(50, 6), (12, 30)])
def test_a_penalised_constant_feature_is_one_that_is_written_out(make_clusters, n, dim):
    x, y = make_clusters(n, dim, 3, spread=0.5)
    centred = x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)
    padded = np.pad(centred, ((0, 0), (0, 1)), constant_values=0.7)
    system = decompose(centred, targets_of(y, 3), bias_feature=0.7)
    oracle = Ridge(alpha=2.0, fit_intercept=False, solver="svd").fit(padded, matrix(y, 3))
    weights, bias = system.solve(2.0)
    np.testing.assert_allclose(weights, oracle.coef_[:, :-1].T, rtol=1e-8, atol=1e-11)
    np.testing.assert_allclose(bias, 0.7 * oracle.coef_[:, -1], rtol=1e-8, atol=1e-11)
    expected = np.empty((n, 3))
    for row in range(n):
        rest = np.arange(n) != row
        model = Ridge(alpha=2.0, fit_intercept=False, solver="svd")
        model.fit(padded[rest], matrix(y, 3)[rest])
        expected[row] = model.predict(padded[[row]])[0]
    check_left_out(system, 2.0, expected, matrix(y, 3))


def test_one_hot_targets_halve_the_weights(make_clusters):
    x, y = make_clusters(40, 6, 3, spread=0.5)
    wide = decompose(x, targets_of(y, 3)).solve(1.0)
    half = decompose(x, targets_of(y, 3, "one_hot")).solve(1.0)
    np.testing.assert_allclose(half[0], wide[0] / 2, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(half[1], (wide[1] + 1) / 2, rtol=1e-10)


def test_large_sets_agree_in_float32_blocks(make_clusters, monkeypatch):
    x, y = make_clusters(3000, 24, 5, spread=0.3)
    exact = decompose(x, targets_of(y, 5), standardise="zscore")
    expected = exact.leave_one_out(STRENGTHS)
    monkeypatch.setattr(design, "_FLOAT64_VALUES", 0)
    monkeypatch.setattr(design, "_PASS_BYTES", 8 * 24 * 1100)
    monkeypatch.setattr(moments, "_PRODUCT_ROWS", 100)
    system = decompose(x.astype(np.float16), targets_of(y, 5), standardise="zscore")
    assert np.abs(system.solve(3.0)[0] - exact.solve(3.0)[0]).max() < 1e-3  # float16 alone
    system = decompose(x, targets_of(y, 5), standardise="zscore")
    for strength in STRENGTHS:
        got, wanted = system.solve(strength)[0], exact.solve(strength)[0]
        assert np.abs(got - wanted).max() < 1e-6 * np.abs(wanted).max()
    got = system.leave_one_out(STRENGTHS)
    np.testing.assert_allclose(got.squared_error, expected.squared_error, rtol=1e-6)
    np.testing.assert_allclose(got.accuracy, expected.accuracy, atol=1 / 3000)


def test_a_long_pass_predicts_in_float32(make_clusters, monkeypatch):
    x, y = make_clusters(300, 24, 5, spread=0.3)
    system = decompose(x, targets_of(y, 5), standardise="zscore")
    expected = system.leave_one_out([3.0])
    monkeypatch.setattr(ridge, "_FLOAT64_PRODUCTS", 0)
    got = system.leave_one_out([3.0])
    assert 0 < np.abs(got.squared_error / expected.squared_error - 1) < 2e-6
    assert got.accuracy == expected.accuracy


@pytest.mark.parametrize("n", [12, 60])
def test_the_order_of_rows_and_classes_changes_nothing(make_clusters, n):
    x, y = make_clusters(n, 20, 3, spread=0.4)
    order, names = np.random.default_rng(0).permutation(n), np.array([2, 0, 1])
    plain, other = (
        decompose(x, targets_of(y, 3)),
        decompose(x[order], targets_of(names[y][order], 3)),
    )
    np.testing.assert_allclose(other.solve(1.0)[0][:, names], plain.solve(1.0)[0], atol=1e-10)
    first, second = plain.leave_one_out(STRENGTHS), other.leave_one_out(STRENGTHS)
    np.testing.assert_allclose(second.squared_error, first.squared_error, rtol=1e-8)
    np.testing.assert_array_equal(second.accuracy, first.accuracy)


@pytest.mark.parametrize("standardise", ["none", "centre", "l2"])
@pytest.mark.parametrize("n", [12, 60])
def test_a_rotation_turns_the_weights(make_clusters, standardise, n):
    x, y = make_clusters(n, 20, 3, spread=0.4)
    turn = ortho_group.rvs(20, random_state=0)
    plain = decompose(x, targets_of(y, 3), standardise=standardise)
    turned = decompose(x.astype(float) @ turn, targets_of(y, 3), standardise=standardise)
    np.testing.assert_allclose(turn @ turned.solve(1.0)[0], plain.solve(1.0)[0], atol=1e-10)
    np.testing.assert_allclose(
        turned.leave_one_out(STRENGTHS).squared_error,
        plain.leave_one_out(STRENGTHS).squared_error,
        rtol=1e-8,
    )


@pytest.mark.parametrize("n", [12, 60])
def test_a_repeated_row_is_a_row_of_twice_the_weight(make_clusters, n):
    x, y = make_clusters(n, 20, 3, spread=0.4)
    again = np.concatenate([np.arange(n), [3, 5]])
    weights = np.bincount(again).astype(float)
    double = decompose(x[again], targets_of(y[again], 3))
    heavy = decompose(x, targets_of(y, 3), row_weights=weights)
    np.testing.assert_allclose(double.solve(0.3)[0], heavy.solve(0.3)[0], atol=1e-9)
    expected = refitted(x[again].astype(float), matrix(y[again], 3), 0.3)
    check_left_out(double, 0.3, expected, matrix(y[again], 3))


@pytest.mark.parametrize("standardise", ["none", "zscore"])
@pytest.mark.parametrize("n", [12, 60])
def test_dead_and_repeated_dimensions_are_fine(make_clusters, standardise, n):
    x, y = make_clusters(n, 6, 3, spread=0.4)
    padded = np.concatenate([x, x[:, :2], np.full((n, 2), 0.3), np.zeros((n, 8))], axis=1)
    system = decompose(padded, targets_of(y, 3), standardise=standardise)
    weights, _ = system.solve(0.5)
    np.testing.assert_allclose(weights[8:], 0, atol=1e-12)
    np.testing.assert_allclose(weights[6:8], weights[:2], atol=1e-10)
    prepared = StandardScaler().fit_transform(padded) if standardise == "zscore" else padded
    expected = refitted(prepared.astype(float), matrix(y, 3), 0.5)
    check_left_out(system, 0.5, expected, matrix(y, 3))


def test_a_fit_through_every_row_still_leaves_rows_out(make_clusters):
    x, y = make_clusters(15, 40, 3, spread=0.4)
    system = decompose(x, targets_of(y, 3))
    limit = refitted(x.astype(float), matrix(y, 3), 1e-9)
    check_left_out(system, 1e-9, limit, matrix(y, 3))
    weights, bias = system.solve(1e-9)
    np.testing.assert_allclose(x @ weights + bias, matrix(y, 3), atol=1e-7)


def test_a_row_that_alone_has_a_dimension_is_predicted_without_it(make_clusters):
    x, y = make_clusters(30, 5, 3)
    x[:, 4] = 0
    x[3, 4] = 7
    system = decompose(x, targets_of(y, 3))
    expected = refitted(x.astype(float), matrix(y, 3), 1e-3)
    check_left_out(system, 1e-3, expected, matrix(y, 3))


def test_float16_rows_with_overflowing_squares_are_fitted(make_clusters):
    x, y = make_clusters(40, 6, 3)
    huge = (x * 5000).astype(np.float16)
    oracle = Ridge(alpha=1e3, solver="svd").fit(huge.astype(float), matrix(y, 3))
    weights, _ = decompose(huge, targets_of(y, 3)).solve(1e3)
    np.testing.assert_allclose(weights, oracle.coef_.T, rtol=1e-8, atol=1e-14)


def test_rows_that_are_all_equal_predict_the_class_shares():
    y = np.array([0, 0, 0, 1])
    for dim in (2, 9):
        weights, bias = decompose(np.ones((4, dim)), targets_of(y, 2)).solve(1.0)
        np.testing.assert_allclose(weights, 0, atol=1e-15)
        np.testing.assert_allclose(bias, [0.5, -0.5])


def test_two_rows_predict_each_other():
    x = np.array([[0.0, 1.0, 5.0], [2.0, 4.0, 3.0]])
    system = decompose(x, targets_of(np.array([0, 1]), 2))
    check_left_out(system, 1.0, np.array([[-1, 1], [1, -1]]), np.array([[1, -1], [-1, 1]]))


def test_wrong_arguments_are_refused(make_clusters):
    x, y = make_clusters(10, 4, 2)
    targets = targets_of(y, 2)
    with pytest.raises(OptionError, match="positive finite numbers, at least one; got \\[0.0\\]"):
        decompose(x, targets).solve(0.0)
    with pytest.raises(OptionError, match="at least one; got \\[\\]"):
        decompose(x, targets).leave_one_out([])
    with pytest.raises(ShapeError, match="Leave-one-out needs at least two rows"):
        decompose(x[:1], targets_of(y[:1], 2)).leave_one_out([1.0])
    with pytest.raises(ShapeError, match="features' 9 rows; got 10"):
        decompose(x[:9], targets)
    with pytest.raises(ShapeError, match="one positive finite number per row"):
        decompose(x, targets, row_weights=np.zeros(10))
    with pytest.raises(ShapeError, match="one of 2 classes per row"):
        targets_of(y + 1, 2)
    x[3, 1] = np.nan
    with pytest.raises(ShapeError, match="the first is row 3"):
        decompose(x, targets)
    x[3] = 0
    with pytest.raises(ShapeError, match="1 rows are zero"):
        decompose(x, targets, standardise="l2")
