"""`analyze` end to end, on images on disk and backbones without weights."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

import featcache
from featcache.errors import OptionError, ShapeError, StoreError
from featcache.head_store import StoredHead
from featcache.result_store import ResultStore
from featcache.store.cache import Cache
from featcache.verbs.report import leaderboard

COLOURS = [(190, 60, 60), (60, 190, 60), (90, 150, 90)]
SECOND = "random:test_vit"


def paint(folder, seed, n=14):
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
    source = f"imagefolder:{tmp_path / 'photos'}"
    featcache.extract(backbone="pixels", dataset=source, cache=cache.root)
    return source


@pytest.fixture
def second(photos, cache):
    featcache.extract(backbone=SECOND, dataset=photos, cache=cache.root)
    return SECOND


def analyze(cache, *backbones, **given):
    fields = {"dataset": "photos", "device": "cpu", "cache": cache.root, **given}
    return featcache.analyze(backbones=backbones or ["pixels"], **fields)


def test_one_backbone_is_analysed_without_its_images(photos, cache, tmp_path):
    shutil.rmtree(tmp_path / "photos")
    found, was_stored = analyze(cache)
    about = found.record["backbones"]["pixels"]
    assert not was_stored
    assert about["params_m"] == 0
    assert about["transferability"]["values"]["knn_loo"] > 0.5
    assert about["representation"]["values"]["rank_me"] > 1
    assert set(about["transferability"]["skipped"]) == {"leep", "nce", "energy"}
    assert found.record["pairs"] is None
    assert found.record["rows"]["sampled"] == 42
    assert json.loads(found.path.read_text()) == found.record


def test_a_second_run_reads_what_is_stored(photos, cache):
    first, _ = analyze(cache)
    again, was_stored = analyze(cache)
    assert was_stored
    assert again.id == first.id
    assert again.record == first.record
    assert analyze(cache, seed=1)[0].id != first.id
    assert analyze(cache, sample=20)[0].record["rows"]["sampled"] == 20


def test_an_analysis_is_never_in_a_report(photos, cache):
    found, _ = analyze(cache)
    assert found.path.is_relative_to(cache.root / "analysis")
    assert ResultStore(cache.root).all() == []
    assert leaderboard(featcache.results(cache=cache.root)).columns == ()
    fields = {"backbone": "pixels", "dataset": "photos", "device": "cpu", "cache": cache.root}
    featcache.probe(task="knn", **fields)
    board = leaderboard(featcache.results(cache=cache.root))
    assert [column.task for column in board.columns] == ["knn"]


def test_train_is_looked_at_unless_told_otherwise(photos, cache):
    assert analyze(cache)[0].record["split"] == "train"
    assert analyze(cache, split="test")[0].record["split"] == "test"


def test_the_values_of_a_backbone_do_not_depend_on_the_others(photos, second, cache):
    alone = analyze(cache)[0].record
    both = analyze(cache, "pixels", second)[0].record
    assert both["backbones"]["pixels"] == alone["backbones"]["pixels"]
    pairs = both["pairs"]
    assert pairs["names"] == ["pixels", second]
    assert 0 < pairs["matrices"]["cka"][0][1] < 1


def test_a_head_of_these_features_brings_its_scores(photos, cache):
    spec = next(cache.stored()).spec
    rng = np.random.default_rng(0)
    head = StoredHead(
        kind="native",
        weights=rng.normal(size=(768, 4)).astype(np.float32),
        bias=np.zeros(4),
        class_names=tuple("abcd"),
        backbone=spec.backbone,
        tap=spec.tap,
    )
    found, _ = analyze(cache, heads={"pixels": head})
    assert found.record["backbones"]["pixels"]["transferability"]["skipped"] == {}
    assert found.id != analyze(cache)[0].id
    other = StoredHead(
        kind="native",
        weights=head.weights,
        bias=head.bias,
        class_names=head.class_names,
        backbone=spec.backbone,
        tap="other",
    )
    with pytest.raises(OptionError, match="must read tap 'pooled' of weights"):
        analyze(cache, heads={"pixels": other})
    with pytest.raises(OptionError, match="must be of the backbones asked for, pixels"):
        analyze(cache, heads={"resnet50": head})


def test_what_is_not_there_is_refused(photos, cache):
    with pytest.raises(StoreError, match="featcache extract --backbone dino_vits16"):
        analyze(cache, "dino_vits16")
    with pytest.raises(StoreError, match="it has splits test, train"):
        analyze(cache, split="val")
    with pytest.raises(OptionError, match="one or more, each once"):
        analyze(cache, "pixels", "pixels")
    with pytest.raises(OptionError, match="`sample` must be at least 4"):
        analyze(cache, sample=3)


def test_unreadable_rows_are_left_out_for_all(tmp_path, cache):
    paint(tmp_path / "photos", 0)
    (tmp_path / "photos" / "class0" / "00.png").write_bytes(b"no image")
    source = f"imagefolder:{tmp_path / 'photos'}"
    featcache.extract(backbone="pixels", dataset=source, cache=cache.root)
    found, _ = analyze(Cache(cache.root), dataset=source)
    assert found.record["split"] == "all"
    assert found.record["rows"]["common"] == 41
    assert found.record["rows"]["missing_elsewhere"] == {"pixels": 0}


def test_features_that_are_no_vectors_are_refused(photos, cache, monkeypatch):
    from featcache.store.feature_set import FeatureSet

    monkeypatch.setattr(FeatureSet, "row_shape", (3, 16))
    with pytest.raises(ShapeError, match="one vector per image"):
        analyze(cache)
