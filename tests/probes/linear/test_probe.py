from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler, normalize

from featcache.errors import OptionError, ShapeError
from featcache.probes.catalog import load_protocol
from featcache.probes.linear.logistic import fit_path
from featcache.probes.linear.options import LinearOptions
from featcache.probes.linear.probe import fit_and_hold_out, fit_linear
from featcache.probes.splits import stratified_folds, stratified_split
from tests.probes.conftest import shares_of


def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("standardise", ["none", "zscore", "l2"])
def test_choice_and_probabilities_are_those_of_scikit_learn(make_clusters, standardise):
    x, y = make_clusters(240, 10, 4, spread=0.35)
    queries, _ = make_clusters(100, 10, 4, spread=0.35, seed=1)
    options = LinearOptions(strengths=(1e-3, 1e-2, 0.1, 1.0), standardise=standardise)
    head = fit_linear(x, y, options, rng())

    def prepared(rows, others):
        if standardise == "zscore":
            scaler = StandardScaler().fit(rows.astype(np.float64))
            return scaler.transform(rows), scaler.transform(others)
        return (normalize(rows), normalize(others)) if standardise == "l2" else (rows, others)

    def fit(rows, labels, strength):
        model = LogisticRegression(C=strength, tol=1e-8, max_iter=20000)
        return model.fit(rows.astype(np.float64), labels)

    rest, held = stratified_split(y, 0.2, rng())
    scores = {}
    for strength in options.strengths:
        part, other = prepared(x[rest], x[held])
        scores[strength] = (fit(part, y[rest], strength).predict(other) == y[held]).mean()
    best = max(scores, key=lambda c: (scores[c], -c))
    assert head.details["strength"] == best
    assert head.details["held_out_top1"] == [[c, pytest.approx(scores[c])] for c in scores]
    part, other = prepared(x, queries)
    expected = fit(part, y, best).predict_proba(other.astype(np.float64))
    got = shares_of(head, queries, 6)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got[:, :4], expected, atol=5e-5)
    np.testing.assert_array_equal(got[:, 4:], 0)


def test_a_tie_goes_to_the_stronger_penalty_and_the_edge_is_recorded(make_clusters):
    x, y = make_clusters(90, 10, 3, spread=20)  # separable: every strength is perfect
    head = fit_linear(x, y, LinearOptions(strengths=(0.1, 1.0, 10.0)), rng())
    assert head.details["strength"] == 0.1
    assert head.details["at_grid_edge"] is True
    assert head.details["solver"]["converged"] is True


def test_bracket_search_ends_at_its_resolution(make_clusters):
    x, y = make_clusters(200, 10, 4, spread=0.3)
    options = LinearOptions(
        strengths=(1e-6, 1e-4, 1e-2, 1.0),
        search="bracket",
        standardise="none",
        held_out=0.3,
        criterion="nll",
        stop_standard_errors=0,
    )
    details = fit_linear(x, y, options, rng()).details
    tried = np.log10([c for c, _ in details["held_out_nll"]])
    best = np.log10(details["strength"])
    assert len(tried) <= 4 + 2 * 4
    np.testing.assert_allclose(tried * 8, np.round(tried * 8), atol=1e-6)
    assert details["at_grid_edge"] is False
    assert np.isclose(np.abs(tried - best)[np.abs(tried - best) > 1e-9].min(), 1 / 8)


def test_single_row_classes_leave_nothing_to_hold_out(make_clusters):
    x, y = make_clusters(3, 5, 3)
    head = fit_linear(x, y, LinearOptions(strengths=(0.1, 1.0, 10.0)), rng())
    assert head.details["held_out_rows"] == 0
    assert head.details["strength"] == 1.0
    assert head.details["at_grid_edge"] is False


def test_a_constant_dimension_survives_the_z_score(make_clusters):
    x, y = make_clusters(60, 6, 3)
    x[:, 2] = 0.1
    head = fit_linear(x, y, LinearOptions(), rng())
    assert np.isfinite(shares_of(head, x, 3)).all()
    np.testing.assert_allclose(head.weights[2], 0, atol=1e-9)


def test_no_rows_give_no_probabilities(make_clusters):
    x, y = make_clusters(60, 6, 3)
    head = fit_linear(x, y, LinearOptions(), rng())
    assert shares_of(head, x[:0], 3).shape == (0, 3)
    with pytest.raises(ShapeError, match="same number of dimensions"):
        head.logits(x[:, :5])


