"""Laws that hold for every registered task, however it scores."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from featcache.errors import FeatcacheError, ShapeError
from featcache.probes.run import run_task
from featcache.probes.tasks import TASKS
from tests.probes.conftest import default_protocol

ALL = list(TASKS)
SEES_ORDER = {"gradient", "clustering"}  # start from weights drawn for each column, or from rows


def change(inputs, function):
    return dataclasses.replace(
        inputs,
        train=function(inputs.train),
        test=function(inputs.test),
        ood={name: function(table) for name, table in inputs.ood.items()},
    )


def attempt(task, inputs):
    """Return the outcome, or else the error."""
    try:
        return run_task(default_protocol(task), inputs), None
    except FeatcacheError as error:
        return None, error


def without_choice(task):
    """A protocol that holds no row out, as held-out rows are drawn class by class in turn."""
    protocol = default_protocol(task)
    options = dict(protocol.options)
    if task in {"linear", "multilabel"}:
        options["strengths"] = [0.1]
    if task == "ood":
        options["head"] = {**options["head"], "strengths": [0.1]}
    return dataclasses.replace(protocol, options=options)


@pytest.mark.parametrize("task", [task for task in ALL if task not in SEES_ORDER])
def test_the_numbers_of_the_classes_change_nothing(task, inputs):
    order = np.array([2, 0, 3, 1])  # new number of each class

    def renumber(table):
        names = tuple(table.class_names[old] for old in np.argsort(order))
        return dataclasses.replace(table, labels=order[table.labels], class_names=names)

    protocol = without_choice(task)
    first, second = (run_task(protocol, one) for one in (inputs, change(inputs, renumber)))
    assert first.metrics == pytest.approx(second.metrics, abs=1e-6)


@pytest.mark.parametrize("task", ALL)
def test_features_that_all_point_away_from_each_other_are_scored(task, inputs):
    """Cosines are then negative, which some libraries take for irrelevant."""

    def push(table):
        return dataclasses.replace(table, features=table.features - 3 * table.features.mean(axis=0))

    outcome = run_task(default_protocol(task), change(inputs, push))
    assert all(np.isfinite(list(outcome.metrics.values())))
    assert 0 <= outcome.metrics[outcome.primary] <= 1


@pytest.mark.parametrize("task", ALL)
def test_rows_that_are_all_equal_score_like_chance(task, inputs):
    def flatten(table):
        return dataclasses.replace(table, features=np.ones_like(table.features))

    flat = change(inputs, flatten)
    outcome = run_task(default_protocol(task), flat)
    assert all(np.isfinite(list(outcome.metrics.values())))
    if outcome.primary == "top1":
        most = np.bincount(inputs.test.labels).max() / len(inputs.test)
        assert outcome.metrics["top1"] <= most + 1e-9
    if task == "ood":
        assert outcome.metrics["auroc"] == 0.5


@pytest.mark.parametrize("task", ALL)
def test_a_zero_row_is_scored_or_its_image_named(task, inputs):
    features = inputs.test.features.copy()
    features[11] = 0
    broken = dataclasses.replace(inputs, test=dataclasses.replace(inputs.test, features=features))
    outcome, error = attempt(task, broken)
    assert (error is not None) == TASKS[task].needs_direction
    if error is not None:
        assert repr(str(inputs.test.ids[11])) in str(error)
    else:
        assert all(np.isfinite(list(outcome.metrics.values())))


@pytest.mark.parametrize("task", ALL)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused_with_the_image(task, value, inputs):
    features = inputs.test.features.copy()
    features[11, 3] = value
    broken = dataclasses.replace(inputs, test=dataclasses.replace(inputs.test, features=features))
    with pytest.raises(ShapeError, match="must be finite") as error:
        run_task(default_protocol(task), broken)
    assert repr(str(inputs.test.ids[11])) in str(error.value)


@pytest.mark.parametrize("task", ALL)
def test_one_class_alone_is_scored_or_refused_in_words(task, inputs):
    def one(table):
        return table.take(table.labels == 1)

    alone = dataclasses.replace(inputs, train=one(inputs.train), test=one(inputs.test))
    outcome, error = attempt(task, alone)
    assert (error is not None) == (task == "multilabel")  # it has no row outside the class
    if outcome is not None:
        assert all(np.isfinite(list(outcome.metrics.values())))
        if outcome.primary == "top1" and not TASKS[task].needs_head:
            assert outcome.metrics["top1"] == 1


@pytest.mark.parametrize("task", [task for task in ALL if TASKS[task].needs_train])
def test_a_class_without_train_rows_is_never_predicted(task, inputs):
    kept = inputs.train.take(inputs.train.labels != 2)
    outcome = run_task(default_protocol(task), dataclasses.replace(inputs, train=kept))
    assert all(np.isfinite(list(outcome.metrics.values())))
    if "prediction" in outcome.predictions:
        assert 2 not in outcome.predictions["prediction"]


@pytest.mark.parametrize("task", ALL)
def test_one_test_row_of_each_class_is_enough(task, inputs):
    rows = [int(np.flatnonzero(inputs.test.labels == c)[0]) for c in range(4)]
    few = dataclasses.replace(inputs, test=inputs.test.take(np.array(rows)))
    outcome, error = attempt(task, few)
    assert (error is not None) == (task == "retrieval")  # no row has another of its class
    if outcome is not None:
        assert outcome.n >= 4
        assert all(np.isfinite(list(outcome.metrics.values())))
