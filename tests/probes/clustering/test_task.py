from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from featcache.errors import OptionError, ShapeError
from featcache.probes.catalog import default_protocol
from featcache.probes.clustering.options import ClusteringOptions
from featcache.probes.options import parse_options
from featcache.probes.run import run_task
from featcache.probes.tasks import TaskInputs


def run(table, **options):
    protocol = dataclasses.replace(default_protocol("clustering"), options=options)
    return run_task(protocol, TaskInputs(test=table))


def test_matched_classes_are_right_as_often_as_accuracy_says(make_table):
    outcome = run(make_table(80))
    right = outcome.predictions["matched_class"] == outcome.predictions["label"]
    assert outcome.metrics["accuracy"] == pytest.approx(right.mean())
    assert len(outcome.details["restarts"]) == 10
    assert outcome.details["n_clusters"] == outcome.details["n_classes"] == 4
    best = min(outcome.details["restarts"], key=lambda one: one["inertia"])
    assert outcome.metrics["ami"] == best["ami"]


def test_clusters_beyond_the_classes_match_none(make_table):
    outcome = run(make_table(80), n_clusters=9)
    assert (outcome.predictions["matched_class"] == -1).any()
    assert outcome.metrics["homogeneity"] > outcome.metrics["completeness"]


def test_l2_sees_directions_and_none_sees_lengths(make_table):
    table = make_table(80)
    lengths = np.random.default_rng(0).choice([1.0, 1000.0], size=80)[:, None]
    scaled = dataclasses.replace(table, features=table.features * lengths)
    assert run(scaled).metrics["ami"] == pytest.approx(run(table).metrics["ami"], abs=1e-6)
    assert run(scaled, normalise="none").metrics["ami"] < run(table).metrics["ami"] - 0.2


def test_unlabelled_rows_are_left_out_and_classes_need_not_be_all_there(make_table):
    table = make_table(80)
    labels = np.where(np.arange(80) < 10, -1, table.labels)
    labels[labels == 2] = -1
    outcome = run(dataclasses.replace(table, labels=labels))
    assert outcome.n == (labels >= 0).sum()
    assert outcome.details["dropped_unlabelled_test"] == (labels < 0).sum()
    assert outcome.details["n_clusters"] == 3
    assert set(outcome.predictions["matched_class"]) <= {0, 1, 3}


def test_one_class_is_one_cluster(make_table):
    table = make_table(20)
    outcome = run(dataclasses.replace(table, labels=np.zeros(20, np.int64)))
    assert outcome.metrics["ami"] == outcome.metrics["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"restarts": 0}, "`restarts` must be at least 1"),
        ({"max_iter": 0}, "`max_iter` must be at least 1"),
        ({"n_clusters": -1}, "`n_clusters` must be at least 0"),
        ({"normalise": "l1"}, "`normalise` must be one of l2, none"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(OptionError, match=message):
        parse_options(ClusteringOptions, options)


def test_rows_that_cannot_be_clustered_are_refused(make_table):
    table = make_table(20)
    with pytest.raises(OptionError, match="between 1 and 20"):
        run(table, n_clusters=21)
    with pytest.raises(ShapeError, match="`test` must have labelled rows"):
        run(dataclasses.replace(table, labels=np.full(20, -1)))
    zero = dataclasses.replace(table, features=np.zeros_like(table.features))
    with pytest.raises(ShapeError, match="of non-zero norm"):
        run(zero)
