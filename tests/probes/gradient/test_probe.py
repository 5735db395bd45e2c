from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from scipy.stats import ortho_group
from sklearn.linear_model import LogisticRegression

from featcache.errors import OptionError, ShapeError
from featcache.probes.gradient import heads as heads_module
from featcache.probes.gradient.options import GradientOptions
from featcache.probes.gradient.probe import TEST_WARNING, fit_gradient
from featcache.probes.gradient.search import grid
from featcache.probes.splits import stratified_split
from tests.probes.conftest import shares_of

SGD = GradientOptions(iterations=50, batch=32)
LARS = GradientOptions(
    optimiser="lars",
    prepare="batchnorm",
    learning_rates=(0.1,),
    batch=16384,
    iterations=0,
    epochs=20,
    warmup_epochs=2,
    drop_last=True,
)
ADAMW = GradientOptions(
    optimiser="adamw",
    prepare="l2",
    learning_rates=(0.1,),
    reference_batch=0,
    weight_decays=tuple(np.logspace(-6, 2, 97).tolist()),
    search="bisect",
    start="uniform",
    batch=32,
    iterations=0,
    epochs=2,
)
RECIPES = pytest.mark.parametrize("options", [SGD, LARS, ADAMW], ids=["sgd", "lars", "adamw"])


@pytest.fixture
def data(make_clusters):
    return make_clusters(120, 10, 4, spread=0.35)


def fit(data, options, *, seed=0, **more):
    return fit_gradient(*data, options, np.random.default_rng(seed), **more)


@RECIPES
def test_a_fit_classifies_as_logistic_regression_does_and_its_details_are_json(
    make_clusters, options
):
    train, (rows, labels) = (make_clusters(n, 10, 4, seed=n) for n in (120, 200))
    options = dataclasses.replace(options, epochs=90) if options is LARS else options
    head = fit(train, options)
    expected = LogisticRegression().fit(*train).score(rows, labels)
    assert (head.logits(rows).argmax(axis=1) == labels).mean() > expected - 0.05
    details = head.details
    assert json.loads(json.dumps(details, allow_nan=False)) == details
    assert details["classes_in_train"] == 4
    assert {"input", "learning_rate", "weight_decay"} == set(details["chosen"])
    assert not details["selected_on_test"]
    assert details["warnings"] == []
    assert details["train_loss"][-1] < details["train_loss"][0]


@RECIPES
def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(data, options):
    first, again, other = (fit(data, options, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.weights, again.weights)
    assert first.details == again.details
    assert not np.array_equal(first.weights, other.weights)


@RECIPES
def test_the_global_random_state_neither_matters_nor_moves(data, options):
    torch.manual_seed(0)
    first = fit(data, options)
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(0)))
    assert np.array_equal(fit(data, options).weights, first.weights)


