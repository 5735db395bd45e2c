"""Write a shard in Zarr's own format, map it back, and check its checksums."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import blake3
import crc32c
import numpy as np
from numpy.typing import NDArray

from featcache.digest import blake3_bytes, blake3_file
from featcache.errors import CorruptError
from featcache.store.layout import CRC_BYTES, Layout

_ABSENT = np.iinfo(np.uint64).max


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardDigests:
    """BLAKE3 of a shard's parts, hex."""

    file: str
    chunks: tuple[str, ...]
    """Of each inner chunk with its checksum, so that one can be trusted without the others."""


def write_shard(
    path: Path, blocks: Iterable[NDArray[Any]], layout: Layout, shard: int
) -> ShardDigests:
    """Write one shard file from its rows in order, and flush it to disk.

    Args:
        path: Where to write; must not exist.
        blocks: Row blocks, shape (n, *row_shape), that add up to the shard's rows.
        layout: Geometry of the array.
        shard: Index of the shard.

    Returns:
        The digests of what was written.

    Raises:
        CorruptError: If the blocks do not add up to the shard's rows.
    """
    hasher, chunks = blake3.blake3(), []

    def digest(data: memoryview, checksum: bytes) -> None:
        hasher.update(data)
        hasher.update(checksum)
        chunks.append(blake3_bytes(data, checksum))

    with path.open("xb", buffering=0) as file, ThreadPoolExecutor(1) as hashing:
        for chunk in _chunks(blocks, layout, shard):
            data = chunk.reshape(-1).view(np.uint8).data
            checksum = crc32c.crc32c(data).to_bytes(CRC_BYTES, "little")
            digested = hashing.submit(digest, data, checksum)  # while the disk takes the bytes
            _write(file, data)
            _write(file, checksum)
            digested.result()
        index = shard_index(layout, shard)
        hasher.update(index)
        _write(file, index)
        os.fsync(file.fileno())
    return ShardDigests(file=str(hasher.hexdigest()), chunks=tuple(chunks))


def _chunks(
    blocks: Iterable[NDArray[Any]], layout: Layout, shard: int
) -> Iterator[NDArray[np.generic]]:
    """Yield the rows of a shard chunk by chunk, the last one padded; one is valid until the next.

    Raises:
        CorruptError: If the blocks do not add up to the shard's rows.
    """
    start, stop = layout.bounds(shard)
    dtype = np.dtype(layout.dtype).newbyteorder("<")
    chunk = np.zeros((layout.chunk_rows, *layout.row_shape), dtype)
    filled = written = 0
    for block in blocks:
        written += len(block)
        while len(block):
            part = block[: layout.chunk_rows - filled]
            chunk[filled : filled + len(part)] = part
            filled, block = filled + len(part), block[len(part) :]
            if filled == layout.chunk_rows:
                yield chunk
                filled = 0
    if written != stop - start:
        raise CorruptError(
            f"Shard {shard} must hold rows {start} to {stop}; got {written} rows. "
            "Run the same command again."
        )
    if filled:
        chunk[filled:] = 0
        yield chunk


def _write(file: io.RawIOBase, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) or 0 :]


def shard_digests(path: Path, layout: Layout, shard: int) -> ShardDigests:
    """Return the digests of a shard that is there already.

    Raises:
        CorruptError: If it is missing or damaged.
    """
    mapped = MappedShard(path, layout, shard)
    if mapped.damaged_chunks():
        raise CorruptError(
            f"{path} was published but does not match its checksums. "
            "Delete it and run the same command again."
        )
    return ShardDigests(file=blake3_file(path), chunks=mapped.chunk_digests())


def shard_index(layout: Layout, shard: int) -> bytes:
    """Return the index that a shard of this layout ends in."""
    entries = np.full((layout.chunks_per_shard, 2), _ABSENT, "<u8")  # (offset, length) per chunk
    stored = layout.chunk_bytes + CRC_BYTES
    n_chunks = layout.n_chunks(shard)
    entries[:n_chunks, 0] = np.arange(n_chunks, dtype="<u8") * stored
    entries[:n_chunks, 1] = stored
    data = entries.tobytes()
    checksum: int = crc32c.crc32c(data)
    return data + checksum.to_bytes(CRC_BYTES, "little")


def as_items(values: NDArray[Any]) -> NDArray[np.void]:
    """View contiguous rows as single items: numpy then copies each at once, not value by value."""
    row_bytes = values[:1].nbytes or math.prod(values.shape[1:]) * values.itemsize
    return np.ndarray(len(values), f"V{row_bytes}", values)


