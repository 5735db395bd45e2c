"""`probe` through a recipe: learnt from training rows, measured against what is stored."""

import shutil

import numpy as np
import pytest
from PIL import Image

import featcache
from featcache.errors import OptionError, StoreError
from featcache.store.cache import Cache
from featcache.verbs.share import pull_sets, push_sets

COLOURS = [(190, 60, 60), (60, 190, 60), (90, 150, 90)]


def paint(folder, seed, n=20):
    """Write `n` noisy images per class; two of the three classes are easily confused."""
    rng = np.random.default_rng(seed)
    for number, colour in enumerate(COLOURS):
        (folder / f"class{number}").mkdir(parents=True)
        for i in range(n):
            noise = rng.integers(-90, 90, (8, 8, 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"class{number}" / f"{i:02d}.png")


@pytest.fixture
def photos(tmp_path, cache):
    paint(tmp_path / "photos" / "train", 0)
    paint(tmp_path / "photos" / "test", 1)
    featcache.extract(
        backbone="pixels", dataset=f"imagefolder:{tmp_path / 'photos'}", cache=cache.root
    )
    return "photos"


def probe(dataset, root, task="knn", **given):
    fields = {"backbone": "pixels", "task": task, "device": "cpu", "cache": root, **given}
    return featcache.probe(dataset=dataset, **fields)


def key_of(cache, split):
    return next(one.spec.key for one in cache.stored() if one.spec.dataset.split == split)


@pytest.mark.parametrize("task", ["knn", "linear", "retrieval"])
def test_a_recipe_is_scored_beside_what_is_stored(photos, cache, task):
    plain, _ = probe(photos, cache.root, task)
    result, stored = probe(photos, cache.root, task, derive="pca:8|l2")
    assert not stored
    assert result.record["backbone"] == "pixels|pca:8|l2"
    change = result.record["details"]["change"]
    assert change["against"] == plain.id
    assert change["metrics"][result.record["primary"]] == pytest.approx(result.score - plain.score)
    low, high = change["interval"]
    assert low <= result.score - plain.score <= high
    assert probe(photos, cache.root, task, derive="pca:8|l2")[1]


def test_a_recipe_that_changes_nothing_changes_no_score(photos, cache):
    result, _ = probe(photos, cache.root, derive="truncate:768")
    change = result.record["details"]["change"]
    assert set(change["metrics"].values()) == {0.0}
    assert change["interval"] == [0.0, 0.0]


def test_ood_scores_have_a_change_without_interval(photos, cache, tmp_path):
    paint(tmp_path / "other", 7, n=6)
    featcache.extract(
        backbone="pixels", dataset=f"imagefolder:{tmp_path / 'other'}", cache=cache.root
    )
    result, _ = probe(photos, cache.root, "ood", derive="pca:8", ood_datasets=["other"])
    assert result.record["details"]["change"]["interval"] is None


@pytest.mark.parametrize("task", ["knn", "retrieval"])
def test_a_recipe_learns_from_the_train_split_whatever_the_task(photos, cache, task):
    before, _ = probe(photos, cache.root, task, derive="pca:8")
    views = [
        featcache.derive(key_of(cache, split), "pca:8", cache=cache.root)
        for split in ("train", "test")
    ]
    assert before.record["inputs"]["test"]["key"] == views[1].key
    for view in views:
        featcache.store_view(view, cache=cache.root)
    after, stored = probe(photos, cache.root, task, derive="pca:8")
    assert (after.id, stored) == (before.id, True)


def test_what_was_learnt_from_test_rows_is_not_taken(photos, cache):
    test = key_of(cache, "test")
    cheat = featcache.derive(test, "pca:8", learn_from=[test], cache=cache.root)
    featcache.store_view(cheat, cache=cache.root)
    honest, _ = probe(photos, cache.root, "retrieval", derive="pca:8")
    assert honest.record["inputs"]["test"]["key"] != cheat.key


def test_a_dataset_without_splits_learns_from_its_part_that_is_train(cache, tmp_path):
    paint(tmp_path / "whole", 3)
    featcache.extract(
        backbone="pixels", dataset=f"imagefolder:{tmp_path / 'whole'}", cache=cache.root
    )
    first, _ = probe("whole", cache.root, derive="pca:8")
    other, _ = probe("whole", cache.root, derive="pca:8", seed=1)
    assert first.record["inputs"]["held_out"] == 0.2
    assert first.record["inputs"]["train"]["key"] != other.record["inputs"]["train"]["key"]
    with pytest.raises(StoreError, match="whole/train"):
        probe("whole", cache.root, "retrieval", derive="pca:8")
    assert probe("whole", cache.root, "retrieval", derive="l2")[0].score > 0


def test_backbones_side_by_side_are_probed_together(photos, cache):
    result, _ = probe(photos, cache.root, concat=["pixels"], derive="l2each")
    assert result.record["backbone"] == "pixels+pixels|l2each"
    assert result.record["details"]["change"]["metrics"]["top1"] == 0.0
    with pytest.raises(StoreError, match="none_such"):
        probe(photos, cache.root, concat=["none_such"])


@pytest.mark.parametrize(
    ("given", "message"),
    [({"derive": "pca"}, "needs a size"), ({"derive": "pca:9999"}, "at most the 768")],
)
def test_a_recipe_that_cannot_be_is_one_message(photos, cache, given, message):
    with pytest.raises(ValueError, match=message):
        probe(photos, cache.root, **given)


def test_codes_can_be_shared_without_the_features_they_were_made_of(photos, cache, tmp_path):
    for split in ("train", "test"):
        view = featcache.derive(key_of(cache, split), "pca:16|int8", cache=cache.root)
        featcache.store_view(view, cache=cache.root)
    (tmp_path / "remote").mkdir()
    remote = str(tmp_path / "remote")
    for one in cache.stored():
        if one.spec.derived:
            push_sets(remote, one.spec.key, cache=cache.root)
    here, _ = probe(photos, cache.root, derive="pca:16|int8")
    there = Cache(tmp_path / "there")
    told = []
    result, _ = probe(photos, there.root, derive="pca:16|int8", remotes=[remote], note=told.append)
    assert result.id == here.id
    assert result.score == here.score
    assert "change" not in result.record["details"]
    assert len(told) == 2
    with pytest.raises(StoreError):
        probe(photos, there.root, remotes=[remote])
    shutil.rmtree(there.root)
    streamed, _ = probe(photos, there.root, derive="pca:16|int8", remotes=[remote], stream=True)
    assert streamed.id == here.id
    assert not list(there.paths())


def test_nothing_is_fetched_for_the_comparison_alone(photos, cache, tmp_path):
    for split in ("train", "test"):
        view = featcache.derive(key_of(cache, split), "pca:16|int8", cache=cache.root)
        featcache.store_view(view, cache=cache.root)
    (tmp_path / "remote").mkdir()
    remote = str(tmp_path / "remote")
    push_sets(remote, cache=cache.root)
    there = Cache(tmp_path / "there")
    for one in cache.stored():
        if one.spec.derived:
            pull_sets(remote, one.spec.key, cache=there.root)
    result, _ = probe(photos, there.root, derive="pca:16|int8", remotes=[remote])
    assert "change" not in result.record["details"]
    assert all(one.spec.derived for one in there.stored())


def test_a_step_out_of_place_is_refused_before_anything_is_read(cache):
    with pytest.raises(OptionError, match="must be the last"):
        probe("nothing", cache.root, derive="int8|l2")
