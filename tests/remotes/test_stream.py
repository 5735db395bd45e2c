"""Sets read where they lie: only what is asked for travels, and nothing is believed unchecked."""

import json
from concurrent.futures import ThreadPoolExecutor

import crc32c
import numpy as np
import pytest

import featcache
from featcache.digest import blake3_bytes
from featcache.errors import CorruptError, OptionError, RemoteError
from featcache.remotes.chunks import CHUNKS, ChunkCache
from featcache.remotes.pointer import pointer_name, set_name
from featcache.remotes.push import push
from featcache.remotes.stream import attach
from featcache.store.cache import Cache
from featcache.store.layout import CRC_BYTES
from featcache.verbs.share import write_index
from tests.remotes.servers import web_server

ROOM = 1 << 30


class Counting:
    """A remote that counts what is read of features."""

    def __init__(self, inner):
        self._inner, self.ranges = inner, []

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def read(self, name, start, stop):
        if "/features/c/" in name:
            self.ranges.append((name, start, stop))
        return self._inner.read(name, start, stop)

    def blocks(self, name):
        assert "/features/c/" not in name
        return self._inner.blocks(name)


@pytest.fixture
def other(tmp_path):
    return Cache(tmp_path / "other")


@pytest.fixture
def counting(one, transport):
    push(one.path, transport)
    return Counting(transport)


def streamed(one, remote, cache, room=ROOM):
    return attach(pointer_name(one.spec), remote, cache, spec=one.spec, limit_bytes=room)


def test_a_streamed_set_is_the_set(one, counting, other):
    far = streamed(one, counting, other)
    assert not counting.ranges
    np.testing.assert_array_equal(far.ids, one.ids)
    np.testing.assert_array_equal(far.labels, one.labels)
    assert far.reasons == one.reasons
    assert not counting.ranges
    np.testing.assert_array_equal(far.features(), one.features())
    np.testing.assert_array_equal(far.table().features, one.table().features)
    blocks = [block for _, block in streamed(one, counting, other).batches(99)]
    np.testing.assert_array_equal(np.concatenate(blocks), one.features())
    n_chunks = sum(one.layout.n_chunks(shard) for shard in range(one.layout.n_shards))
    assert len(counting.ranges) == n_chunks
    assert not list(other.paths())


def test_only_the_chunks_of_the_rows_asked_for_travel(one, counting, other):
    far = streamed(one, counting, other)
    rows = [650, 1, 0, 650]
    np.testing.assert_array_equal(far.features(rows), one.features(rows))
    size = one.layout.chunk_bytes + CRC_BYTES
    assert sorted(stop - start for _, start, stop in counting.ranges) == [size, size]
    np.testing.assert_array_equal(far.features([2]), one.features([2]))
    assert len(counting.ranges) == 2


def test_the_chunk_cache_is_bounded_and_keeps_what_was_used_last(one, directory, other):
    push(one.path, directory)
    size = one.layout.chunk_bytes + CRC_BYTES
    far = streamed(one, Counting(directory), other, room=5 * size)
    np.testing.assert_array_equal(far.features(), one.features())
    kept = [path for path in (other.root / CHUNKS).glob("??/*") if path.is_file()]
    assert 0 < sum(path.stat().st_size for path in kept) <= 5 * size
    nothing = streamed(one, Counting(directory), Cache(other.root / "b"), room=0)
    np.testing.assert_array_equal(nothing.features(), one.features())
    assert not list((other.root / "b" / CHUNKS).glob("??/*"))


def test_a_damaged_chunk_in_the_chunk_cache_is_fetched_again(one, counting, other):
    streamed(one, counting, other).features([0])
    (kept,) = (other.root / CHUNKS).glob("??/*")
    kept.write_bytes(b"x" * kept.stat().st_size)
    np.testing.assert_array_equal(streamed(one, counting, other).features([0]), one.features([0]))
    assert len(counting.ranges) == 2
    assert kept.read_bytes() != b"x" * kept.stat().st_size


def test_a_chunk_forged_with_its_own_checksum_is_refused(one, directory, other, tmp_path):
    push(one.path, directory)
    shard = tmp_path / "remote" / set_name(one.spec, one.digest) / "features" / "c" / "0" / "0"
    data, size = bytearray(shard.read_bytes()), one.layout.chunk_bytes
    data[0] ^= 1
    data[size : size + CRC_BYTES] = crc32c.crc32c(bytes(data[:size])).to_bytes(4, "little")
    shard.write_bytes(data)
    far = streamed(one, directory, other)
    with pytest.raises(CorruptError, match="Chunk 0"):
        far.features([0])
    assert not list((other.root / CHUNKS).glob("??/*"))
    last = one.layout.chunk_rows
    np.testing.assert_array_equal(far.features([last]), one.features([last]))


def test_a_shard_that_ends_early_is_one_message(one, directory, other, tmp_path):
    push(one.path, directory)
    shard = tmp_path / "remote" / set_name(one.spec, one.digest) / "features" / "c" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(RemoteError, match="it ends at"):
        streamed(one, directory, other).features([0])


def test_a_manifest_without_chunk_digests_is_refused(one, directory, other, tmp_path):
    push(one.path, directory)
    manifest = tmp_path / "remote" / set_name(one.spec, one.digest) / "zarr.json"
    group = json.loads(manifest.read_text())
    for file in group["attributes"]["sealed"]["files"]:
        file.pop("chunks", None)
    manifest.write_text(json.dumps(group))
    with pytest.raises(CorruptError, match="not the manifest that its pointer names"):
        streamed(one, directory, other)


def test_a_set_is_opened_at_a_web_server_by_its_key(one, directory, other, tmp_path):
    push(one.path, directory)
    write_index(tmp_path / "remote")
    with web_server(tmp_path / "remote") as url:
        far = featcache.open(one.key[:10], cache=other.root, remote=url)
        np.testing.assert_array_equal(far.features([5, 600]), one.features([5, 600]))
        with pytest.raises(OptionError, match="0 have"):
            featcache.open("ffff", cache=other.root, remote=url)
        with pytest.raises(OptionError, match="must have a key"):
            featcache.open("", cache=other.root, remote=url)


def test_many_threads_share_a_chunk_cache(tmp_path):
    chunks = {blake3_bytes(data): data for data in (bytes([i]) * 1000 for i in range(64))}
    kept = ChunkCache(tmp_path, 20_000)

    def read(digest):
        return kept.read(digest, lambda: chunks[digest]) == chunks[digest]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, [*chunks] * 5))
    sizes = [path.stat().st_size for path in tmp_path.glob("??/*")]
    assert 0 < sum(sizes) <= 20_000


def test_a_remote_without_the_set_gives_none(one, directory, other):
    assert streamed(one, directory, other) is None
