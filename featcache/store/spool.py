"""The shard in flight: an append-only file of batches, each with its checksum.

A kill at any instant leaves whole records and at most one torn tail, which is cut off when the
spool is opened again.

Record: magic, meta length, payload length, CRC-32C of meta + payload (little-endian
`4s I Q I`), then meta (JSON: first row, rows, unreadable rows with reasons), then the features.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import crc32c
import numpy as np
from numpy.typing import NDArray

from featcache.store.layout import Layout

_HEADER = struct.Struct("<4sIQI")
_MAGIC = b"FCS1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Consecutive rows of one feature array."""

    start: int
    features: NDArray[Any]
    """Shape (n, *row_shape), values or codes; zeros where a row is unreadable."""
    unreadable: Mapping[int, str]
    """Row to reason."""
    seconds: float = 0.0
    """Wall time it took, kept so that a killed run's work is counted."""

    @property
    def stop(self) -> int:
        """Row after the last one."""
        return self.start + len(self.features)


class Spool:
    """Batches of one shard, appended in row order."""

    def __init__(self, path: Path, layout: Layout, shard: int) -> None:
        """Open or create the spool; cut off a torn tail and go on after the last whole batch."""
        self._path, self._layout, self._shard = path, layout, shard
        self.start, self.stop = layout.bounds(shard)
        self.next_row = self.start
        length = 0
        if path.exists():
            for batch, end in _records(path, layout, shard):
                self.next_row, length = batch.stop, end
        self._file = path.open("ab", buffering=0)
        if self._file.tell() != length:
            self._file.truncate(length)
        self._length = length

    @property
    def is_complete(self) -> bool:
        """Whether every row of the shard is here."""
        return self.next_row == self.stop

    def append(self, batch: Batch) -> None:
        """Add the part of `batch` that the shard still lacks; other rows are ignored."""
        skip = max(0, self.next_row - batch.start)
        features = batch.features[skip : max(skip, self.stop - batch.start)]
        if not len(features):
            return
        start = batch.start + skip
        bad = {r: why for r, why in batch.unreadable.items() if start <= r < start + len(features)}
        fields = {"start": start, "rows": len(features), "unreadable": bad, "s": batch.seconds}
        meta = json.dumps(fields).encode()
        payload = np.ascontiguousarray(features, np.dtype(self._layout.dtype).newbyteorder("<"))
        data = payload.reshape(-1).view(np.uint8).data
        checksum = crc32c.crc32c(data, crc32c.crc32c(meta))
        record = b"".join((_HEADER.pack(_MAGIC, len(meta), len(data), checksum), meta, data))
        self._write(record)
        self.next_row = start + len(features)

    def _write(self, record: bytes) -> None:
        view = memoryview(record)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError:
            self._file.truncate(self._length)  # a full disk must not leave a torn record inside
            raise
        self._length += len(record)

    def batches(self) -> Iterator[Batch]:
        """Yield the whole batches in row order."""
        return read_batches(self._path, self._layout, self._shard)

    def close(self) -> None:
        """Close the file; it stays for the next run."""
        self._file.close()

    def remove(self) -> None:
        """Close and delete the file."""
        self.close()
        self._path.unlink(missing_ok=True)


def read_batches(path: Path, layout: Layout, shard: int) -> Iterator[Batch]:
    """Yield the whole batches of the spool at `path`, stopping before a torn tail.

    A spool that was published and removed meanwhile gives none.
    """
    with contextlib.suppress(FileNotFoundError):
        for batch, _ in _records(path, layout, shard):
            yield batch


def _records(path: Path, layout: Layout, shard: int) -> Iterator[tuple[Batch, int]]:
    """Yield each whole batch with the offset of its end."""
    expected, last = layout.bounds(shard)
    dtype = np.dtype(layout.dtype).newbyteorder("<")
    with path.open("rb") as file:
        while len(head := file.read(_HEADER.size)) == _HEADER.size:
            magic, meta_bytes, data_bytes, checksum = _HEADER.unpack(head)
            remaining = os.fstat(file.fileno()).st_size - file.tell()
            if magic != _MAGIC or meta_bytes + data_bytes > remaining:
                return
            body = file.read(meta_bytes + data_bytes)
            if crc32c.crc32c(body) != checksum:
                return
            meta = json.loads(body[:meta_bytes])
            if meta["start"] != expected or expected + meta["rows"] > last:
                return
            features = np.frombuffer(body[meta_bytes:], dtype)
            features = features.reshape(meta["rows"], *layout.row_shape)
            bad = {int(row): why for row, why in meta["unreadable"].items()}
            expected += meta["rows"]
            batch = Batch(start=meta["start"], features=features, unreadable=bad, seconds=meta["s"])
            yield batch, file.tell()
