"""Shards are plain Zarr: what the direct writer makes, zarr-python reads, and the mapped reader."""

import json

import numpy as np
import pytest
import zarr

from featcache.errors import CorruptError
from featcache.store.layout import choose_layout, parse_layout
from featcache.store.shard import MappedShard, write_shard


def write(root, values):
    layout = choose_layout(len(values), values.shape[1:], values.dtype)
    root.mkdir(parents=True, exist_ok=True)
    (root / "zarr.json").write_text(json.dumps(layout.metadata()))
    for shard in range(layout.n_shards):
        path = root / layout.shard_path(shard)
        path.parent.mkdir(parents=True)
        start, stop = layout.bounds(shard)
        write_shard(path, np.array_split(values[start:stop], 7), layout, shard)
    return layout


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("shape", [(1, 3), (7, 5), (33, 16), (1000, 8), (513, 2, 3)])
def test_zarr_python_and_the_mapped_reader_give_back_the_rows(tmp_path, small_chunks, shape, dtype):
    values = np.random.default_rng(0).normal(size=shape).astype(dtype)
    layout = write(tmp_path / "a", values)
    array = zarr.open_array(tmp_path / "a", mode="r")
    assert array.dtype == dtype
    np.testing.assert_array_equal(array[...], values)
    for shard in range(layout.n_shards):
        start, stop = layout.bounds(shard)
        mapped = MappedShard(tmp_path / "a" / layout.shard_path(shard), layout, shard)
        out = np.empty((stop - start, *shape[1:]), dtype)
        mapped.read(0, out)
        np.testing.assert_array_equal(out, values[start:stop])
        rows = np.random.default_rng(1).integers(0, stop - start, 20)
        rows = rows[np.argsort(rows // layout.chunk_rows, kind="stable")]
        out = np.empty((20, *shape[1:]), dtype)
        mapped.take(rows, out)
        np.testing.assert_array_equal(out, values[start:stop][rows])


def test_a_shard_is_about_a_hundred_megabytes_at_768_float16():
    layout = choose_layout(10**6, (768,), "float16")
    assert (layout.chunk_rows, layout.shard_rows) == (4096, 65536)
    assert parse_layout(json.loads(json.dumps(layout.metadata()))) == layout


def test_a_small_set_is_one_chunk_without_padding():
    layout = choose_layout(300, (1280,), "float16")
    assert (layout.chunk_rows, layout.n_shards) == (300, 1)
    assert layout.shard_bytes(0) == 300 * 2560 + 4 + 16 + 4


def test_foreign_metadata_is_refused():
    metadata = choose_layout(300, (4,), "float16").metadata()
    metadata["codecs"][0]["configuration"]["index_location"] = "start"
    with pytest.raises(CorruptError, match="must be what featcache wrote"):
        parse_layout(metadata)
    with pytest.raises(CorruptError, match="must describe a sharded array"):
        parse_layout({"shape": "no"})


def test_every_flipped_bit_is_found_and_named_by_rows(tmp_path, small_chunks):
    values = np.random.default_rng(0).normal(size=(100, 8)).astype("float16")
    layout = write(tmp_path / "a", values)
    path = tmp_path / "a" / layout.shard_path(0)
    good = path.read_bytes()
    rng = np.random.default_rng(2)
    for position in rng.integers(0, len(good), 200):
        bad = bytearray(good)
        bad[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(bad)
        if position >= len(good) - layout.index_bytes:
            with pytest.raises(CorruptError, match="damaged index"):
                MappedShard(path, layout, 0)
            continue
        chunk = position // (layout.chunk_bytes + 4)
        first = chunk * layout.chunk_rows
        last = min(first + layout.chunk_rows, 100) - 1
        assert MappedShard(path, layout, 0).damaged_chunks() == [(first, last)]
        with pytest.raises(CorruptError, match=f"rows {first} to {last} do not"):
            MappedShard(path, layout, 0).read(0, np.empty((100, 8), "float16"))


@pytest.mark.parametrize("cut", [0, 10, -1])
def test_a_truncated_or_missing_shard_is_never_zeros(tmp_path, cut):
    values = np.ones((20, 4), "float16")
    layout = write(tmp_path / "a", values)
    path = tmp_path / "a" / layout.shard_path(0)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(CorruptError, match="must have .* bytes; it has"):
        MappedShard(path, layout, 0)
    path.unlink()
    with pytest.raises(CorruptError, match="it is missing"):
        MappedShard(path, layout, 0)


@pytest.mark.parametrize("rows", [19, 21])
def test_a_shard_with_too_few_or_too_many_rows_is_not_written(tmp_path, rows):
    layout = choose_layout(20, (4,), "float16")
    with pytest.raises(CorruptError, match="must hold rows 0 to 20"):
        write_shard(tmp_path / "s", [np.ones((rows, 4), "float16")], layout, 0)
