"""Lazy views, and what is written down of them."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

import featcache
from featcache.derived.materialise import materialise
from featcache.derived.recipe import Recipe
from featcache.derived.view import DerivedSet, fit_recipe
from featcache.errors import CorruptError, OptionError, ShapeError, StoreError
from featcache.spec import ExtractionSpec
from featcache.store import writer
from featcache.store.arrays import write_arrays
from featcache.store.feature_set import FeatureSet
from featcache.store.verify import verify
from tests.fakes import FakeBackbone, fake_split, fill

RECIPES = ["l2", "zscore", "pca:3|l2", "whiten:4", "truncate:2", "int8", "pq:4", "pca:6|pq:2"]


@pytest.fixture
def train(cache, small_chunks):
    """Several shards, one row of it unreadable."""
    return fill(cache, fake_split(700, broken=[3]))[0]


@pytest.fixture
def test(cache, train):
    return fill(cache, fake_split(300, name="test", seed=5))[0]


def view(recipe, sources, learn=None):
    return DerivedSet(sources, fit_recipe(Recipe.parse(recipe), learn or sources))


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_is_written_down_is_what_was_seen(cache, train, test, recipe):
    seen = view(recipe, [test], [train])
    stored = materialise(seen, cache)
    assert verify(stored.path) == []
    assert (stored.key, stored.spec) == (seen.key, seen.spec)
    assert stored.provenance["view"] == seen.digest
    exact = stored.layout.dtype == "uint8"
    np.testing.assert_allclose(
        stored.features(), seen.features(), rtol=0 if exact else 1e-3, atol=0 if exact else 1e-3
    )
    np.testing.assert_array_equal(stored.table().ids, seen.table().ids)
    np.testing.assert_array_equal(stored.table().labels, seen.table().labels)


@pytest.mark.parametrize("recipe", ["int8", "pq:4"])
def test_stored_codes_are_read_by_rows_blocks_and_into_a_buffer(cache, train, recipe):
    stored = materialise(view(recipe, [train]), cache)
    whole = stored.features()
    assert (whole.dtype, whole.shape) == (np.float32, (700, *stored.row_shape))
    rows = [5, 699, 5, 0]
    np.testing.assert_array_equal(stored.features(rows), whole[rows])
    np.testing.assert_array_equal(np.concatenate([b for _, b in stored.batches(99)]), whole)
    out = np.empty((4, *stored.row_shape), np.float32)
    assert stored.features(rows, out=out) is out
    np.testing.assert_array_equal(out, whole[rows])
    with pytest.raises(ShapeError, match="float16"):
        stored.features(rows, out=out.astype(np.float16))
    codes = stored.zarr()["features"][:]
    np.testing.assert_array_equal(codes[4:], view(recipe, [train]).codes()[4:])


def test_unreadable_rows_are_left_out_of_the_fit_and_of_the_table(cache, train):
    valid = train.features()[train.valid].astype(np.float64)
    centred = view("center", [train])
    np.testing.assert_allclose(centred.table().features, valid - valid.mean(0), atol=1e-3)
    assert len(centred.table()) == 699
    stored = materialise(centred, cache)
    assert (list(stored.reasons), stored.valid.sum()) == ([3], 699)
    assert not stored.features([3]).any()


def test_a_fit_sees_the_training_rows_alone(train, test):
    mean = train.features()[train.valid].astype(np.float64).mean(0)
    found = view("center", [test], [train]).features()
    np.testing.assert_allclose(found, test.features() - mean, atol=1e-3)


def test_every_part_of_a_view_is_in_its_key(cache, train, test):
    wide = fill(cache, fake_split(300, name="test", seed=5), taps=("wide",))[0]
    views = [
        view("center", [test], [train]),
        view("center", [test], [test]),
        view("center|l2", [test], [train]),
        view("l2", [test]),
        view("l2", [wide]),
        view("l2", [test, wide]),
        view("l2", [wide, test]),
        view("l2each|l2", [test, wide]),
    ]
    keys = {one.key for one in views} | {test.key, wide.key, train.key}
    assert len(keys) == len(views) + 3
    assert view("l2", [test]).key == views[3].key
    for one in views:
        assert ExtractionSpec.from_json(one.spec.to_json()) == one.spec


def test_extracted_sets_keep_the_keys_they_had(train):
    assert "derived" not in train.spec.to_json()


def test_several_backbones_stand_side_by_side(cache, train):
    wide = fill(cache, fake_split(700, broken=[3]), taps=("wide",))[0]
    both = view("", [train, wide])
    expected = np.concatenate([train.features(), wide.features()], axis=1)
    np.testing.assert_array_equal(both.features(), expected)
    assert both.spec.backbone.name == "fake+fake"
    assert both.spec.tap == "pooled+wide"
    stored = materialise(both, cache)
    np.testing.assert_array_equal(stored.features(), expected)


def test_sets_of_other_images_are_not_put_side_by_side(cache, train, test):
    with pytest.raises(ShapeError, match=r"differ in .*fingerprint"):
        view("", [train, test])


def test_a_view_of_a_view_is_a_view(cache, train):
    stored = materialise(view("pca:4", [train]), cache)
    again = view("l2", [stored])
    assert again.spec.derived["parts"][0]["derived"]["recipe"] == "pca:4"
    np.testing.assert_allclose(np.linalg.norm(again.table().features, axis=1), 1, rtol=1e-5)


def test_writing_goes_on_where_it_was_stopped(cache, small_chunks, monkeypatch):
    wide = fill(cache, fake_split(700, broken=[3]), taps=("wide",))[0]
    whole = materialise(view("l2", [wide]), cache)
    shutil.rmtree(whole.path)
    write, calls = writer.write_shard, []

    def stop_at_third(*given):
        calls.append(given)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return write(*given)

    with monkeypatch.context() as broken:
        broken.setattr(writer, "write_shard", stop_at_third)
        with pytest.raises(KeyboardInterrupt):
            materialise(view("l2", [wide]), cache)
        with pytest.raises(StoreError, match="must be sealed"):
            FeatureSet(whole.path)
        assert materialise(view("l2", [wide]), cache).digest == whole.digest
    assert len(calls) == whole.layout.n_shards + 1
    assert not whole.path.with_suffix(".work").exists()


def test_a_value_that_does_not_fit_is_refused_and_nothing_is_stored(cache, small_chunks):
    tiny = FakeBackbone()
    tiny._weight *= 1e-5
    one = fill(cache, fake_split(100), tiny, stored="float32")[0]
    big = view("zscore", [one])
    big.fitted.steps[0].factor[:] = 1e30
    big.spec = replace(big.spec, numerics=replace(big.spec.numerics, stored="float16"))
    with pytest.raises(StoreError, match="at most 65504"):
        materialise(big, cache)
    assert len(list(cache.paths())) == 2
    assert [one.sealed is None for one in cache.stored()].count(True) == 1


def test_a_decoder_that_does_not_fit_is_corrupt(cache, train):
    stored = materialise(view("int8", [train]), cache)
    changed = replace(stored.arrays, decoder=np.zeros((2, 5), np.float32))
    for name in ("labels", "ids", "status", "decoder"):
        shutil.rmtree(stored.path / name)
    write_arrays(stored.path, changed)
    assert verify(stored.path)
    with pytest.raises(CorruptError, match="decoder must fit"):
        FeatureSet(stored.path).features()


def test_the_verb_finds_the_training_set_by_itself(cache, train, test):
    seen = featcache.derive(test.key[:8], "center", cache=cache.root)
    assert seen.key == view("center", [test], [train]).key
    stored = featcache.store_view(seen, cache=cache.root)
    assert featcache.open(stored.key, cache=cache.root).digest == stored.digest
    told = featcache.derive(test.key, "center", learn_from=[test.key], cache=cache.root)
    assert told.key == view("center", [test], [test]).key


def test_the_verb_refuses_what_cannot_be_had(cache, train, test):
    wide = fill(cache, fake_split(300, name="test", seed=5), taps=("wide",))[0]
    with pytest.raises(OptionError, match="got neither"):
        featcache.derive(test.key, cache=cache.root)
    with pytest.raises(OptionError, match="has 0 of fake/train"):
        featcache.derive(wide.key, "pca:3", cache=cache.root)
    with pytest.raises(OptionError, match="must be made like"):
        featcache.derive(wide.key, "pca:3", learn_from=[train.key], cache=cache.root)
    with pytest.raises(OptionError, match="must give codes"):
        view("l2", [test]).codes()
