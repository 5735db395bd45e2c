from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from scipy.stats import ortho_group

from featcache.errors import ShapeError
from featcache.probes.catalog import load_protocol
from featcache.probes.run import run_task
from featcache.probes.tasks import TASKS, TaskInputs
from featcache.registry import load_target
from featcache.store.table import Table
from tests.probes.conftest import default_protocol

ALL = list(TASKS)
ROTATION_FREE = ["knn", "retrieval"]  # cosine alone; the others z-score each dimension


def change(inputs, function):
    return dataclasses.replace(
        inputs,
        train=function(inputs.train),
        test=function(inputs.test),
        texts=inputs.texts and function(inputs.texts),
        ood={name: function(table) for name, table in inputs.ood.items()},
    )


def rows(outcome):
    """Per-sample predictions as {(dataset, id): other columns}."""
    columns = dict(outcome.predictions)
    keys = zip(columns.pop("dataset", np.full(len(columns["id"]), "")), columns.pop("id"))  # noqa: B905
    return dict(zip(keys, zip(*columns.values(), strict=True), strict=True))


def assert_same(first, second, *, tolerance=1e-9):
    assert first.metrics == pytest.approx(second.metrics, abs=tolerance)
    assert first.primary == second.primary
    assert first.intervals.keys() == second.intervals.keys()
    for name, interval in first.intervals.items():
        assert interval == pytest.approx(second.intervals[name], abs=tolerance)


@pytest.mark.parametrize("task", ALL)
def test_an_outcome_is_complete(task, inputs):
    outcome = run_task(default_protocol(task), inputs)
    assert outcome.primary == TASKS[task].primary
    assert 0 <= outcome.metrics[outcome.primary] <= 1
    assert all(np.isfinite(list(outcome.metrics.values())))
    low, high = outcome.intervals[outcome.primary]
    assert low <= outcome.metrics[outcome.primary] <= high
    assert outcome.n == len(outcome.predictions["id"])
    assert json.loads(json.dumps(outcome.details)) == outcome.details
    assert {type(value) for value in outcome.metrics.values()} == {float}


@pytest.mark.parametrize("task", ALL)
def test_a_second_run_is_identical(task, inputs):
    first, second = (run_task(default_protocol(task), inputs) for _ in range(2))
    assert first.metrics == second.metrics
    assert first.intervals == second.intervals
    assert first.details == second.details


@pytest.mark.parametrize("task", ALL)
def test_the_order_of_the_rows_changes_nothing(task, inputs):
    rng = np.random.default_rng(0)
    shuffled = change(inputs, lambda table: table.take(rng.permutation(len(table))))
    first, second = (run_task(default_protocol(task), one) for one in (inputs, shuffled))
    assert_same(first, second)
    assert first.details == second.details
    got, expected = rows(first), rows(second)
    assert got.keys() == expected.keys()
    for key, values in got.items():
        np.testing.assert_allclose(values, expected[key], rtol=1e-5)


@pytest.mark.parametrize("task", ROTATION_FREE)
def test_a_rotation_and_a_scale_change_nothing_in_cosine_methods(task, inputs):
    rotation = ortho_group.rvs(12, random_state=0) * 3

    def rotate(table):
        return dataclasses.replace(table, features=table.features.astype(np.float64) @ rotation)

    first, second = (
        run_task(default_protocol(task), one) for one in (inputs, change(inputs, rotate))
    )
    assert_same(first, second)


def test_a_rotation_changes_nothing_in_clips_logistic_regression(inputs):
    rotation = ortho_group.rvs(12, random_state=0)

    def rotate(table):
        return dataclasses.replace(table, features=table.features.astype(np.float64) @ rotation)

    protocol = load_protocol("clip-paper-logreg@1")
    first, second = (run_task(protocol, one) for one in (inputs, change(inputs, rotate)))
    assert first.details["strength"] == second.details["strength"]
    assert_same(first, second)


@pytest.mark.parametrize("task", ALL)
def test_float16_features_score_as_float32_ones(task, inputs):
    def halve(table):
        return dataclasses.replace(table, features=table.features.astype(np.float16))

    first, second = (
        run_task(default_protocol(task), one) for one in (inputs, change(inputs, halve))
    )
    assert first.metrics == pytest.approx(second.metrics, abs=0.03)


@pytest.mark.parametrize("task", ALL)
def test_read_only_features_are_fine(task, inputs):
    def freeze(table):
        table.features.flags.writeable = False
        return table

    run_task(default_protocol(task), change(inputs, freeze))


