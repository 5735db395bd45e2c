import json

import numpy as np
import pytest

from featcache.errors import OptionError, ShapeError
from featcache.result_store import Outcome, Question, ResultStore
from featcache.verbs.report import leaderboard, to_markdown


def question(**changes):
    fields = {
        "task": "knn",
        "protocol": "knn@1",
        "backbone": "pixels",
        "dataset": "digits",
        "tap": "pooled",
        "inputs": {"test": {"key": "k", "digest": "d", "rows": 3}},
        "options": {"k": [1]},
        "seed": 0,
    }
    return Question(**{**fields, **changes})


def outcome(score=0.5, **changes):
    fields = {
        "metrics": {"top1": score, "other": 1.0},
        "primary": "top1",
        "n": 3,
        "intervals": {"top1": (score - 0.1, score + 0.1)},
        "predictions": {"id": np.array(["a", "b", "c"]), "confidence": np.array([0.1, 0.2, 0.3])},
        "details": {"k": 1},
    }
    return Outcome(**{**fields, **changes})


def how(created="2026-01-01", seconds=1.0, extraction=None):
    return {
        "created": created,
        "seconds": seconds,
        "extraction_seconds": extraction or {"k": 2.0},
    }


@pytest.fixture
def store(tmp_path):
    return ResultStore(tmp_path)


def test_a_result_is_found_again_by_its_question_with_its_predictions(store):
    assert store.find(question()) is None
    store.save(question(), outcome(), how())
    found = store.find(question())
    assert found.score == 0.5
    np.testing.assert_array_equal(found.predictions()["id"], ["a", "b", "c"])
    np.testing.assert_array_equal(found.predictions()["confidence"], [0.1, 0.2, 0.3])


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"options": {"k": [2]}},
        {"protocol": "knn@2"},
        {"inputs": {"test": {"key": "k", "digest": "other", "rows": 3}}},
    ],
)
def test_whatever_changes_the_answer_changes_the_id(changes):
    assert question(**changes).id != question().id


def test_files_that_are_no_results_are_passed_over(store, tmp_path):
    store.save(question(), outcome(), how())
    (tmp_path / "results" / "digits" / "knn" / "x.json").write_text("{")
    (tmp_path / "results" / "digits" / "knn" / "y.json").write_text("[]")
    assert [one.score for one in store.all()] == [0.5]
    assert [one.score for one in store.all("digits/knn/*")] == [0.5]
    assert store.all("textures/*") == []


def test_a_metric_that_is_no_number_is_never_stored(store):
    with pytest.raises(OptionError, match="must be a finite number; got nan"):
        store.save(question(), outcome(score=float("nan")), how())
    assert store.find(question()) is None


def test_an_outcome_must_not_contradict_itself():
    with pytest.raises(ShapeError, match="`primary` must be one of the metrics; got 'top5'"):
        outcome(primary="top5")
    with pytest.raises(ShapeError, match="`predictions` must hold `id`"):
        outcome(predictions={"id": np.array(["a"]), "x": np.array([1, 2])})


def save(store, backbone, task, score, created="2026-01-01", **changes):
    asked = question(backbone=backbone, task=task, protocol=f"{task}@1", **changes)
    store.save(asked, outcome(score=score), how(created, extraction={backbone: 3.0}))


def test_the_leaderboard_compares_within_columns_and_shares_ties(store):
    for backbone, knn, linear in (("a", 0.9, 0.5), ("b", 0.8, 0.5), ("c", 0.7, 0.9)):
        save(store, backbone, "knn", knn)
        save(store, backbone, "linear", linear)
    board = leaderboard(store.all())
    assert [(row.backbone, row.mean_rank) for row in board.rows] == [
        ("c", 2.0),
        ("a", 1.75),
        ("b", 2.25),
    ]
    assert [row.mean_gap for row in board.rows] == pytest.approx([0.1, 0.2, 0.25])
    assert [column.title for column in board.columns] == ["digits knn top1", "digits linear top1"]
    assert board.rows[1].extraction_s == 3.0
    assert board.rows[1].probe_s == 2.0


def test_a_backbone_with_a_missing_cell_is_not_ahead_of_a_complete_one(store):
    save(store, "complete", "knn", 0.5)
    save(store, "complete", "linear", 0.5)
    save(store, "partial", "knn", 0.9)
    board = leaderboard(store.all())
    assert [row.backbone for row in board.rows] == ["complete", "partial"]
    assert "| partial | 90.0 [80.0, 100.0] | – |" in to_markdown(board)


def test_the_newest_result_of_a_cell_stands(store):
    save(store, "a", "knn", 0.9, created="2026-01-02", tap="cls")
    save(store, "a", "knn", 0.1, created="2026-01-01")
    assert leaderboard(store.all()).rows[0].cells[0].score == 0.9


def test_an_empty_leaderboard_says_so():
    assert to_markdown(leaderboard([])) == "No results yet.\n"


def test_a_record_is_plain_json_for_people(store):
    saved = store.save(question(), outcome(), how())
    record = json.loads(saved.path.read_text())
    assert record["metrics"] == {"top1": 0.5, "other": 1.0}
    assert record["predictions"] == saved.path.with_suffix(".parquet").name
