"""How rows lie in chunks and shards, and the Zarr v3 metadata that says so.

An uncompressed Zarr shard is its inner chunks laid end to end, a CRC-32C after each, and an
index at the end: a memory map in all but name. Sizes are chosen by bytes and are a pure
function of (rows, row bytes), so that two machines lay out the same set alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import DTypeLike

from featcache.digest import Json
from featcache.errors import CorruptError
from featcache.spec import StoredDtype
from featcache.store.files import is_same_json

CHUNK_BYTES = 8 << 20
"""Upper bound of an inner chunk: 4,096 rows at 768 float16."""
CHUNKS_PER_SHARD = 16
"""65,536 rows at 768 float16, about 100 MB: one object, one unit of work, one atomic write."""
CRC_BYTES = 4
INDEX_ENTRY_BYTES = 16
MAX_BYTES = 1 << 62
"""Bound of a whole array, so that no size computed from metadata overflows."""
MAX_DIMENSIONS = 32
"""Of one row; numpy's own bound is 64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The geometry of one feature array."""

    rows: int
    row_shape: tuple[int, ...]
    dtype: str
    """Numpy name of the stored type, little-endian on disk."""
    chunk_rows: int
    chunks_per_shard: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.row_shape) * np.dtype(self.dtype).itemsize

    @property
    def chunk_bytes(self) -> int:
        """Bytes of one inner chunk without its checksum."""
        return self.chunk_rows * self.row_bytes

    @property
    def shard_rows(self) -> int:
        """Rows of one full shard."""
        return self.chunk_rows * self.chunks_per_shard

    @property
    def n_shards(self) -> int:
        """Shards of the array, the last one maybe partly filled."""
        return -(-self.rows // self.shard_rows)

    @property
    def index_bytes(self) -> int:
        """Bytes of a shard's index with its checksum."""
        return self.chunks_per_shard * INDEX_ENTRY_BYTES + CRC_BYTES

    def bounds(self, shard: int) -> tuple[int, int]:
        """Return the row range [start, stop) of a shard."""
        start = shard * self.shard_rows
        return start, min(start + self.shard_rows, self.rows)

    def n_chunks(self, shard: int) -> int:
        """Return how many inner chunks of a shard hold rows."""
        start, stop = self.bounds(shard)
        return -(-(stop - start) // self.chunk_rows)

    def shard_bytes(self, shard: int) -> int:
        """Return the exact size of a shard's file."""
        return self.n_chunks(shard) * (self.chunk_bytes + CRC_BYTES) + self.index_bytes

    def shard_path(self, shard: int) -> str:
        """Return a shard's path inside the array's directory (Zarr's default chunk keys)."""
        return "/".join(["c", str(shard), *("0" for _ in self.row_shape)])

    def metadata(self) -> dict[str, Json]:
        """Return the array's `zarr.json`."""
        bytes_codec = {"name": "bytes", "configuration": {"endian": "little"}}
        codecs = [bytes_codec, {"name": "crc32c"}]
        sharding = {
            "chunk_shape": [self.chunk_rows, *self.row_shape],
            "codecs": codecs,
            "index_codecs": codecs,
            "index_location": "end",
        }
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [self.rows, *self.row_shape],
            "data_type": self.dtype,
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": [self.shard_rows, *self.row_shape]},
            },
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": 0 if np.dtype(self.dtype).kind == "u" else 0.0,
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
            "attributes": {},
        }


def choose_layout(rows: int, row_shape: tuple[int, ...], dtype: DTypeLike) -> Layout:
    """Choose chunk and shard sizes for an array of `rows` rows.

    A chunk holds the largest power of two of rows within `CHUNK_BYTES`; a set smaller than one
    chunk gets one chunk of exactly its rows, so that nothing is padded.
    """
    row_bytes = math.prod(row_shape) * np.dtype(dtype).itemsize
    fitting = max(1, CHUNK_BYTES // max(1, row_bytes))
    chunk_rows = min(1 << (fitting.bit_length() - 1), rows)
    return Layout(
        rows=rows,
        row_shape=row_shape,
        dtype=np.dtype(dtype).name,
        chunk_rows=chunk_rows,
        chunks_per_shard=min(CHUNKS_PER_SHARD, -(-rows // chunk_rows)),
    )


def parse_layout(metadata: Json) -> Layout:
    """Read a layout back from an array's `zarr.json`.

    Raises:
        CorruptError: If the metadata is not what `Layout.metadata` writes.
    """
    try:
        rows, *row_shape = metadata["shape"]
        inner = metadata["codecs"][0]["configuration"]["chunk_shape"][0]
        outer = metadata["chunk_grid"]["configuration"]["chunk_shape"][0]
        layout = Layout(
            rows=rows,
            row_shape=tuple(row_shape),
            dtype=metadata["data_type"],
            chunk_rows=inner,
            chunks_per_shard=outer // inner,
        )
        _check_layout(layout)
    except (KeyError, TypeError, ValueError, IndexError, ArithmeticError) as error:
        raise CorruptError(
            f"A feature array's zarr.json must describe a sharded array; {error!r}. "
            "Extract the feature set again."
        ) from error
    if not is_same_json({**metadata, "attributes": {}}, layout.metadata()):
        raise CorruptError(
            "A feature array's zarr.json must be what featcache wrote; it was changed. "
            "Run `featcache cache verify`, or extract the feature set again."
        )
    return layout


def _check_layout(layout: Layout) -> None:
    """Refuse numbers and types that would mislead arithmetic or numpy, such as `object`."""
    sizes = (layout.rows, *layout.row_shape, layout.chunk_rows, layout.chunks_per_shard)
    if not all(type(size) is int and 1 <= size < MAX_BYTES for size in sizes):
        raise ValueError("a size is not a positive whole number")
    if layout.dtype not in get_args(StoredDtype):
        raise ValueError(f"the type {layout.dtype!r} is not one that is stored")
    stored_rows = layout.n_shards * layout.shard_rows
    if len(layout.row_shape) > MAX_DIMENSIONS or stored_rows * layout.row_bytes >= MAX_BYTES:
        raise ValueError("it is larger than any array")
