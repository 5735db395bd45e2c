"""`probe --task imagetext`: captions are embedded when they are needed, and found again."""

import shutil

import numpy as np
import pytest

import featcache
from featcache.datasets.captions import captions
from featcache.errors import DatasetError, OptionError
from featcache.extraction.options import Options
from featcache.store.cache import Cache
from featcache.verbs.texts import embed_texts
from tests.datasets.miniatures import caption_table, picture
from tests.verbs.test_texts import TOWERS, _models, no_model  # noqa: F401  fixtures

IMAGES = {f"{number}.jpg": ("test", 5 + number % 3) for number in range(12)}


@pytest.fixture
def flickr(tmp_path, cache):
    """A folder with 12 images and their captions, extracted."""
    root = tmp_path / "flickr"
    caption_table(root / "dataset_flickr30k.json", IMAGES)
    for seed, name in enumerate(IMAGES):
        picture(root / "flickr30k-images" / name, seed)
    options = Options(device="cpu", batch_size=4, workers=0)
    featcache.extract(
        backbone=TOWERS,
        dataset=f"flickr30k@{root}?part",
        splits=["test"],
        taps=["projection"],
        cache=cache.root,
        options=options,
    )
    return f"flickr30k@{root}?part"


def run(cache, dataset, **given):
    asked = {"backbone": TOWERS, "task": "imagetext", "device": "cpu", **given}
    return featcache.probe(dataset=dataset, cache=cache.root, **asked)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1)[:, None]


def texts_of(cache):
    return [one for one in cache.stored("*/*/*") if one.spec.tap == "text"]


def test_captions_are_embedded_and_scored(flickr, cache):
    result, was_stored = run(cache, flickr)
    assert not was_stored
    (texts,) = texts_of(cache)
    assert (texts.spec.dataset.name, texts.spec.dataset.split) == ("flickr30k-part-texts", "test")
    assert result.record["inputs"]["texts"]["key"] == texts.spec.key
    images, written = (
        next(cache.stored(f"{name}/test/*")).open().table()
        for name in ("flickr30k-part", "flickr30k-part-texts")
    )
    rows, others = (unit(one.features.astype(np.float64)) for one in (images, written))
    nearest = [str(images.ids[row]) for row in (others @ rows.T).argmax(axis=1)]
    named = [str(name).rpartition("#") for name in written.ids]
    right = [
        image == found
        for (image, _, number), found in zip(named, nearest, strict=True)
        if int(number) < 5
    ]
    assert len(right) == 60
    assert result.record["metrics"]["text_to_image.recall@1"] == pytest.approx(np.mean(right))
    assert result.record["primary"] == "mean_recall"
    assert result.record["tap"] == "projection"


def test_a_second_run_embeds_nothing_and_needs_no_files(flickr, cache, no_model):  # noqa: F811
    first, _ = run(cache, flickr)
    no_model()
    again, was_stored = run(cache, flickr)
    assert was_stored
    shutil.rmtree(flickr.partition("@")[2].removesuffix("?part"))
    elsewhere, was_stored = run(cache, "flickr30k?part", seed=0)
    assert was_stored
    assert again.id == elsewhere.id == first.id


def test_captions_of_some_images_alone_are_not_taken_for_all(flickr, cache):
    few = captions(flickr, "test", images=set(list(IMAGES)[:6]))
    embed_texts(TOWERS, few, cache=cache.root)
    result, _ = run(cache, flickr)
    assert result.record["details"]["images"] == 12
    assert len(texts_of(cache)) == 2


def test_a_part_of_the_images_has_its_own_captions(flickr, cache):
    options = Options(device="cpu", batch_size=4, workers=0)
    part = f"{flickr}&rows=4"
    featcache.extract(
        backbone=TOWERS, dataset=part, splits=["test"], cache=cache.root, options=options
    )
    result, _ = run(cache, part)
    (texts,) = texts_of(cache)
    assert texts.spec.dataset.name == "flickr30k-part-4-texts"
    assert result.record["details"]["captions"] == 20
    assert texts.spec.dataset.rows < 4 * 7


def test_what_has_no_captions_or_lies_elsewhere_is_refused(flickr, cache):
    with pytest.raises(OptionError, match="reads the tap 'projection'.*got --tap preprojection"):
        run(cache, flickr, tap="preprojection")
    for view in ({"derive": "l2"}, {"concat": ("pixels",)}):
        with pytest.raises(OptionError, match="Leave --derive and --concat out"):
            run(cache, flickr, **view)
    with pytest.raises(OptionError, match="there for coco-captions, flickr30k, flickr8k"):
        run(cache, "digits?rows=20")
    shutil.rmtree(flickr.partition("@")[2].removesuffix("?part"))
    with pytest.raises(DatasetError, match="The files of flickr30k must lie"):
        run(cache, flickr)


def test_features_of_another_tap_are_refused_by_key(flickr, cache):
    options = Options(device="cpu", batch_size=4, workers=0)
    featcache.extract(
        backbone=TOWERS,
        dataset=flickr,
        splits=["test"],
        taps=["preprojection"],
        cache=cache.root,
        options=options,
    )
    found = Cache(cache.root).stored("flickr30k-part/test/*")
    key = next(one.spec.key for one in found if one.spec.tap != "projection")
    with pytest.raises(OptionError, match="has tap 'preprojection'. Choose another set"):
        run(cache, flickr, key=key)