def test_weak_penalties_are_left_out_once_accuracy_has_clearly_fallen(make_clusters):
    x, y = make_clusters(300, 80, 3, spread=0.15)
    whole = fit_linear(x, y, LinearOptions(tol=1e-4), np.random.default_rng(0))
    early = LinearOptions(tol=1e-4, stop_standard_errors=0.5)
    found = fit_linear(x, y, early, np.random.default_rng(0))
    tried = dict(found.details["held_out_top1"])
    assert 4 <= len(tried) < len(whole.details["held_out_top1"])
    assert found.details["strength"] == whole.details["strength"]
    assert dict(whole.details["held_out_top1"]).items() >= tried.items()


def test_a_search_that_does_not_fall_tries_the_whole_grid(make_clusters):
    x, y = make_clusters(60, 6, 3, spread=3.0)
    options = LinearOptions(tol=1e-4, stop_standard_errors=2.0)
    found = fit_linear(x, y, options, np.random.default_rng(0))
    assert len(found.details["held_out_top1"]) == len(options.strengths)


def held_out_nll(x, y, rest, held, strength):
    model = LogisticRegression(C=strength, tol=1e-8, max_iter=20000)
    model.fit(x[rest].astype(np.float64), y[rest])
    return -log_loss(y[held], model.predict_proba(x[held].astype(np.float64)))


def test_folds_pool_every_row_once(make_clusters):
    x, y = make_clusters(120, 8, 3, spread=0.6)
    options = LinearOptions(
        strengths=(1e-3, 1e-2, 0.1), folds=4, criterion="nll", standardise="none"
    )
    fit = fit_and_hold_out(x, y, options, rng())
    cuts = stratified_folds(y, 4, rng())
    for strength, score in fit.head.details["held_out_nll"]:
        parts = [held_out_nll(x, y, rest, held, strength) * len(held) for rest, held in cuts]
        assert score == pytest.approx(sum(parts) / 120, abs=1e-5)
    assert fit.head.details["held_out_rows"] == len(fit.held_labels) == 120
    assert (fit.held_logits.argmax(axis=1) == fit.held_labels).mean() > 0.5


def test_a_validation_split_chooses_and_is_then_fitted_too(make_clusters):
    x, y = make_clusters(90, 8, 3, spread=0.4)
    other, truth = make_clusters(60, 8, 3, spread=0.4, seed=1)
    options = LinearOptions(strengths=(1e-3, 1e-2, 0.1), criterion="nll", standardise="none")
    fit = fit_and_hold_out(x, y, options, rng(), validation=(other, truth))
    assert fit.head.details["held_out_rows"] == 60
    assert fit.head.details["rows_fitted"] == 150
    both, labels = np.concatenate([x, other]), np.concatenate([y, truth])
    every = np.arange(150)
    for strength, score in fit.head.details["held_out_nll"]:
        expected = held_out_nll(both, labels, every[:90], every[90:], strength)
        assert score == pytest.approx(expected, abs=1e-5)
    expected = fit_path(both, labels, [fit.head.details["strength"]]).weights[0]
    np.testing.assert_allclose(fit.head.weights, expected, atol=1e-4)
    only = fit_and_hold_out(
        x, y, replace(options, refit="train"), rng(), validation=(other, truth)
    ).head
    assert only.details["rows_fitted"] == 90


def test_an_optimum_at_the_edge_extends_the_grid_and_says_so(make_clusters):
    x, y = make_clusters(300, 20, 4, spread=0.15)
    narrow = LinearOptions(strengths=(10.0, 100.0), criterion="nll", extend_decades=6)
    found = fit_linear(x, y, narrow, rng()).details
    assert found["grid_extended"] == ["strong"]
    assert found["strength"] < 10
    assert found["at_grid_edge"] is False
    assert len(found["warnings"]) == 1
    assert "extended" in found["warnings"][0]
    tried = [c for c, _ in found["held_out_nll"]]
    np.testing.assert_allclose(np.diff(np.log10(tried)), 1, atol=1e-9)
    stuck = fit_linear(x, y, replace(narrow, extend_decades=1), rng()).details
    assert stuck["at_grid_edge"] is True
    assert stuck["warnings"][-1] == "The best strength, 1, is at the edge of all that were tried."
    assert min(c for c, _ in stuck["held_out_nll"]) == pytest.approx(1.0)


def test_balanced_weights_lift_the_rare_class(make_clusters):
    x, y = make_clusters(400, 6, 2, spread=0.2)
    kept = np.concatenate([np.flatnonzero(y == 0), np.flatnonzero(y == 1)[:20]])
    options = LinearOptions(strengths=(0.1,), class_weight="balanced", standardise="none")
    head = fit_linear(x[kept], y[kept], options, rng())
    model = LogisticRegression(C=0.2, class_weight="balanced", tol=1e-9, max_iter=20000)
    model.fit(x[kept].astype(np.float64), y[kept])
    np.testing.assert_allclose(
        shares_of(head, x, 2), model.predict_proba(x.astype(np.float64)), atol=1e-4
    )
    plain = fit_linear(x[kept], y[kept], replace(options, class_weight="none"), rng())
    assert shares_of(head, x, 2)[:, 1].mean() > 2 * shares_of(plain, x, 2)[:, 1].mean()


