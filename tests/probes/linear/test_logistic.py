from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from featcache.errors import OptionError, ShapeError
from featcache.probes.linear import design, solver
from featcache.probes.linear.logistic import fit_path, one_vs_rest_solver

STRENGTHS = (1e-4, 1e-2, 1.0, 100.0)


def objective(x, y, weights, bias, strength):
    x, y = x.astype(np.float64), np.asarray(y)
    logits = x @ weights + bias
    top = logits.max(axis=1)
    loss = top + np.log(np.exp(logits - top[:, None]).sum(axis=1)) - logits[np.arange(len(y)), y]
    return loss.mean() + (weights**2).sum() / (2 * strength * len(y))


def oracle(x, y, strength):
    binary = len(np.unique(y)) == 2
    fitted = LogisticRegression(C=2 * strength if binary else strength, tol=1e-8, max_iter=20000)
    fitted.fit(x.astype(np.float64), y)
    if binary:
        weights = np.stack([-fitted.coef_[0] / 2, fitted.coef_[0] / 2], axis=1)
        return weights, np.array([-1, 1]) * fitted.intercept_[0] / 2, fitted
    return fitted.coef_.T, fitted.intercept_, fitted


@pytest.mark.parametrize(
    ("n", "dim", "n_classes"), [(300, 20, 5), (60, 100, 4), (200, 16, 2)], ids=str
)
def test_every_strength_reaches_the_optimum_of_scikit_learn(make_clusters, n, dim, n_classes):
    x, y = make_clusters(n, dim, n_classes, spread=0.4)
    queries, _ = make_clusters(200, dim, n_classes, spread=0.4, seed=1)
    path = fit_path(x, y, STRENGTHS)
    assert path.converged.all()
    for i, strength in enumerate(STRENGTHS):
        weights, bias, fitted = oracle(x, y, strength)
        ours = objective(x, y, path.weights[i], path.biases[i], strength)
        theirs = objective(x, y, weights, bias, strength)
        assert ours <= theirs * (1 + 1e-6)
        assert ours == pytest.approx(path.objective[i], rel=1e-9)
        if strength <= 1:  # at weak penalties scikit-learn itself stops a little short
            assert ours == pytest.approx(theirs, rel=1e-6)
        got = (queries @ path.weights[i] + path.biases[i]).argmax(axis=1)
        margin = np.sort(fitted.predict_proba(queries), axis=1)
        is_clear = margin[:, -1] - margin[:, -2] > 1e-3
        np.testing.assert_array_equal(
            path.classes[got][is_clear], fitted.predict(queries)[is_clear]
        )


@pytest.mark.parametrize(("n", "dim"), [(200, 16), (40, 60)])
@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_a_sigmoid_has_the_objective_of_scikit_learn_for_two_classes(
    make_clusters, n, dim, class_weight
):
    x, y = make_clusters(n, dim, 2, spread=0.3)
    kept = (y == 0) | (np.arange(n) % 3 == 0)
    x, y, strengths = x[kept].astype(np.float64), y[kept], (1e-3, 0.1, 3.0)
    balance = len(y) / (2 * np.bincount(y)) if class_weight else np.ones(2)
    each = dict(enumerate(balance.tolist()))
    path = fit_path(x, y, strengths, binary="sigmoid", class_weights=each, tol=1e-8)
    assert path.converged.all()

    def value(w, b, strength):
        losses = np.logaddexp(0, np.where(y == 1, -1, 1) * (x @ w + b))
        return (balance[y] * losses).sum() / len(y) + w @ w / (2 * strength * len(y))

    for i, strength in enumerate(strengths):
        model = LogisticRegression(  # its L-BFGS stops at 2e-6 of the bias
            C=strength, class_weight=class_weight, tol=1e-8, solver="newton-cholesky"
        )
        model.fit(x, y)
        w, b = np.diff(path.weights[i], axis=1)[:, 0], np.diff(path.biases[i])[0]
        np.testing.assert_allclose(w, model.coef_[0], atol=1e-6)
        assert b == pytest.approx(model.intercept_[0], abs=1e-6)
        theirs = value(model.coef_[0], model.intercept_[0], strength)
        assert value(w, b, strength) == pytest.approx(theirs, rel=1e-11)
        assert path.objective[i] == pytest.approx(theirs, rel=1e-11)
        np.testing.assert_allclose(path.weights[i].sum(axis=1), 0, atol=1e-6)
    plain = fit_path(x, y, strengths, class_weights=each, tol=1e-8)
    assert (np.abs(path.weights - plain.weights).max(axis=(1, 2)) > 1e-3).all()


