from __future__ import annotations

import json

import numpy as np
import pytest

from featcache.errors import OptionError, StoreError
from featcache.store.cache import Cache
from featcache.verbs.probe import probe
from featcache.verbs.sensitivity import probe_all
from tests.fakes import fake_split, fill


@pytest.fixture
def cache(tmp_path):
    found = Cache(tmp_path / "cache")
    for name, rows, seed in (("train", 90, 0), ("val", 40, 1), ("test", 60, 2)):
        fill(found, fake_split(rows, seed=seed, name=name))
    return found


def asked(cache, **others):
    return {"backbone": "fake", "dataset": "fake", "cache": cache.root, **others}


def test_every_protocol_of_a_task_is_run_or_says_why_not(cache):
    tried = {one.protocol: one for one in probe_all(**asked(cache, task="linear"))}
    assert {"linear@1", "clip-paper-logreg@1", "clip-readme-logreg@1"} <= tried.keys()
    assert tried["linear@1"].result.record["protocol"] == "linear@1"
    assert tried["clip-paper-logreg@1"].result is not None
    assert tried["dinov2-logreg@1"].result is None
    assert "`transform.resize`" in tried["dinov2-logreg@1"].reason
    assert "`transform.resize`" in tried["vtab1k-linear@1"].reason
    again = {one.protocol: one for one in probe_all(**asked(cache, task="linear"))}
    assert again["linear@1"].was_stored


def test_protocols_that_need_other_datasets_say_so(cache):
    tried = {one.protocol: one for one in probe_all(**asked(cache, task="ood"))}
    assert tried["ood@1"].result is None
    assert tried["ood@1"].reason == "It needs --ood-dataset."
    with pytest.raises(OptionError, match="`task` must be one of"):
        probe_all(**asked(cache, task="lineer"))


def test_a_validation_split_chooses_and_is_part_of_the_question(cache):
    plain, _ = probe(**asked(cache, task="linear"))
    chosen, was_stored = probe(**asked(cache, task="linear", val_split="val"))
    assert not was_stored
    assert chosen.id != plain.id
    assert chosen.record["details"]["held_out_rows"] == 40
    assert chosen.record["details"]["rows_fitted"] == 130
    assert chosen.record["inputs"]["val"]["split"] == "val"
    assert plain.record["details"]["rows_fitted"] == 90
    with pytest.raises(StoreError, match="fake/valid"):
        probe(**asked(cache, task="linear", val_split="valid"))
    with pytest.raises(OptionError, match="'knn' takes no --val-split"):
        probe(**asked(cache, task="knn", val_split="val"))


def test_a_fitted_head_is_kept_and_can_be_applied(cache):
    fitted, _ = probe(**asked(cache, task="linear"))
    key = fitted.record["details"]["head_key"]
    applied, _ = probe(**asked(cache, task="head", head=key[:12], test_split="test"))
    assert applied.record["metrics"]["top1"] == fitted.record["metrics"]["top1"]
    np.testing.assert_array_equal(
        applied.predictions()["prediction"], fitted.predictions()["prediction"]
    )
    assert json.dumps(applied.record)


@pytest.mark.parametrize("split", ["test", "train"])
def test_a_validation_split_is_one_of_its_own(cache, split):
    with pytest.raises(OptionError, match="`--val-split` must be a split of its own"):
        probe(**asked(cache, task="linear", val_split=split))


def test_a_validation_split_is_for_the_protocols_that_take_one(cache):
    tried = {one.protocol: one for one in probe_all(**asked(cache, val_split="val"))}
    assert tried["knn@1"].result is not None
    assert tried["linear@1"].result.record["inputs"]["val"]["split"] == "val"


def test_a_head_scored_on_its_own_rows_is_told(cache):
    made, _ = probe(**asked(cache, task="linear", train_split="train", test_split="test"))
    head = made.record["details"]["head_key"]
    own, _ = probe(**asked(cache, task="head", head=head, test_split="train"))
    assert own.record["details"]["warnings"] == [
        "The classifier was fitted on rows of the very set that it is scored on."
    ]
    other, _ = probe(**asked(cache, task="head", head=head, test_split="test"))
    assert "warnings" not in other.record["details"]


def test_a_regression_is_given_no_probabilities(cache):
    splits = {"train_split": "train", "test_split": "test"}
    made, _ = probe(**asked(cache, task="ridge", **splits))
    head = made.record["details"]["head_key"]
    again, _ = probe(**asked(cache, task="head", head=head, test_split="test"))
    assert again.score == made.score
    assert not {"nll", "ece15", "brier"} & again.record["metrics"].keys()
