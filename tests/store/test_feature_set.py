import shutil
from dataclasses import replace

import numpy as np
import pytest
import zarr

from featcache.errors import CorruptError, OptionError, ShapeError, StoreError, UnsealedError
from featcache.store.arrays import write_arrays
from featcache.store.feature_set import FeatureSet
from featcache.store.files import json_bytes, read_json
from featcache.store.layout import choose_layout
from featcache.store.writer import SetWriter
from tests.fakes import FakeBackbone, fake_split, fill, specs_for


@pytest.fixture
def one(cache, small_chunks):
    return fill(cache, fake_split(700, broken=[3, 699]))[0]


def test_the_set_is_plain_zarr_with_everything_a_probe_needs(one):
    group = one.zarr()
    assert isinstance(group, zarr.Group)
    assert sorted(group.array_keys()) == ["features", "ids", "labels", "status"]
    np.testing.assert_array_equal(group["features"][...], one.features())
    np.testing.assert_array_equal(group["labels"][...], one.labels)
    np.testing.assert_array_equal(group["status"][...] == 1, one.valid)
    assert group.attrs["spec"] == one.spec.to_json()
    assert group.attrs["sealed"]["digest"] == one.digest


def test_rows_come_in_any_order_repeated_masked_and_sliced(one):
    everything = one.features()
    rows = np.random.default_rng(0).integers(0, 700, 300)
    np.testing.assert_array_equal(one.features(rows), everything[rows])
    np.testing.assert_array_equal(one.features([-1, 5]), everything[[-1, 5]])
    np.testing.assert_array_equal(one.features(one.valid), everything[one.valid])
    np.testing.assert_array_equal(one.features(slice(10, 600, 7)), everything[10:600:7])
    np.testing.assert_array_equal(one.features(slice(130, 390)), everything[130:390])
    assert one.features([]).shape == (0, 8)


def test_a_buffer_is_filled_in_place_and_must_fit(one):
    out = np.empty((5, 8), "float16")
    assert one.features(range(5), out=out) is out
    np.testing.assert_array_equal(out, one.features()[:5])
    with pytest.raises(ShapeError, match=r"`out` must have shape \(4, 8\)"):
        one.features(range(4), out=out)


def test_batches_stream_all_rows_once(one):
    parts = list(one.batches(64))
    assert [start for start, _ in parts] == list(range(0, 700, 64))
    np.testing.assert_array_equal(np.concatenate([part for _, part in parts]), one.features())


def test_a_row_out_of_range_is_refused(one):
    with pytest.raises(OptionError, match="Rows must lie in 0 to 699; got 0 to 700"):
        one.features([0, 700])
    with pytest.raises(ShapeError, match="A mask must have shape"):
        one.features(np.ones(3, bool))


def test_the_table_leaves_out_unreadable_rows_and_keeps_ids_aligned(one):
    table = one.table()
    assert len(table) == 698
    assert "train/00003.png" not in table.ids
    np.testing.assert_array_equal(table.features, one.features()[one.valid])
    np.testing.assert_array_equal(table.labels, fake_split(700).labels[one.valid])
    assert dict(one.reasons) == dict.fromkeys((3, 699), "truncated: 3 bytes missing")


def test_an_unsealed_set_is_not_read(cache):
    split, backbone = fake_split(10), FakeBackbone()
    spec = specs_for(split, backbone)[0]
    SetWriter(cache.path_of(spec), spec, (8,))
    with pytest.raises(UnsealedError, match="must be sealed.*Run the same `featcache extract`"):
        FeatureSet(cache.path_of(spec))


def test_a_missing_set_says_how_to_list(tmp_path):
    with pytest.raises(StoreError, match="featcache ls features"):
        FeatureSet(tmp_path / "none.zarr")


@pytest.mark.parametrize("name", ["labels", "ids", "status"])
def test_a_missing_chunk_of_a_small_array_is_never_zeros(one, name):
    shutil.rmtree(one.path / name / "c")
    with pytest.raises(CorruptError, match="FileNotFoundError"):
        FeatureSet(one.path).arrays  # noqa: B018


def test_ids_in_any_script_survive(cache):
    split = fake_split(3)
    object.__setattr__(split, "ids", ("ä/ö.png", "日本/語 1.png", "a"))
    assert fill(cache, split)[0].ids.tolist() == ["ä/ö.png", "日本/語 1.png", "a"]


def claim_rows(one, rows):
    """Make a set say that it has more rows than it has."""
    group = read_json(one.path / "zarr.json")
    group["attributes"]["spec"]["dataset"]["rows"] = rows
    (one.path / "zarr.json").write_bytes(json_bytes(group))
    layout = choose_layout(rows, one.layout.row_shape, one.layout.dtype)
    (one.path / "features" / "zarr.json").write_bytes(json_bytes(layout.metadata()))
    return FeatureSet(one.path)


def test_nothing_is_allocated_for_rows_that_are_not_there(one):
    liar = claim_rows(one, 10**15)
    for rows in (None, slice(0, 10**14)):
        with pytest.raises(CorruptError, match="Shard 2"):
            liar.features(rows)
    with pytest.raises(CorruptError, match="must describe 1000000000000000 values"):
        liar.table()


def test_another_stored_type_than_the_spec_says_is_refused(one):
    layout = choose_layout(one.rows, one.layout.row_shape, "float32")
    (one.path / "features" / "zarr.json").write_bytes(json_bytes(layout.metadata()))
    with pytest.raises(CorruptError, match="must hold float16; its array is float32"):
        FeatureSet(one.path).features()


def test_a_label_outside_the_class_names_is_refused(one):
    labels = one.labels.copy()
    labels[5] = 3
    changed = replace(one.arrays, labels=labels)
    for name in ("labels", "ids", "status"):
        shutil.rmtree(one.path / name)
    write_arrays(one.path, changed)
    with pytest.raises(CorruptError, match="labels must lie in -1 to 2"):
        FeatureSet(one.path).labels  # noqa: B018
