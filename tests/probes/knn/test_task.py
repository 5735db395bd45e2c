from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from featcache.errors import OptionError, ShapeError
from featcache.probes.catalog import default_protocol, load_protocol
from featcache.probes.knn.options import KnnOptions
from featcache.probes.options import parse_options
from featcache.probes.run import run_task
from featcache.probes.tasks import TaskInputs


@pytest.fixture
def inputs(make_table):
    return TaskInputs(
        train=make_table(160, seed=1, name="train"),
        test=make_table(90, seed=2, name="test"),
        seed=5,
    )


def run(inputs, **options):
    protocol = dataclasses.replace(default_protocol("knn"), options=options)
    return run_task(protocol, inputs)


def test_every_k_and_temperature_is_reported(inputs):
    outcome = run(inputs, k=[1, 5], primary_k=5, temperature=[0.07, 0.5], primary_temperature=0.5)
    assert set(outcome.metrics) == {
        f"{name}{end}"
        for name in ("top1", "mean_per_class")
        for end in ("", "@1", "@5", "@1,T=0.07", "@5,T=0.07")
    }
    assert outcome.metrics["top1"] == outcome.metrics["top1@5"]
    assert outcome.metrics["mean_per_class"] == outcome.metrics["mean_per_class@5"]
    assert {name for name in outcome.metrics if "top1" in name} == set(outcome.intervals)
    alone = run(inputs, k=[5], primary_k=5, temperature=[0.5], primary_temperature=0.5)
    assert alone.metrics["top1"] == outcome.metrics["top1"]
    assert outcome.details["primary_temperature"] == 0.5


@pytest.mark.parametrize("rows", [1, 2, 99])
def test_small_test_sets_and_single_queries_work(inputs, make_table, rows):
    small = dataclasses.replace(inputs, test=make_table(rows, seed=2, n_classes=4))
    outcome = run_task(load_protocol("dino-knn@1"), small)
    assert outcome.n == rows
    assert outcome.details["k_clamped"] == {"200": 160}


def test_dinov2_predicts_as_dino_does(inputs):
    first, second = (
        run_task(load_protocol(f"{name}-knn@1"), inputs) for name in ("dino", "dinov2")
    )
    np.testing.assert_array_equal(first.predictions["prediction"], second.predictions["prediction"])
    assert first.metrics == second.metrics


def test_leave_one_out_on_the_train_rows_finds_no_row_itself(inputs):
    own = dataclasses.replace(inputs, test=inputs.train)
    outcome = run(own, k=[1], primary_k=1, exclude_self="id")
    assert outcome.metrics["top1"] < 1
    assert outcome.details["queries_without_their_own_row"] == 160
    assert run(own, k=[1], primary_k=1).metrics["top1"] == 1
    shuffled = inputs.train.take(np.random.default_rng(0).permutation(160))
    again = run(dataclasses.replace(own, test=shuffled), k=[1], primary_k=1, exclude_self="id")
    assert again.metrics == outcome.metrics


def test_ids_of_near_copies_are_left_out(inputs):
    copies = inputs.train.ids[:3].tolist()
    outcome = run(
        dataclasses.replace(inputs, test=inputs.train.take(np.arange(3))),
        k=[1],
        primary_k=1,
        exclude_ids="\n".join([*copies, "absent", ""]),
    )
    rest = inputs.train.take(np.arange(3, 160))
    expected = run(
        dataclasses.replace(inputs, train=rest, test=inputs.train.take(np.arange(3))),
        k=[1],
        primary_k=1,
    )
    assert outcome.details["excluded_train_rows"] == 3
    np.testing.assert_array_equal(
        outcome.predictions["prediction"], expected.predictions["prediction"]
    )
    with pytest.raises(ShapeError, match="`exclude_ids` must leave train rows; it lists all 160"):
        run(inputs, exclude_ids="\n".join(inputs.train.ids))


@pytest.mark.parametrize("index", ["ivf", "hnsw", "pq", "ivfpq"])
def test_an_approximate_index_reports_its_recall(inputs, index):
    small = {"nlist": 4, "nprobe": 2, "pq_m": 4, "pq_bits": 4}
    outcome = run(inputs, k=[5, 10], primary_k=5, index=index, **small)
    assert 0 < outcome.metrics["recall_vs_flat@10"] <= 1
    assert outcome.details["index"]["kind"] == index
    assert outcome.details["index"]["recall_vs_flat"]["5"] == outcome.metrics["recall_vs_flat@5"]
    assert bool(outcome.details["warnings"]) == (index in ("pq", "ivfpq"))
    again = run(inputs, k=[5, 10], primary_k=5, index=index, **small)
    assert (again.metrics, again.details) == (outcome.metrics, outcome.details)


def test_an_exact_search_measures_no_recall(inputs):
    outcome = run_task(default_protocol("knn"), inputs)
    assert not any("recall" in name for name in outcome.metrics)
    assert outcome.details["search_notes"] == []


@pytest.mark.parametrize("name", ["knn@1", "dino-knn@1", "dinov2-knn@1"])
def test_the_protocols_write_out_every_option(name):
    import yaml

    from featcache.probes import protocols

    text = next(iter(protocols.__path__)) + f"/{name}.yaml"
    with open(text, encoding="utf-8") as file:  # noqa: PTH123
        written = yaml.safe_load(file)["options"]
    assert written.keys() == {field.name for field in dataclasses.fields(KnnOptions)}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"k": [20, 0]}, "from 1; got"),
        ({"k": [20, 20]}, "distinct whole numbers"),
        ({"k": [5]}, "`primary_k` must be one of `k`"),
        ({"temperature": 0.07}, "`temperature` must be a list"),
        ({"temperature": [0.0]}, "`temperature` must be between 0"),
        ({"temperature": [0.07, 0.07]}, "`temperature` must be distinct"),
        ({"temperature": []}, "`primary_temperature` must be one of `temperature`"),
        ({"primary_temperature": 0.1}, "`primary_temperature` must be one of `temperature`"),
        ({"vote": "exp"}, "`vote` must be one of exp_sim"),
        ({"vote": "inv_dist"}, "`metric` must be euclidean"),
        ({"metric": "euclidean"}, "must be cosine or dot for the vote 'exp_sim'"),
        ({"metric": "l2"}, "`metric` must be one of cosine"),
        ({"normalize": "none"}, "`normalize` must be 'l2' with the metric 'cosine'"),
        ({"normalize": "l1"}, "`normalize` must be one of l2, none"),
        ({"exclude_self": "first"}, "`exclude_self` must be one of none, id"),
        ({"index": "lsh"}, "`index` must be one of flat, ivf"),
        ({"nlist": 0}, "`nlist` must be at least 1"),
        ({"pq_bits": 17}, "`pq_bits` must be between 0 and 17"),
    ],
)
def test_options_out_of_range_are_refused(values, message):
    with pytest.raises(OptionError, match=message):
        parse_options(KnnOptions, values)