def twice(table):
    """Each row a second time under another id."""
    return Table(
        features=np.repeat(table.features, 2, axis=0),
        labels=np.repeat(table.labels, 2),
        ids=np.array([f"{copy}-{name}" for name in table.ids for copy in "ab"]),
        class_names=table.class_names,
    )


@pytest.mark.parametrize("task", ["linear", "knn", "ood"])
def test_each_test_row_twice_keeps_every_mean(task, inputs):
    doubled = dataclasses.replace(
        inputs,
        test=twice(inputs.test),
        ood={name: twice(table) for name, table in inputs.ood.items()},
    )
    first, second = (run_task(default_protocol(task), one) for one in (inputs, doubled))
    depends_on_n = {"ece15_debiased", "aurc", "e_aurc"}  # what sampling adds; a curve's steps
    for name in first.metrics.keys() - depends_on_n:
        assert first.metrics[name] == pytest.approx(second.metrics[name], abs=1e-9), name
    assert second.n == 2 * first.n


@pytest.mark.parametrize("task", ALL)
def test_duplicate_rows_everywhere_are_handled(task, inputs):
    doubled = change(inputs, twice)
    rng = np.random.default_rng(0)
    shuffled = change(doubled, lambda table: table.take(rng.permutation(len(table))))
    first, second = (run_task(default_protocol(task), one) for one in (doubled, shuffled))
    assert_same(first, second)
    if task == "retrieval":
        assert first.metrics["hit_rate@1"] == 1.0  # the twin, never the query itself


@pytest.mark.parametrize("task", ["linear", "knn"])
def test_unlabelled_rows_are_dropped_and_counted(task, inputs):
    def blank(table):
        return dataclasses.replace(
            table, labels=np.where(np.arange(len(table)) < 9, -1, table.labels)
        )

    outcome = run_task(default_protocol(task), change(inputs, blank))
    assert outcome.details["dropped_unlabelled_train"] == 9
    assert outcome.details["dropped_unlabelled_test"] == 9
    assert outcome.n == 81


def test_unlabelled_rows_are_counted_beside_a_subset_of_classes(inputs):
    def blank(table):
        return dataclasses.replace(
            table, labels=np.where(np.arange(len(table)) < 9, -1, table.labels)
        )

    protocol = default_protocol("linear")
    options = {**protocol.options, "classes": ["class0", "class2"], "strengths": [0.1]}
    outcome = run_task(dataclasses.replace(protocol, options=options), change(inputs, blank))
    assert outcome.details["dropped_unlabelled_train"] == 9
    assert outcome.details["dropped_unlabelled_test"] == 9
    assert outcome.n == np.isin(inputs.test.labels[9:], [0, 2]).sum()
    assert set(outcome.predictions["label"]) == set(outcome.predictions["prediction"]) == {0, 2}


@pytest.mark.parametrize("task", ["linear", "knn"])
def test_a_test_class_absent_from_train_is_allowed_and_counted(task, inputs):
    train = inputs.train.take(inputs.train.labels != 2)
    outcome = run_task(default_protocol(task), dataclasses.replace(inputs, train=train))
    assert outcome.details["test_classes_absent_from_train"] == 1
    assert outcome.details["test_rows_of_absent_classes"] == (inputs.test.labels == 2).sum()
    assert 2 not in outcome.predictions["prediction"]


@pytest.mark.parametrize("task", ["linear", "knn", "ood"])
def test_a_train_set_of_one_class_still_answers(task, inputs):
    train = inputs.train.take(inputs.train.labels == 1)
    outcome = run_task(default_protocol(task), dataclasses.replace(inputs, train=train))
    if task == "ood":
        assert outcome.metrics["msp.auroc"] == 0.5  # one class: every probability is 1
    else:
        assert outcome.metrics["top1"] == (inputs.test.labels == 1).mean()


def test_a_k_above_the_train_rows_is_recorded(inputs):
    outcome = run_task(default_protocol("knn"), inputs)
    assert outcome.details["k_clamped"] == {"200": 160}
    assert {"top1@10", "top1@200", "top1"} <= outcome.metrics.keys()
    assert outcome.metrics["top1"] == outcome.metrics["top1@20"]


def test_leave_one_out_on_the_train_rows_finds_no_row_itself(inputs):
    protocol = dataclasses.replace(
        default_protocol("knn"), options={"k": [1], "primary_k": 1, "exclude_self": "id"}
    )
    own = dataclasses.replace(inputs, test=inputs.train)
    assert run_task(protocol, own).metrics["top1"] < 1
    protocol = dataclasses.replace(protocol, options={"k": [1], "primary_k": 1})
    assert run_task(protocol, own).metrics["top1"] == 1


