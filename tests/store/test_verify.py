import json
import shutil

import numpy as np
import pytest

from featcache.errors import UnsealedError
from featcache.store.verify import verify
from featcache.store.writer import SetWriter
from tests.fakes import FakeBackbone, fake_split, fill, specs_for


@pytest.fixture
def path(cache, small_chunks):
    return fill(cache, fake_split(600, broken=[3]))[0].path


def test_a_sealed_set_is_sound(path):
    assert verify(path) == []


def test_any_flipped_bit_in_any_file_is_found(path):
    rng = np.random.default_rng(0)
    files = [file for file in sorted(path.rglob("*")) if file.is_file()]
    assert len(files) > 8
    for file in files:
        good = file.read_bytes()
        for position in rng.integers(0, len(good), 12):
            bad = bytearray(good)
            bad[position] ^= 1 << int(rng.integers(8))
            file.write_bytes(bad)
            try:
                found = [str(problem) for problem in verify(path)]
            except Exception as error:
                found = [str(error)]
            assert found, (file, position)
        file.write_bytes(good)
    assert verify(path) == []


def test_a_damaged_row_range_is_named(path):
    shard = path / "features" / "c" / "1" / "0"
    data = bytearray(shard.read_bytes())
    data[5] ^= 1
    shard.write_bytes(data)
    assert [str(p) for p in verify(path)] == [
        "features/c/1/0 rows 256 to 271: do not match their CRC-32C"
    ]


def test_missing_truncated_swapped_and_extra_files_are_found(path):
    keep = path.with_name("keep")
    shutil.copytree(path, keep)

    def restored():
        shutil.rmtree(path)
        shutil.copytree(keep, path)
        return path / "features" / "c"

    shards = restored()
    (shards / "0" / "0").unlink()
    assert "features/c/0/0 rows 0 to 255: is missing" in map(str, verify(path))
    shards = restored()
    (shards / "0" / "0").write_bytes((shards / "0" / "0").read_bytes()[:-1])
    assert "bytes instead of" in str(verify(path)[0])
    shards = restored()
    (shards / "0" / "0").rename(shards / "x")
    (shards / "1" / "0").rename(shards / "0" / "0")
    (shards / "x").rename(shards / "1" / "0")
    assert len(verify(path)) == 2
    shards = restored()
    (shards / "9").write_bytes(b"")
    assert "features/c/9: is not in the manifest" in map(str, verify(path))


@pytest.mark.parametrize(
    "tamper",
    [
        lambda a: a["provenance"].update(batch_size=7),
        lambda a: a["spec"].update(tap="cls"),
        lambda a: a["sealed"].update(rows=7),
        lambda a: a["sealed"]["files"].pop(),
        lambda a: a.update(checksum="0" * 64),
        lambda a: a.update(more=1),
    ],
)
def test_tampered_metadata_is_found(path, tamper):
    group = json.loads((path / "zarr.json").read_text())
    tamper(group["attributes"])
    (path / "zarr.json").write_text(json.dumps(group))
    assert verify(path)


def test_a_set_moved_to_another_key_is_found(path):
    other = path.with_name("pooled-00000000000000000000.zarr")
    path.rename(other)
    assert "not to this directory" in str(verify(other)[0])


def test_an_unsealed_set_cannot_be_verified(cache):
    spec = specs_for(fake_split(10), FakeBackbone())[0]
    SetWriter(cache.path_of(spec), spec, (8,))
    with pytest.raises(UnsealedError):
        verify(cache.path_of(spec))