def test_a_sigmoid_changes_nothing_but_two_classes(make_clusters):
    for n_classes in (1, 3):
        x, y = make_clusters(60, 8, n_classes)
        first, second = (fit_path(x, y, [0.1], binary=kind) for kind in ("sigmoid", "softmax"))
        np.testing.assert_array_equal(first.weights, second.weights)
        np.testing.assert_array_equal(first.biases, second.biases)


def test_one_fit_of_many_strengths_equals_many_fits_of_one(make_clusters):
    x, y = make_clusters(150, 10, 3, spread=0.5)
    together = fit_path(x, y, STRENGTHS)
    for i, strength in enumerate(STRENGTHS):
        alone = fit_path(x, y, [strength])
        assert alone.objective[0] == pytest.approx(together.objective[i], rel=1e-9)
        np.testing.assert_allclose(alone.weights[0], together.weights[i], atol=1e-3)


def test_classes_are_those_that_occur(make_clusters):
    x, y = make_clusters(120, 8, 3, spread=0.6)
    path = fit_path(x, np.array([1, 4, 9])[y], [1.0])
    np.testing.assert_array_equal(path.classes, [1, 4, 9])
    np.testing.assert_allclose(path.weights, fit_path(x, y, [1.0]).weights)


def test_one_class_gives_a_constant_classifier(make_clusters):
    x, _ = make_clusters(20, 8, 3)
    path = fit_path(x, np.full(20, 2), [1.0])
    assert path.converged.all()
    np.testing.assert_array_equal(path.weights, np.zeros((1, 8, 1)))


def test_a_constant_dimension_gets_no_weight(make_clusters):
    x, y = make_clusters(100, 8, 3, spread=0.5)
    padded = np.concatenate([x, np.full((100, 1), 3.0), np.zeros((100, 1))], axis=1)
    path = fit_path(padded.astype(np.float32), y, [1.0])
    np.testing.assert_allclose(path.weights[0, -2:], 0, atol=1e-12)
    assert path.objective[0] == pytest.approx(fit_path(x, y, [1.0]).objective[0], rel=1e-7)


def test_rows_that_are_all_equal_give_the_class_shares():
    y = np.array([0, 0, 0, 1])
    path = fit_path(np.ones((4, 3), dtype=np.float32), y, [1.0])
    logits = np.ones(3) @ path.weights[0] + path.biases[0]
    shares = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(shares, [0.75, 0.25], rtol=1e-6)


def test_the_scale_of_the_features_only_rescales_the_strength(make_clusters):
    x, y = make_clusters(150, 10, 3, spread=0.5)
    small, large = fit_path(x, y, [1.0]), fit_path(x * 1000, y, [1e-6])
    assert large.objective[0] == pytest.approx(small.objective[0], rel=1e-6)
    np.testing.assert_allclose(large.weights * 1000, small.weights, atol=1e-3)


def test_float16_features_with_overflowing_norms_are_fitted(make_clusters):
    x, y = make_clusters(100, 10, 3)
    huge = (x * 5000).astype(np.float16)  # a squared norm is far above float16's 65504
    assert np.isfinite(huge).all()
    path = fit_path(huge, y, [1e-7])
    assert path.converged.all()
    assert np.isfinite(path.weights).all()


@pytest.fixture
def in_float32(monkeypatch):
    monkeypatch.setattr(design, "_EXACT_VALUES", 0)
    monkeypatch.setattr(design, "_PASS_BYTES", 8 * 16 * 70)  # several blocks of rows


