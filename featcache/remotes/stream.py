"""Read a set where it lies at a remote: only the chunks and arrays that are asked for.

The manifest and the small arrays are fetched whole. Each chunk is checked against its BLAKE3 in the
manifest, which the pointer vouches for, before a value of it is returned.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.digest import blake3_bytes
from featcache.errors import CorruptError
from featcache.remotes.arrival import Trust, arrive
from featcache.remotes.chunks import CHUNKS, ChunkCache
from featcache.remotes.pull import fetch_files
from featcache.remotes.push import PARALLEL
from featcache.remotes.transport import Transport
from featcache.spec import ExtractionSpec
from featcache.store.cache import Cache
from featcache.store.feature_set import FeatureSet
from featcache.store.layout import CRC_BYTES, Layout


def attach(
    name: str,
    transport: Transport,
    cache: Cache,
    *,
    spec: ExtractionSpec | None = None,
    trust: Trust = lambda _pointer, _url: None,
    limit_bytes: int,
) -> FeatureSet | None:
    """Open the set that a pointer names without fetching its features.

    Args:
        name: The pointer's name at the remote.
        transport: The remote.
        cache: Where its metadata, small arrays and used chunks are kept.
        spec: What is wanted; a set of another spec is refused. None takes any.
        trust: Judges the pointer before anything else is read.
        limit_bytes: Room for chunks.

    Returns:
        The set; None if the remote has no such pointer.

    Raises:
        CorruptError: If anything is not what it claims to be.
        RemoteError: If the remote cannot be reached.
    """
    arrived = arrive(name, transport, cache, CHUNKS, spec=spec, trust=trust)
    if arrived is None:
        return None
    folder, _, root = arrived
    one = FeatureSet(root)
    listed = {str(file["path"]): file for file in one.sealed["files"]}
    small = [file for path, file in listed.items() if not path.startswith("features/c/")]
    fetch_files(folder, one, small, transport, lambda _: None)
    chunks = ChunkCache(cache.root / CHUNKS, limit_bytes)

    def open_shard(shard: int) -> RemoteShard:
        path = f"features/{one.layout.shard_path(shard)}"
        where = f"{folder}/{path}"
        return RemoteShard(transport, where, one.layout, listed[path]["chunks"], chunks)

    return FeatureSet(root, open_shard=open_shard)


class RemoteShard:
    """One shard at a remote as an array of rows; several chunks are fetched at a time."""

    def __init__(
        self,
        transport: Transport,
        name: str,
        layout: Layout,
        digests: Sequence[str],
        chunks: ChunkCache,
    ) -> None:
        """Name the shard's file and what its chunks must be; nothing is fetched yet."""
        self._transport, self._name, self._layout = transport, name, layout
        self._digests, self._chunks = digests, chunks

    def read(self, first: int, out: NDArray[Any], *, check: bool = True) -> None:
        """Copy rows `first`, `first + 1`, … of the shard into `out`; chunks are always checked."""
        rows, stop = self._layout.chunk_rows, first + len(out)
        for chunk, values in self._values(range(first // rows, -(-stop // rows))):
            begin, end = max(first, chunk * rows), min(stop, (chunk + 1) * rows)
            out[begin - first : end - first] = values[begin - chunk * rows : end - chunk * rows]

    def take(self, rows: NDArray[np.intp], out: NDArray[Any], *, check: bool = True) -> None:
        """Copy the given rows of the shard into `out`."""
        chunk_of, offset = np.divmod(rows, self._layout.chunk_rows)
        for chunk, values in self._values(np.unique(chunk_of).tolist()):
            where = np.flatnonzero(chunk_of == chunk)
            out[where] = values[offset[where]]

    def _values(self, chunks: Sequence[int]) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield each chunk with its rows, shape (chunk_rows, *row_shape)."""
        with ThreadPoolExecutor(PARALLEL) as pool:
            for start in range(0, len(chunks), PARALLEL):  # bounds what is in memory
                some = chunks[start : start + PARALLEL]
                yield from zip(some, pool.map(self._chunk, some), strict=True)

    def _chunk(self, chunk: int) -> NDArray[Any]:
        size = self._layout.chunk_bytes + CRC_BYTES
        digest = self._digests[chunk]

        def fetch() -> bytes:
            return self._transport.read(self._name, chunk * size, (chunk + 1) * size)

        data = self._chunks.read(digest, fetch)
        if blake3_bytes(data) != digest:
            first = chunk * self._layout.chunk_rows
            raise CorruptError(
                f"Chunk {chunk} (rows {first} and on of the shard) of {self._name} at "
                f"{self._transport.url} must be what was sealed; it is not. Do not use this "
                "remote, or push the set again."
            )
        values = np.frombuffer(data[:-CRC_BYTES], np.dtype(self._layout.dtype).newbyteorder("<"))
        return values.reshape(self._layout.chunk_rows, *self._layout.row_shape)
