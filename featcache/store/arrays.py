"""The small arrays beside the features: labels, ids and the ledger of unreadable rows.

Compressed with zstd and checked by CRC-32C, written and read by zarr-python. Ids are stored as
a matrix of UTF-8 bytes padded with zeros, which every Zarr reader in any language can open.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.digest import Json
from featcache.errors import CorruptError, StoreError
from featcache.store.files import read_json

OK, UNREADABLE = 1, 2
"""Ledger values; 0 means missing and never stands in a sealed set."""

_CHUNK_ROWS = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallArrays:
    """Everything of a feature set but the features."""

    labels: NDArray[np.int64]
    """Shape (N,), -1 without a label."""
    class_names: tuple[str, ...]
    ids: NDArray[np.str_]
    """Shape (N,)."""
    status: NDArray[np.uint8]
    """Shape (N,), `OK` or `UNREADABLE`."""
    reasons: Mapping[int, str]
    """Row to reason, for each unreadable row."""


def encode_ids(ids: NDArray[np.str_]) -> NDArray[np.uint8]:
    """Encode ids, shape (N,), as zero-padded UTF-8, shape (N, longest id in bytes).

    Raises:
        StoreError: If an id holds a NUL character, which padding could not be told from.
    """
    encoded = [one.encode("utf-8", "surrogateescape") for one in ids.tolist()]
    if bad := [one for one in encoded if b"\0" in one]:
        raise StoreError(f"An id must not hold a NUL character; got {bad[0]!r}. Rename the sample.")
    width = max((len(one) for one in encoded), default=1) or 1
    joined = b"".join(one.ljust(width, b"\0") for one in encoded)
    return np.frombuffer(joined, np.uint8).reshape(len(encoded), width)


def decode_ids(matrix: NDArray[np.uint8]) -> NDArray[np.str_]:
    """Decode what `encode_ids` made."""
    rows = np.ascontiguousarray(matrix).view(f"S{matrix.shape[1]}").reshape(-1)
    return np.array([one.decode("utf-8", "surrogateescape") for one in rows.tolist()], np.str_)


def write_arrays(root: Path, arrays: SmallArrays) -> None:
    """Write `labels`, `ids` and `status` as Zarr arrays below `root`."""
    reasons = {str(row): why for row, why in sorted(arrays.reasons.items())}
    _write(root / "labels", arrays.labels, {"class_names": list(arrays.class_names)})
    _write(root / "ids", encode_ids(arrays.ids), {"encoding": "utf-8, zero padded"})
    _write(root / "status", arrays.status, {"reasons": reasons})


def read_arrays(root: Path) -> SmallArrays:
    """Read back what `write_arrays` wrote.

    Raises:
        CorruptError: If an array is missing or damaged.
    """
    try:
        return SmallArrays(
            labels=_read(root / "labels").astype(np.int64, copy=False),
            class_names=tuple(_attributes(root / "labels")["class_names"]),
            ids=decode_ids(_read(root / "ids")),
            status=_read(root / "status"),
            reasons={int(r): why for r, why in _attributes(root / "status")["reasons"].items()},
        )
    except CorruptError:
        raise
    except Exception as error:
        raise CorruptError(
            f"{root} must hold the arrays labels, ids and status; {error}. "
            "Run `featcache cache verify`, then delete the set's directory and extract it again."
        ) from error


def _attributes(path: Path) -> dict[str, Any]:
    metadata: Json = read_json(path / "zarr.json")
    return dict(metadata["attributes"])


def _write(path: Path, values: NDArray[Any], attributes: dict[str, Json]) -> None:
    import zarr
    from zarr.codecs import Crc32cCodec, ZstdCodec

    array = zarr.create_array(
        store=str(path),
        shape=values.shape,
        dtype=values.dtype,
        chunks=(min(_CHUNK_ROWS, max(1, len(values))), *values.shape[1:]),
        compressors=[ZstdCodec(level=3), Crc32cCodec()],
        attributes=attributes,
        overwrite=True,
        config={"write_empty_chunks": True},  # a chunk of zeros is not a missing chunk
    )
    array[...] = values


def _read(path: Path) -> NDArray[Any]:
    """Read a whole array; a missing chunk raises, where Zarr alone would give zeros."""
    import zarr

    array = zarr.open_array(str(path), mode="r")
    if array.nchunks_initialized != array.nchunks:
        missing = array.nchunks - array.nchunks_initialized
        raise CorruptError(
            f"{path} must hold {array.nchunks} chunks; {missing} are missing. "
            "Run `featcache cache verify`, then delete the set's directory and extract it again."
        )
    return np.asarray(array[...])