@pytest.mark.parametrize("is_resident", [True, False], ids=["resident", "streamed"])
def test_float32_passes_reach_the_optimum_of_float64(
    make_clusters, in_float32, is_resident, monkeypatch
):
    if not is_resident:
        monkeypatch.setattr(design, "_RESIDENT_BYTES", 0)
    x, y = make_clusters(300, 16, 4, spread=0.4)
    strengths = (1e-3, 0.1, 10.0, 1e4)
    got = fit_path(x, y, strengths)
    assert got.converged.all()
    monkeypatch.undo()
    expected = fit_path(x, y, strengths)
    np.testing.assert_allclose(got.objective, expected.objective, rtol=1e-7)
    np.testing.assert_allclose(got.weights, expected.weights, atol=2e-3 * np.abs(got.weights).max())


def test_a_streamed_map_of_float16_gives_what_memory_gives(
    make_clusters, in_float32, monkeypatch, tmp_path
):
    x, y = make_clusters(300, 16, 4, spread=0.4)
    np.save(tmp_path / "x.npy", x.astype(np.float16))
    expected = fit_path(x.astype(np.float16), y, [0.1], tol=1e-9)
    monkeypatch.setattr(design, "_RESIDENT_BYTES", 0)
    got = fit_path(np.load(tmp_path / "x.npy", mmap_mode="r"), y, [0.1], tol=1e-9)
    np.testing.assert_allclose(got.weights, expected.weights, atol=1e-6)


def test_float64_finishes_what_float32_cannot(make_clusters, in_float32):
    x, y = make_clusters(200, 30, 4, spread=2)
    path = fit_path(x, y, [1e6])
    assert path.converged[0]
    got = (x @ path.weights[0] + path.biases[0]).argmax(axis=1)
    np.testing.assert_array_equal(got, y)


def test_a_group_shares_its_passes_and_ends_where_single_problems_do(make_clusters, monkeypatch):
    x, y = make_clusters(150, 10, 3, spread=0.5)
    strengths = tuple(10.0 ** np.arange(-3, 3, 0.5))
    one_by_one = fit_path(x, y, strengths)
    monkeypatch.setattr(solver, "_COLUMNS", {"cpu": 10_000})
    calls = []
    evaluate = solver.PathSolver._evaluate
    monkeypatch.setattr(
        solver.PathSolver,
        "_evaluate",
        lambda self, t, p: calls.append(len(t)) or evaluate(self, t, p),
    )
    together = fit_path(x, y, strengths)
    assert max(calls) == len(strengths)
    assert len(calls) < together.passes.sum()
    np.testing.assert_allclose(together.objective, one_by_one.objective, rtol=1e-7)


def test_a_path_takes_fewer_passes_than_its_strengths_alone(make_clusters):
    x, y = make_clusters(400, 20, 5, spread=0.3)
    strengths = tuple(10.0 ** np.arange(-3, 3, 0.25))
    path = fit_path(x, y, strengths)
    alone = sum(int(fit_path(x, y, [c]).passes[0]) for c in strengths)
    assert path.converged.all()
    assert path.passes.sum() < 0.7 * alone


def test_strengths_come_back_in_the_order_they_were_asked_for(make_clusters):
    x, y = make_clusters(80, 6, 3, spread=0.5)
    mixed = fit_path(x, y, [1.0, 0.01, 1.0])
    rising = fit_path(x, y, [0.01, 1.0])
    assert mixed.strengths == (1.0, 0.01, 1.0)
    np.testing.assert_array_equal(mixed.weights[0], mixed.weights[2])
    np.testing.assert_allclose(mixed.objective, rising.objective[[1, 0, 1]], rtol=1e-12)


def test_class_weights_are_those_of_scikit_learn(make_clusters):
    x, y = make_clusters(200, 8, 3, spread=0.4)
    weights = {0: 0.5, 2: 3.0}
    path = fit_path(x, y, [0.3], class_weights=weights, tol=1e-9)
    model = LogisticRegression(C=0.3, tol=1e-8, max_iter=20000, class_weight={1: 1.0, **weights})
    model.fit(x.astype(np.float64), y)
    np.testing.assert_allclose(path.weights[0], model.coef_.T, atol=1e-5)
    with pytest.raises(OptionError, match="positive finite numbers; got 0.0"):
        fit_path(x, y, [1.0], class_weights={1: 0.0})