def test_retrieval_drops_queries_without_relevant_items(inputs):
    labels = inputs.test.labels.copy()
    labels[:3], labels[3] = -1, 3
    labels[np.flatnonzero(labels == 3)[1:]] = 0
    test = dataclasses.replace(inputs.test, labels=labels)
    outcome = run_task(default_protocol("retrieval"), TaskInputs(test=test))
    assert outcome.details["dropped_unlabelled_queries"] == 3
    assert outcome.details["dropped_queries_without_relevant"] == 1
    assert outcome.n == 86


def test_retrieval_can_search_the_train_rows(inputs):
    protocol = dataclasses.replace(default_protocol("retrieval"), options={"gallery": "train"})
    outcome = run_task(protocol, inputs)
    assert outcome.details["gallery_rows"] == 160
    assert outcome.n == 90
    with pytest.raises(ShapeError, match="'retrieval' needs train rows"):
        run_task(protocol, dataclasses.replace(inputs, train=None))


def test_ood_names_the_positive_side_and_averages_over_sets(inputs):
    outcome = run_task(default_protocol("ood"), inputs)
    assert outcome.details["positive"]["fpr95_ood_pos"] == "ood"
    assert outcome.details["positive"]["aupr_id"] == "id"
    assert outcome.details["head"]["source"] == "linear probe on the ID train rows"
    for detector in ("msp", "maxlogit", "energy", "mahalanobis", "knn"):
        single = [outcome.metrics[f"{detector}.{name}.auroc"] for name in ("near", "far")]
        assert outcome.metrics[f"{detector}.auroc"] == pytest.approx(np.mean(single))
    assert outcome.metrics["auroc"] == outcome.metrics["knn.auroc"]
    assert outcome.predictions["is_ood"].sum() == 110
    assert set(outcome.predictions["dataset"]) == {"test", "near", "far"}


def test_ood_sets_that_are_the_test_rows_score_near_half(inputs):
    outcome = run_task(default_protocol("ood"), dataclasses.replace(inputs, ood={"d": inputs.test}))
    for detector in ("msp", "maxlogit", "energy", "mahalanobis", "knn"):
        assert outcome.metrics[f"{detector}.auroc"] == 0.5


@pytest.mark.parametrize("task", ALL)
def test_the_tasks_name_runners_that_exist(task):
    assert callable(load_target(default_protocol(task).runner))


def test_tables_that_do_not_fit_are_refused(inputs):
    linear, ood = default_protocol("linear"), default_protocol("ood")
    with pytest.raises(ShapeError, match="'linear' needs train rows"):
        run_task(linear, dataclasses.replace(inputs, train=None))
    with pytest.raises(ShapeError, match="needs at least one OOD dataset"):
        run_task(ood, dataclasses.replace(inputs, ood={}))
    with pytest.raises(ShapeError, match="must not be called 'test'"):
        run_task(ood, dataclasses.replace(inputs, ood={"test": inputs.test}))
    names = ("class0", "other", "class2", "class3")
    renamed = dataclasses.replace(inputs.train, class_names=names)
    with pytest.raises(ShapeError, match="first different at class 1: 'other' and 'class1'"):
        run_task(linear, dataclasses.replace(inputs, train=renamed))
    narrow = dataclasses.replace(inputs.ood["far"], features=inputs.ood["far"].features[:, :5])
    with pytest.raises(ShapeError, match="test has 12 and 'far' has 5"):
        run_task(ood, dataclasses.replace(inputs, ood={"far": narrow}))
    blank = dataclasses.replace(inputs.train, labels=np.full(160, -1))
    with pytest.raises(ShapeError, match="`train` must have labelled rows; got 160"):
        run_task(linear, dataclasses.replace(inputs, train=blank))


@pytest.mark.parametrize(
    ("value", "task", "message"),
    [
        (np.nan, "linear", "must be finite; 1 rows of 'train' are not, the first is image"),
        (0.0, "knn", "must be of non-zero norm, .* 1 rows of 'train' are not, the first is image"),
    ],
)
def test_an_image_without_usable_features_is_named(inputs, value, task, message):
    features = inputs.train.features.copy()
    features[17] = value
    train = dataclasses.replace(inputs.train, features=features)
    with pytest.raises(ShapeError, match=message) as error:
        run_task(default_protocol(task), dataclasses.replace(inputs, train=train))
    assert repr(str(inputs.train.ids[17])) in str(error.value)


def test_only_a_protocol_that_searches_train_needs_it():
    retrieval = default_protocol("retrieval")
    assert not retrieval.needs_train
    assert dataclasses.replace(retrieval, options={"gallery": "train"}).needs_train
