"""The tasks `retrieval` and `copydetection` with their options and files."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import numpy as np
import pytest

from featcache.errors import OptionError, ShapeError
from featcache.probes.catalog import default_protocol
from featcache.probes.options import parse_options
from featcache.probes.retrieval.copy_options import CopyOptions
from featcache.probes.retrieval.ground_truth import read_ground_truth, read_id_lists
from featcache.probes.retrieval.options import RetrievalOptions
from featcache.probes.run import run_task
from featcache.probes.tasks import TaskInputs
from featcache.store.table import Table


@pytest.fixture
def inputs(make_table):
    return TaskInputs(
        test=make_table(60, seed=2, name="test"),
        train=make_table(90, seed=1, name="train"),
        ood={"far": make_table(50, seed=4, world=9, name="far")},
    )


def run(inputs, task="retrieval", **options):
    return run_task(dataclasses.replace(default_protocol(task), options=options), inputs)


def write(path, data):
    path.write_text(json.dumps(data))
    return str(path)


def plane(angles, labels=None, prefix="g"):
    """Unit rows in the plane: the nearer in angle, the more similar."""
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    labels = np.full(len(angles), -1) if labels is None else np.array(labels)
    names = np.array([f"{prefix}{i}" for i in range(len(angles))])
    return Table(features=rows, labels=labels, ids=names, class_names=("a", "b"))


def test_the_three_settings_of_oxford_and_paris_by_hand(tmp_path):
    gallery = plane(np.arange(6) / 10)  # g0 is nearest to the query, then g1, ...
    truth = {"q0": {"easy": ["g1"], "hard": ["g3"], "junk": ["g0"]}, "nobody": {"easy": ["g1"]}}
    path = write(tmp_path / "truth.json", truth)
    outcome = run(
        TaskInputs(test=plane(np.zeros(2), prefix="q"), train=gallery),
        gallery="train",
        ground_truth=path,
        convention="revisited",
        k=[1, 5],
    )
    # easy: g1 first of g1 g2 g4 g5; medium: g1, g3 at 1 and 3; hard: g3 at 2 of g2 g3 g4 g5
    medium = (1 + (1 / 2 + 2 / 3) / 2) / 2
    assert outcome.metrics["easy.mean_average_precision"] == 1.0
    assert outcome.metrics["medium.mean_average_precision"] == pytest.approx(medium)
    assert outcome.metrics["mean_average_precision"] == pytest.approx(medium)
    assert outcome.metrics["hard.mean_average_precision"] == 0.25
    assert outcome.metrics["medium.precision@5"] == pytest.approx(2 / 3)
    assert outcome.details["ground_truth_sha256"] == (
        hashlib.sha256((tmp_path / "truth.json").read_bytes()).hexdigest()
    )
    assert outcome.details["dropped_rows_without_ground_truth"] == 1
    assert outcome.details["queries_without_features"] == 1
    assert outcome.n == 1


def test_relevant_ids_that_the_gallery_lacks_lower_recall_and_are_counted(tmp_path):
    path = write(tmp_path / "truth.json", {"q0": ["g0", "gone"]})
    inputs = TaskInputs(test=plane([0.0], prefix="q"), train=plane(np.arange(3) / 10))
    outcome = run(inputs, gallery="train", ground_truth=path)
    assert outcome.metrics["mean_average_precision"] == 0.5
    assert outcome.details["relevant_absent_from_gallery"] == 1
    assert "hard.mean_average_precision" not in outcome.metrics  # nothing is hard in this file


def test_bob_divides_reciprocal_ranks_by_all_queries(make_table):
    gallery = plane(np.arange(4) / 10, [0, 1, 0, 0])
    queries = plane([0.11, 0.0], [0, 1], prefix="q")
    queries = dataclasses.replace(queries, labels=np.array([0, 1]))
    alone = dataclasses.replace(gallery, labels=np.array([0, 0, 0, 0]))
    inputs = TaskInputs(test=queries, train=alone)
    bob = run(inputs, gallery="train", convention="bob")
    assert bob.metrics["mean_reciprocal_rank"] == 0.5  # the second query finds nothing
    assert bob.metrics["mean_average_precision"] == 1.0
    assert bob.n == 1
    zero = run(inputs, gallery="train", without_relevant="zero")
    assert zero.metrics["mean_average_precision"] == 0.5
    assert zero.n == 2


def test_gpr1200_keeps_the_query_in_its_ranking_and_reports_domains():
    table = plane(np.array([0, 0.1, 1.0, 1.1, 2.0]), [0, 1, 0, 1, 0])
    names = np.array(["sketch/a", "sketch/b", "faces/a", "faces/b", "faces/c"])
    table = dataclasses.replace(table, ids=names)
    outcome = run(TaskInputs(test=table), exclude_self=False, domains=True)
    assert outcome.metrics["hit_rate@1"] == 1.0
    by_id = dict(zip(outcome.predictions["id"], outcome.predictions["average_precision"]))  # noqa: B905
    assert by_id["sketch/b"] == pytest.approx((1 + 2 / 4) / 2)  # itself, a, faces/a, faces/b
    for domain in ("sketch", "faces"):
        values = [value for name, value in by_id.items() if name.startswith(domain)]
        got = outcome.metrics[f"domain.{domain}.mean_average_precision"]
        assert got == pytest.approx(np.mean(values))
    flat = dataclasses.replace(table, ids=np.char.replace(names, "/", "-"))
    assert not any("domain" in n for n in run(TaskInputs(test=flat), domains=True).metrics)


def test_near_duplicates_of_a_list_are_not_found(inputs, tmp_path):
    rows = np.concatenate([inputs.test.features, inputs.train.features])
    train = dataclasses.replace(
        inputs.train,
        features=rows,
        labels=np.concatenate([inputs.test.labels, inputs.train.labels]),
        ids=np.concatenate([np.char.add("copy-", inputs.test.ids), inputs.train.ids]),
    )
    leaky = dataclasses.replace(inputs, train=train)
    path = write(tmp_path / "near.json", {name: [f"copy-{name}"] for name in inputs.test.ids})
    assert run(leaky, gallery="train").metrics["hit_rate@1"] == 1.0
    clean = run(leaky, gallery="train", exclude=path)
    assert clean.metrics["hit_rate@1"] < 1.0
    assert clean.details["excluded_pairs"] == 60
    for name in inputs.test.ids[:3]:  # as if the copy had never been in the gallery
        alone = TaskInputs(
            test=inputs.test.take(inputs.test.ids == name),
            train=train.take(train.ids != f"copy-{name}"),
        )
        expected = run(alone, gallery="train").predictions["average_precision"][0]
        got = clean.predictions["average_precision"][clean.predictions["id"] == name]
        assert got == pytest.approx(expected)


def test_macro_means_weigh_classes_alike(inputs):
    keep = (inputs.test.labels != 0) | (np.arange(60) < 20)
    outcome = run(TaskInputs(test=inputs.test.take(keep)))
    labels, values = (outcome.predictions[n] for n in ("label", "average_precision"))
    means = [values[labels == label].mean() for label in np.unique(labels)]
    assert outcome.metrics["macro.mean_average_precision"] == pytest.approx(np.mean(means))
    assert outcome.metrics["mean_average_precision"] == pytest.approx(values.mean())


def test_whitening_by_train_rows_is_inductive_and_by_the_gallery_is_named(inputs):
    plain = run(inputs)
    white = run(inputs, whitening={"fit": "train", "dimension": 5})
    assert white.details["whitening"] == {"rows": 90, "dimension": 5}
    assert white.metrics.keys() == plain.metrics.keys()
    assert white.metrics["mean_average_precision"] != plain.metrics["mean_average_precision"]
    leaky = run(inputs, whitening={"fit": "gallery"}, transductive=True)
    assert leaky.primary == "transductive.mean_average_precision"
    assert all(name.startswith("transductive.") for name in leaky.metrics)
    assert all(name.startswith("transductive.") for name in leaky.intervals)
    assert leaky.details["transductive_steps"] == ["whitening.fit: gallery"]


def test_neighbours_help_where_classes_are_clusters(inputs):
    plain = run(inputs).metrics["mean_average_precision"]
    for options in (
        {"query_expansion": {"neighbours": 3}},
        {"gallery": "train", "query_expansion": {"neighbours": 3}},
        {"gallery": "train", "database_augmentation": {"neighbours": 3}},
    ):
        assert run(inputs, **options).metrics["mean_average_precision"] > plain
    again = run(inputs, transductive=True, reranking={"k1": 10, "k2": 3})
    assert again.metrics["transductive.mean_average_precision"] > plain
    joint = run(inputs, transductive=True, gallery="train", reranking={"k1": 10, "k2": 3})
    assert joint.metrics["transductive.mean_average_precision"] > plain


@pytest.mark.parametrize(
    "options",
    [
        {"ties": "pessimistic"},
        {"ties": "average"},
        {"query_expansion": {"neighbours": 4}, "whitening": {"fit": "train"}},
        {"transductive": True, "reranking": {"k1": 5}},
        {"transductive": True, "database_augmentation": {"neighbours": 4}},
    ],
)
def test_the_order_of_the_rows_changes_nothing(inputs, options):
    rng = np.random.default_rng(0)
    shuffled = TaskInputs(
        test=inputs.test.take(rng.permutation(60)), train=inputs.train.take(rng.permutation(90))
    )
    first, second = run(inputs, **options), run(shuffled, **options)
    assert first.metrics == pytest.approx(second.metrics, abs=1e-9)
    assert first.details == second.details
    assert first.intervals.keys() == second.intervals.keys()


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (RetrievalOptions, {"whitening": {"fit": "gallery"}}, "needs `transductive: true`"),
        (RetrievalOptions, {"whitening": {"fit": "train"}, "gallery": "train"}, "whitening.fit"),
        (RetrievalOptions, {"reranking": {"k1": 20}}, "got reranking"),
        (RetrievalOptions, {"database_augmentation": {"neighbours": 1}}, "got database_aug"),
        (RetrievalOptions, {"ties": "average", "convention": "bob"}, "`ties: average` needs"),
        (RetrievalOptions, {"whitening": {"fit": "background"}}, "must be one of none, train"),
        (RetrievalOptions, {"whitening": {"floor": 2.0}}, "must be within 0 and 1"),
        (RetrievalOptions, {"reranking": {"weight": -0.1}}, "must be within 0 and 1"),
        (RetrievalOptions, {"setting": "meduim"}, "Did you mean 'medium'"),
        (
            RetrievalOptions,
            {"transductive": True, "reranking": {"k1": 2}, "query_expansion": {"neighbours": 1}},
            "needs `gallery: train`",
        ),
        (CopyOptions, {"normalisation": {"neighbours": 3}}, "needs `background: other`"),
        (CopyOptions, {"whitening": {"fit": "background"}}, "needs `background: other`"),
        (CopyOptions, {"whitening": {"fit": "gallery"}}, "needs `transductive: true`"),
        (CopyOptions, {"whitening": {"fit": "train"}}, "none, background, gallery"),
        (CopyOptions, {"candidates": 0}, "`candidates` must be at least 1"),
    ],
)
def test_options_out_of_range_are_refused(kind, values, message):
    with pytest.raises(OptionError, match=message):
        parse_options(kind, values)


def test_missing_rows_and_wrong_files_are_refused(inputs, tmp_path):
    no_train = dataclasses.replace(inputs, train=None)
    with pytest.raises(ShapeError, match="needs train rows; got none"):
        run(no_train, whitening={"fit": "train"})
    with pytest.raises(ShapeError, match="At least one query must have a relevant item"):
        run(TaskInputs(test=inputs.test.take(np.unique(inputs.test.labels, return_index=True)[1])))
    path = write(tmp_path / "truth.json", {"stranger": ["a"]})
    with pytest.raises(OptionError, match="none of whose 1 queries is one"):
        run(inputs, ground_truth=path)
    with pytest.raises(OptionError, match="must be a JSON file that can be read"):
        run(inputs, ground_truth=str(tmp_path / "absent.json"))
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(OptionError, match="must be a JSON file that can be read"):
        read_id_lists(str(tmp_path / "broken.json"))
    with pytest.raises(OptionError, match="must hold one mapping from query ids; got list"):
        read_id_lists(write(tmp_path / "list.json", []))
    with pytest.raises(OptionError, match="must give each id a list of ids; got 'b' for 'a'"):
        read_id_lists(write(tmp_path / "text.json", {"a": "b"}))
    for entry in ({"esay": []}, {"easy": "g1"}, 3, [1]):
        with pytest.raises(OptionError, match="lists named easy, hard and junk"):
            read_ground_truth(write(tmp_path / "level.json", {"q": entry}))


def test_copy_detection_reads_matches_and_leaves_other_queries_without(tmp_path):
    references = plane(np.array([0.0, 1.0, 2.0]), prefix="r")
    queries = plane(np.array([0.1, 1.05, 2.5]), prefix="q")
    path = write(tmp_path / "matches.json", {"q0": ["r0"], "q1": ["r1", "gone"], "q9": ["r0"]})
    inputs = TaskInputs(test=queries, train=references)
    outcome = run(inputs, "copydetection", ground_truth=path)
    assert outcome.metrics["micro_ap"] == pytest.approx(2 / 3)  # q1-r1, q0-r0, one is gone
    assert outcome.details["true_matches"] == 3
    assert outcome.details["queries_without_match"] == 1
    assert outcome.details["matches_absent_from_references"] == 1
    assert outcome.details["ground_truth_queries_without_features"] == 1
    assert outcome.predictions["best_is_match"].tolist() == [True, True, False]
    assert outcome.predictions["match_rank"].tolist() == [1, 1, 0]


def test_normalised_scores_compare_across_queries():
    # q0 is near to everything, so its wrong pair outranks the right pair of q1
    references = plane(np.array([0.0, 1.5]), [0, 1], prefix="r")
    queries = plane(np.array([0.2, 1.9]), [-1, 1], prefix="q")
    background = plane(np.array([0.2, 0.25, -0.2]), prefix="b")
    inputs = TaskInputs(test=queries, train=references, ood={"b": background})
    plain = run(inputs, "copydetection")
    assert plain.metrics["micro_ap"] == 0.5
    assert plain.intervals["micro_ap"][0] <= 0.5 <= plain.intervals["micro_ap"][1]
    options = {"background": "other", "normalisation": {"neighbours": 2}}
    normalised = run(inputs, "copydetection", **options)
    assert normalised.metrics["micro_ap"] == 1.0
    assert normalised.details["background_rows"] == 3
    with pytest.raises(ShapeError, match="`background: other` needs rows of another dataset"):
        run(dataclasses.replace(inputs, ood={}), "copydetection", **options)


def test_copies_are_whitened_by_the_background_or_named(inputs):
    options = {"background": "other", "whitening": {"fit": "background"}}
    white = run(inputs, "copydetection", **options)
    assert white.details["whitening"] == {"rows": 50, "dimension": 12}
    assert white.primary == "micro_ap"
    leaky = run(inputs, "copydetection", whitening={"fit": "gallery"}, transductive=True)
    assert leaky.primary == "transductive.micro_ap"
    assert leaky.details["whitening"]["rows"] == 90


def test_copy_detection_without_matches_is_refused(inputs):
    blank = dataclasses.replace(inputs.test, labels=np.full(60, -1))
    with pytest.raises(ShapeError, match="At least one query must have a true match"):
        run(dataclasses.replace(inputs, test=blank), "copydetection")