class ShardReader(Protocol):
    """Rows of one shard, wherever it lies."""

    def read(self, first: int, out: NDArray[Any], *, check: bool = True) -> None:
        """Copy rows `first`, `first + 1`, … of the shard into `out`."""

    def take(self, rows: NDArray[np.intp], out: NDArray[Any], *, check: bool = True) -> None:
        """Copy the given rows of the shard, those of one chunk side by side, into `out`."""


class MappedShard:
    """One shard file as a read-only array, each chunk checked when first touched."""

    def __init__(self, path: Path, layout: Layout, shard: int) -> None:
        """Map the file and check its size and index.

        Raises:
            CorruptError: If the file is missing, has another size or another index.
        """
        start, stop = layout.bounds(shard)
        self._where = f"Shard {shard} (rows {start} to {stop - 1}, {path})"
        self._layout, self._start = layout, start
        expected = layout.shard_bytes(shard)
        size = path.stat().st_size if path.exists() else None
        if size != expected:
            got = "it is missing" if size is None else f"it has {size} bytes"
            raise CorruptError(
                f"{self._where} must have {expected} bytes; {got}. "
                "Delete the set's directory and extract it again."
            )
        self._bytes = np.asarray(np.memmap(path, np.uint8, mode="r"))  # a view of a memmap costs µs
        if self._bytes[-layout.index_bytes :].tobytes() != shard_index(layout, shard):
            raise CorruptError(
                f"{self._where} has a damaged index. "
                "Delete the set's directory and extract it again."
            )
        stored = layout.chunk_bytes + CRC_BYTES
        self._chunks = self._bytes[: -layout.index_bytes].reshape(-1, stored)  # (n_chunks, stored)
        self._checked = np.zeros(len(self._chunks), bool)
        self._n_rows = stop - start
        values = self._chunks[:, : layout.chunk_bytes].view(
            np.dtype(layout.dtype).newbyteorder("<")
        )
        self._values = values.reshape(len(self._chunks), layout.chunk_rows, *layout.row_shape)

    def read(self, first: int, out: NDArray[Any], *, check: bool = True) -> None:
        """Copy rows `first`, `first + 1`, … of the shard into `out`."""
        done, rows = 0, self._layout.chunk_rows
        while done < len(out):
            chunk, offset = divmod(first + done, rows)
            n = min(rows - offset, len(out) - done)
            if check:
                self.check(chunk)
            out[done : done + n] = self._values[chunk, offset : offset + n]
            done += n

    def take(self, rows: NDArray[np.intp], out: NDArray[Any], *, check: bool = True) -> None:
        """Copy the given rows of the shard, those of one chunk side by side, into `out`."""
        if not len(rows):
            return
        chunks, offsets = np.divmod(rows, self._layout.chunk_rows)
        ends = [*(np.flatnonzero(chunks[1:] != chunks[:-1]) + 1).tolist(), len(rows)]
        starts = [0, *ends[:-1]]
        values = self._values
        for start, end, chunk in zip(starts, ends, chunks[starts].tolist(), strict=True):
            if check and not self._checked[chunk]:
                self.check(chunk)
            values[chunk].take(offsets[start:end], 0, out[start:end], "clip")

    def check(self, chunk: int) -> None:
        """Check one chunk against its CRC-32C, once.

        Raises:
            CorruptError: If it does not match; names the shard and the rows.
        """
        if self._checked[chunk]:
            return
        data, size = self._chunks[chunk], self._layout.chunk_bytes
        if crc32c.crc32c(data[:size]) != int.from_bytes(data[size:].tobytes(), "little"):
            first = self._start + chunk * self._layout.chunk_rows
            last = min(first + self._layout.chunk_rows, self._start + self._n_rows) - 1
            raise CorruptError(
                f"{self._where} must match its checksums; rows {first} to {last} do not. "
                "Delete the set's directory and extract it again."
            )
        self._checked[chunk] = True

    def chunk_digests(self) -> tuple[str, ...]:
        """Return the BLAKE3 of each chunk with its checksum."""
        return tuple(blake3_bytes(chunk.data) for chunk in self._chunks)

    def damaged_chunks(self) -> list[tuple[int, int]]:
        """Check every chunk; return the row ranges [first, last] of those that fail."""
        damaged = []
        for chunk in range(len(self._chunks)):
            try:
                self.check(chunk)
            except CorruptError:
                first = self._start + chunk * self._layout.chunk_rows
                end = min(first + self._layout.chunk_rows, self._start + self._n_rows)
                damaged.append((first, end - 1))
        return damaged