@RECIPES
def test_a_permutation_of_the_classes_permutes_the_columns_if_all_start_equal(
    data, options, monkeypatch
):
    monkeypatch.setattr(
        heads_module, "_start", lambda dim, n_classes, *_: torch.zeros(dim + 1, n_classes)
    )
    options = dataclasses.replace(
        options,
        learning_rates=options.learning_rates[-1:],
        weight_decays=(0.01,),
        search="grid",
    )  # one head: the held-out rows are drawn class by class
    rows, labels = data
    order = np.array([2, 0, 3, 1])
    first, second = fit(data, options), fit((rows, order[labels]), options)
    np.testing.assert_allclose(second.weights[:, order], first.weights, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(second.bias[order], first.bias, rtol=1e-4, atol=1e-6)


def test_a_rotation_changes_no_logit_if_the_weights_start_at_zero(data, monkeypatch):
    monkeypatch.setattr(
        heads_module, "_start", lambda dim, n_classes, *_: torch.zeros(dim + 1, n_classes)
    )
    rows, labels = data
    turned = rows @ ortho_group.rvs(10, random_state=0).astype(np.float32)
    first, second = fit(data, SGD), fit((turned, labels), SGD)
    assert first.details["chosen"] == second.details["chosen"]
    np.testing.assert_allclose(second.logits(turned), first.logits(rows), rtol=1e-3, atol=1e-5)


@RECIPES
def test_float16_rows_give_what_the_same_values_in_float32_give(data, options):
    halved = data[0].astype(np.float16)
    first, second = (fit((halved.astype(kind), data[1]), options) for kind in ("f2", "f4"))
    assert first.details == second.details
    assert np.array_equal(first.weights, second.weights)


@RECIPES
def test_rows_by_number_are_those_rows(data, options):
    rows, labels = data
    picked = np.random.default_rng(3).permutation(120)[:80]
    by_number = fit((rows, labels[picked]), options, rows=picked)
    copied = fit((rows[picked], labels[picked]), options)
    assert np.array_equal(by_number.weights, copied.weights)
    assert by_number.details == copied.details


@RECIPES
def test_a_missing_class_has_no_column(data, options):
    rows, labels = data
    gap = np.where(labels >= 2, labels + 3, labels)
    head = fit((rows, gap), options)
    assert head.classes.tolist() == [0, 1, 5, 6]
    assert np.array_equal(head.weights, fit(data, options).weights)
    shares = shares_of(head, rows, 8)
    assert not shares[:, [2, 3, 4, 7]].any()


@RECIPES
def test_a_single_class_is_always_predicted(data, options):
    rows, labels = data
    head = fit((rows, np.full_like(labels, 2)), options)
    assert shares_of(head, rows, 4)[:, 2].min() == 1
    assert all(loss == 0 for loss in head.details["train_loss"])


@RECIPES
def test_a_batch_of_all_rows_serves_a_train_set_smaller_than_a_batch(data, options):
    few = data[0][:9], data[1][:9]
    head = fit(few, options)
    assert np.isfinite(head.weights).all()
    expected = {"sgd": 32, "lars": 9, "adamw": 9}[options.optimiser]
    assert head.details["batch"] == expected


@RECIPES
def test_without_a_row_to_hold_out_the_middle_is_taken_and_recorded(data, options):
    labels = data[1]
    one_each = [int(np.flatnonzero(labels == label)[0]) for label in range(4)]
    details = fit((data[0][one_each], labels[one_each]), options).details
    assert details["selection"] == ("none" if options is LARS else "none: no row can be held out")
    assert details["heads"] == []
    rate = 1e-3 if options is SGD else 0.1
    assert details["chosen"] == {"input": "all", "learning_rate": rate, "weight_decay": 0.0}


def test_the_best_head_on_held_out_rows_is_trained_again_on_all(data):
    rows, labels = data
    head = fit(data, SGD)
    table = head.details["heads"]
    assert [one["learning_rate"] for one in table] == list(SGD.learning_rates)
    best = max(one["top1"] for one in table)
    first = next(one for one in table if one["top1"] == best)
    assert head.details["chosen"]["learning_rate"] == first["learning_rate"]
    alone = dataclasses.replace(SGD, learning_rates=(first["learning_rate"],))
    np.testing.assert_allclose(fit(data, alone).weights, head.weights, rtol=1e-5, atol=1e-8)
    rng = np.random.default_rng(0)
    rng.integers(1 << 31)
    rest, held = stratified_split(labels, 0.1, rng)
    assert head.details["selection_rows"] == len(held)
    for one in table[::4]:
        single = dataclasses.replace(SGD, learning_rates=(one["learning_rate"],))
        part = fit((rows, labels[rest]), single, rows=rest)
        share = (part.logits(rows[held]).argmax(axis=1) == labels[held]).mean()
        assert one["top1"] == pytest.approx(share)
        assert one["train_loss"] == pytest.approx(part.details["train_loss"][-1], rel=1e-4)


def test_selection_on_test_takes_the_best_head_there_and_says_so_loudly(data, make_clusters):
    options = dataclasses.replace(SGD, selection="test")
    rows, labels = make_clusters(150, 10, 4, spread=0.35, seed=4)
    unseen = np.append(labels[:-1], 9)  # a class that train lacks is never right
    head = fit(data, options, test=(rows, unseen))
    details = head.details
    assert details["warnings"] == [TEST_WARNING]
    assert details["selected_on_test"]
    assert (details["selection"], details["selection_rows"]) == ("test", 150)
    share = (head.classes[head.logits(rows).argmax(axis=1)] == unseen).mean()
    assert share == max(one["top1"] for one in details["heads"])
    alone = dataclasses.replace(SGD, learning_rates=(details["chosen"]["learning_rate"],))
    np.testing.assert_allclose(fit(data, alone).weights, head.weights, rtol=1e-5, atol=1e-8)
    with pytest.raises(OptionError, match="`selection: test` needs the test rows; got none"):
        fit(data, options)


def test_bisection_on_test_takes_the_head_of_the_right_round(data, make_clusters):
    test = make_clusters(150, 10, 4, spread=0.35, seed=4)
    head = fit(data, dataclasses.replace(ADAMW, selection="test"), test=test)
    share = (head.logits(test[0]).argmax(axis=1) == test[1]).mean()
    assert share == max(one["top1"] for one in head.details["heads"])


def test_a_train_set_whose_heads_all_diverge_is_refused(data):
    options = dataclasses.replace(ADAMW, weight_decays=(1e30,), search="grid")
    with pytest.raises(OptionError, match="must stay finite in training; all diverged, the last"):
        fit(data, options)


def test_rows_that_cannot_be_used_are_refused(data):
    rows, labels = data
    holed = rows.copy()
    holed[7, 3] = np.nan
    with pytest.raises(ShapeError, match="`features` must be finite; 1 rows hold NaN"):
        fit((holed, labels), SGD)
    holed[7] = 0
    with pytest.raises(ShapeError, match="rows of non-zero norm"):
        fit((holed, labels), ADAMW)
    fit((holed, labels), SGD)
    with pytest.raises(ShapeError, match="`labels` must hold one label per row"):
        fit((rows, labels[:-1]), SGD)
    with pytest.raises(ShapeError, match="`labels` must be class indices from 0; got -1"):
        fit((rows, labels - 1), SGD)
    with pytest.raises(ShapeError, match="`features` must be a matrix"):
        fit((rows[:0], labels[:0]), SGD)
    with pytest.raises(ShapeError, match="multiple of 5 dimensions; got 9"):
        fit((rows[:, :9], labels), dataclasses.replace(SGD, inputs=("cls4",)))
    with pytest.raises(ShapeError, match="`features` and `test` must have the same number"):
        fit(data, dataclasses.replace(SGD, selection="test"), test=(rows[:, :9], labels))


def test_the_grid_lists_inputs_then_learning_rates():
    options = GradientOptions(inputs=("cls1", "cls4"), learning_rates=(0.1, 1.0))
    got = [(head.input, head.learning_rate) for head in grid(options)]
    assert got == [("cls1", 0.1), ("cls1", 1.0), ("cls4", 0.1), ("cls4", 1.0)]