def test_several_classes_per_row_are_solved_one_against_the_rest(make_clusters):
    x, y = make_clusters(200, 8, 4, spread=0.5)
    targets = np.stack([y == 0, y >= 2, (y + np.arange(200)) % 3 == 0, np.zeros(200, bool)], axis=1)
    path = one_vs_rest_solver(x, targets).solve([1e-2, 1.0])
    np.testing.assert_array_equal(path.classes, [0, 1, 2])  # nothing is in the last one
    assert path.converged.all()
    for i, strength in enumerate(path.strengths):
        for column in range(3):
            model = LogisticRegression(C=strength, tol=1e-9, max_iter=20000)
            model.fit(x.astype(np.float64), targets[:, column])
            np.testing.assert_allclose(path.weights[i][:, column], model.coef_[0], atol=1e-4)
            np.testing.assert_allclose(path.biases[i][column], model.intercept_[0], atol=1e-4)
    with pytest.raises(ShapeError, match="rows in it and rows outside; got none"):
        one_vs_rest_solver(x, np.zeros((200, 2), bool))
    with pytest.raises(ShapeError, match=r"must have a row per row of features, 200; got shape"):
        one_vs_rest_solver(x, np.zeros((199, 2), bool))


def test_duplicated_columns_share_their_weight(make_clusters):
    x, y = make_clusters(200, 8, 3, spread=0.4)
    twice = np.concatenate([x, x[:, :2]], axis=1)
    path = fit_path(twice, y, [0.1, 100.0])
    np.testing.assert_allclose(path.weights[:, :2], path.weights[:, 8:], atol=1e-5)
    for i, strength in enumerate(path.strengths):
        model = LogisticRegression(C=strength, tol=1e-8, max_iter=50000).fit(
            twice.astype(np.float64), y
        )
        theirs = objective(twice, y, model.coef_.T, model.intercept_, strength)
        ours = objective(twice, y, path.weights[i], path.biases[i], strength)
        assert ours == pytest.approx(theirs, rel=1e-6)


def test_stopping_early_is_reported(make_clusters):
    x, y = make_clusters(150, 10, 3, spread=0.3)
    path = fit_path(x, y, [1e-4, 100.0], max_iter=5)
    assert path.iterations.max() == 5
    assert not path.converged[1]


def test_wrong_arguments_are_refused(make_clusters):
    x, y = make_clusters(10, 4, 2)
    with pytest.raises(OptionError, match="positive finite numbers"):
        fit_path(x, y, [0.0])
    with pytest.raises(OptionError, match="at least one"):
        fit_path(x, y, [])
    with pytest.raises(ShapeError, match="one label per row"):
        fit_path(x, y[:-1], [1.0])
    with pytest.raises(ShapeError, match="class indices from 0; got -1"):
        fit_path(x, y - 1, [1.0])
    with pytest.raises(ShapeError, match="at least one of each"):
        fit_path(x[:0], y[:0], [1.0])
    x[3, 1] = np.nan
    with pytest.raises(ShapeError, match="1 rows hold NaN or infinity, the first is row 3"):
        fit_path(x, y, [1.0])


@pytest.mark.parametrize("scale", ["raw", "zscore"])
def test_weak_penalties_on_separable_classes_converge(scale):
    x, y = load_digits(return_X_y=True)
    if scale == "zscore":
        x = (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-9)
    path = fit_path(x, y, [1.0, 10.0, 1e3], max_iter=600)
    assert path.converged.all()
    reference = LogisticRegression(C=10.0, tol=1e-6, max_iter=5000).fit(x, y)
    np.testing.assert_array_equal(
        reference.predict(x), path.classes[(x @ path.weights[1] + path.biases[1]).argmax(axis=1)]
    )
