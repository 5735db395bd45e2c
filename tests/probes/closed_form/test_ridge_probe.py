from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier, RidgeClassifierCV
from sklearn.preprocessing import StandardScaler

from featcache.errors import OptionError, ShapeError
from featcache.probes.closed_form.options import RidgeOptions
from featcache.probes.closed_form.ridge_probe import fit_big_vision, fit_ridge

GRID = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)


def options_of(**changes):
    return RidgeOptions(**{"strengths": GRID, "extend_decades": 0, **changes})


@pytest.mark.parametrize("class_weight", ["none", "balanced"])
@pytest.mark.parametrize(("n", "dim"), [(120, 12), (40, 60)])
def test_the_classifier_is_that_of_scikit_learn(make_clusters, n, dim, class_weight):
    x, y = make_clusters(n, dim, 4, spread=0.3)
    keep = (y != 1) | (np.arange(n) % 3 == 0)  # one class is rarer
    x, y = x[keep], y[keep]
    queries, _ = make_clusters(50, dim, 4, spread=0.3, seed=1)
    head = fit_ridge(x, y, options_of(class_weight=class_weight))
    scaler = StandardScaler().fit(x.astype(float))
    strength = head.details["strength"]
    oracle = RidgeClassifier(
        alpha=strength, class_weight=None if class_weight == "none" else "balanced"
    ).fit(scaler.transform(x.astype(float)), y)
    expected = oracle.decision_function(scaler.transform(queries.astype(float)))
    np.testing.assert_allclose(head.logits(queries), expected, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize(("n", "dim"), [(120, 12), (40, 60)])
@pytest.mark.parametrize("selection", ["accuracy", "squared_error"])
def test_the_strength_is_that_of_ridge_classifier_cv(make_clusters, n, dim, selection):
    x, y = make_clusters(n, dim, 4, spread=0.3)
    scaled = StandardScaler().fit_transform(x.astype(float))
    head = fit_ridge(x, y, options_of(selection=selection))
    scoring = {"accuracy": "accuracy", "squared_error": None}[selection]
    alphas = GRID[::-1]  # scikit-learn keeps the first of equal scores: the stronger penalty
    oracle = RidgeClassifierCV(alphas=alphas, scoring=scoring).fit(scaled, y)
    best = {
        "accuracy": dict(head.details["leave_one_out_accuracy"]),
        "squared_error": dict(head.details["leave_one_out_squared_error"]),
    }[selection][head.details["strength"]]
    assert head.details["strength"] == oracle.alpha_
    assert best == pytest.approx(abs(oracle.best_score_), rel=1e-9)


def test_a_tie_goes_to_the_stronger_penalty_and_a_plateau_ends_the_search(make_clusters):
    x, y = make_clusters(90, 10, 3, spread=20)  # separable: every strength is perfect
    details = fit_ridge(x, y, options_of(extend_decades=3)).details
    assert {score for _, score in details["leave_one_out_accuracy"]} == {1.0}
    assert details["strength"] == 1000.0
    assert details["strengths_beyond_grid"] == [pytest.approx(1e4)]
    assert details["at_grid_edge"] is False


@pytest.mark.parametrize("grid", [(1e-9, 1e-8), (1e9, 3.2e9, 1e10)])
def test_an_optimum_at_an_edge_extends_the_grid_by_decades(make_clusters, grid):
    x, y = make_clusters(60, 40, 3, spread=0.2)
    options = options_of(strengths=grid, extend_decades=2, selection="squared_error")
    details = fit_ridge(x, y, options).details
    beyond = details["strengths_beyond_grid"]
    if grid[0] < 1:
        assert beyond == pytest.approx([1e-7, 1e-6])
        assert details["strength"] == pytest.approx(1e-6)
    else:
        assert beyond == pytest.approx([1e7, 10**7.5, 1e8, 10**8.5], rel=1e-9)
        assert details["strength"] == pytest.approx(1e7)
    assert details["at_grid_edge"] is True
    tried = [strength for strength, _ in details["leave_one_out_accuracy"]]
    assert tried == sorted([*grid, *beyond])


def test_an_extension_stops_once_it_has_passed_the_optimum(make_clusters):
    x, y = make_clusters(60, 40, 3, spread=0.2)
    wide = tuple(10.0**power for power in range(-4, 9))
    whole = fit_ridge(x, y, options_of(strengths=wide, selection="squared_error")).details
    narrow = options_of(strengths=wide[:2], selection="squared_error", extend_decades=12)
    found = fit_ridge(x, y, narrow).details
    assert found["strength"] == pytest.approx(whole["strength"])
    assert found["at_grid_edge"] is False
    assert max(found["strengths_beyond_grid"]) == pytest.approx(10 * whole["strength"])


def test_single_row_classes_leave_nothing_to_judge_by(make_clusters):
    x, _ = make_clusters(3, 5, 3)
    details = fit_ridge(x, np.array([4, 2, 7]), options_of()).details
    assert details["strength"] == GRID[3]
    assert details["leave_one_out_accuracy"] == []


def test_one_class_is_always_predicted(make_clusters):
    x, _ = make_clusters(12, 5, 3)
    for n in (1, 2, 12):
        head = fit_ridge(x[:n], np.full(n, 3), options_of())
        np.testing.assert_array_equal(head.classes, [3])
        np.testing.assert_allclose(head.logits(x), 1.0)


def test_one_strength_needs_no_choice(make_clusters):
    x, y = make_clusters(30, 5, 3)
    details = fit_ridge(x, y, options_of(strengths=(2.0,), extend_decades=3)).details
    assert details["strength"] == 2.0
    assert details["leave_one_out_accuracy"] == []


def test_classes_missing_from_the_labels_are_left_out(make_clusters):
    x, y = make_clusters(60, 6, 3, spread=0.5)
    head = fit_ridge(x, np.array([1, 4, 9])[y], options_of())
    np.testing.assert_array_equal(head.classes, [1, 4, 9])
    np.testing.assert_allclose(head.weights, fit_ridge(x, y, options_of()).weights)


@pytest.mark.parametrize(("n", "dim"), [(60, 9), (12, 30)])
def test_the_big_vision_variant_is_its_formula(make_clusters, n, dim):
    x, y = make_clusters(n, dim, 3, spread=0.4)
    x[:, 2] = 0.25
    queries, _ = make_clusters(20, dim, 3, seed=1)
    wide = x.astype(np.float64)
    mean, deviation = wide.mean(axis=0), wide.std(axis=0) + 1e-5
    padded = np.pad((wide - mean) / deviation, ((0, 0), (0, 1)), constant_values=100.0)
    inner = padded.T @ padded + 1024 * np.eye(dim + 1)
    weights = np.linalg.solve(inner, padded.T @ np.where(y[:, None] == np.arange(3), 1.0, -1.0))
    asked = np.pad((queries - mean) / deviation, ((0, 0), (0, 1)), constant_values=100.0)
    head = fit_big_vision(x, y, l2_reg=1024.0)
    expected = asked[:, :2] @ weights[:2] + asked[:, 3:] @ weights[3:]  # without the dead one
    got = np.delete(queries, 2, axis=1) @ np.delete(head.weights, 2, axis=0)
    got += head.bias + 0.25 * head.weights[2]
    np.testing.assert_allclose(got, expected, rtol=1e-8, atol=1e-9)


def test_a_second_fit_is_identical(make_clusters):
    x, y = make_clusters(60, 6, 3, spread=0.3)
    first, second = (fit_ridge(x, y, RidgeOptions()) for _ in range(2))
    np.testing.assert_array_equal(first.weights, second.weights)
    assert first.details == second.details


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strengths": (1.0, 0.1)}, "in increasing order"),
        ({"strengths": ()}, "at least one"),
        ({"selection": "accurcy"}, "Did you mean 'accuracy'"),
        ({"extend_decades": -1}, "`extend_decades` must be at least 0"),
        ({"standardise": "zscores"}, "Did you mean 'zscore'"),
        ({"targets": "onehot"}, "Did you mean 'one_hot'"),
        ({"class_weight": "equal"}, "must be one of none, balanced"),
    ],
)
def test_options_out_of_range_are_refused(changes, message):
    with pytest.raises(OptionError, match=message):
        dataclasses.replace(RidgeOptions(), **changes)


def test_wrong_arguments_are_refused(make_clusters):
    x, y = make_clusters(10, 4, 2)
    with pytest.raises(ShapeError, match="one label per row"):
        fit_ridge(x, y[:-1], RidgeOptions())
    with pytest.raises(ShapeError, match="at least one of each"):
        fit_big_vision(x[:0], y[:0], l2_reg=1.0)
    with pytest.raises(OptionError, match="positive finite numbers"):
        fit_big_vision(x, y, l2_reg=0.0)