@pytest.mark.parametrize("name", ["clip-readme-logreg@1", "clip-paper-logreg@1", "dinov2-logreg@1"])
def test_two_classes_are_those_of_scikit_learn_where_a_protocol_imitates_it(make_clusters, name):
    x, y = make_clusters(150, 8, 2, spread=0.3)
    options = replace(load_protocol(name).parsed_options(), strengths=(0.316,), tol=1e-8)
    head = fit_linear(x, y, options, rng())
    model = LogisticRegression(C=0.316, tol=1e-8, max_iter=20000).fit(x.astype(np.float64), y)
    np.testing.assert_allclose(np.diff(head.weights, axis=1)[:, 0], model.coef_[0], atol=1e-6)
    assert np.diff(head.bias)[0] == pytest.approx(model.intercept_[0], abs=1e-6)
    assert head.details["binary"] == "sigmoid"


def test_centring_changes_nothing(make_clusters):
    x, y = make_clusters(100, 6, 3)
    fits = [
        fit_linear(x, y, LinearOptions(strengths=(0.1,), standardise=kind), rng())
        for kind in ("none", "centre")
    ]
    np.testing.assert_allclose(fits[0].weights, fits[1].weights, atol=1e-5)
    np.testing.assert_allclose(fits[0].bias, fits[1].bias, atol=1e-4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"folds": 1}, "`folds` must be 0, or 2 and more"),
        ({"criterion": "auc"}, "`criterion` must be one of top1"),
        ({"classes": ("a", "a")}, "distinct names"),
        ({"class_weight": "yes"}, "must be one of none, balanced"),
        ({"binary": "sigmoids"}, "Did you mean 'sigmoid'"),
    ],
)
def test_options_that_contradict_themselves_are_refused(values, message):
    with pytest.raises(OptionError, match=message):
        LinearOptions(**values)


def test_every_strength_reports_how_far_it_was_solved(make_clusters):
    x, y = make_clusters(300, 20, 4, spread=0.15)
    options = LinearOptions(strengths=(0.1, 1.0, 10.0), search="grid", steps_per_decade=1)
    found = fit_linear(x, y, options, rng()).details
    assert [one["strength"] for one in found["solved"]] == [0.1, 1.0, 10.0]
    assert all(one["converged"] and 0 < one["grad_norm"] <= 1.02e-6 for one in found["solved"])
    short = fit_linear(x, y, replace(options, max_iter=1), rng()).details
    assert [one["iterations"] for one in short["solved"]] == [1, 1, 1]
    said = " ".join(short["warnings"])
    assert "3 of 3 strengths stopped short of the gradient norm asked for" in said
    assert "The classifier stopped at gradient norm" in said


def test_a_plateau_does_not_lead_beyond_the_grid(make_clusters):
    x, y = make_clusters(90, 10, 3, spread=20)  # separable: every strength is perfect
    options = LinearOptions(strengths=(0.1, 1.0, 10.0), extend_decades=4)
    found = fit_linear(x, y, options, rng()).details
    assert found["strength"] == 0.1
    assert found["grid_extended"] == []
    assert [c for c, _ in found["held_out_top1"]] == [0.1, 1.0, 10.0]


def test_the_final_fit_is_the_same_wherever_it_starts(make_clusters):
    x, y = make_clusters(300, 20, 4, spread=0.3)
    options = LinearOptions(strengths=(0.01, 0.1, 1.0), held_out=0.3)
    head = fit_linear(x, y, options, rng())
    cold = fit_linear(x, y, replace(options, strengths=(head.details["strength"],)), rng())
    np.testing.assert_allclose(head.weights, cold.weights, atol=2e-5)
    shift = head.bias - cold.bias  # equal for all classes: a softmax does not see it
    np.testing.assert_allclose(shift, shift.mean(), atol=2e-5)


def test_validation_rows_of_unknown_classes_are_left_out(make_clusters):
    x, y = make_clusters(120, 10, 3)
    other, truth = x[:30], y[:30].copy()
    truth[::3] = 7
    options = LinearOptions(strengths=(0.1, 1.0))
    head = fit_and_hold_out(x, y, options, rng(), validation=(other, truth)).head
    assert head.details["rows_fitted"] == 120 + 20
    assert head.classes.tolist() == [0, 1, 2]


def test_a_stop_by_accuracy_is_no_stop_by_likelihood():
    with pytest.raises(OptionError, match="`stop_standard_errors` must be 0 with `criterion: nll`"):
        LinearOptions(criterion="nll", stop_standard_errors=2.0)
