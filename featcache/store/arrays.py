"""The small arrays beside the features: labels, ids and the ledger of unreadable rows.

Each is a Zarr v3 array of one uncompressed chunk with its CRC-32C, so that a file has exactly the
size its metadata declares and nothing is inflated. Ids are stored as a matrix of UTF-8 bytes
padded with zeros, which every Zarr reader in any language can open.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import crc32c
import numpy as np
from numpy.typing import NDArray

from featcache.digest import Json
from featcache.errors import CorruptError, StoreError
from featcache.store.files import is_same_json, json_bytes, read_json
from featcache.store.layout import CRC_BYTES, MAX_BYTES

_ASCII = 128
OK, UNREADABLE = 1, 2
"""Ledger values; 0 means missing and never stands in a sealed set."""


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
    decoder: NDArray[np.float32] | None = None
    """What codes stand for, where features are stored as codes; see `featcache.store.codes`."""


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
    if matrix.max(initial=0) < _ASCII:  # nearly all are, and numpy decodes those at once
        return rows.astype(np.str_)
    return np.array([one.decode("utf-8", "surrogateescape") for one in rows.tolist()], np.str_)


def write_arrays(root: Path, arrays: SmallArrays) -> None:
    """Write `labels`, `ids`, `status` and, if there is one, `decoder` as Zarr arrays."""
    reasons = {str(row): why for row, why in sorted(arrays.reasons.items())}
    _write(root / "labels", arrays.labels, {"class_names": list(arrays.class_names)})
    _write(root / "ids", encode_ids(arrays.ids), {"encoding": "utf-8, zero padded"})
    _write(root / "status", arrays.status, {"reasons": reasons})
    if arrays.decoder is not None:
        _write(root / "decoder", arrays.decoder, {})


def read_arrays(root: Path, rows: int) -> SmallArrays:
    """Read back what `write_arrays` wrote for a set of `rows` rows.

    Raises:
        CorruptError: If an array is missing, damaged or of another length.
    """
    with _damage_named(root):
        labels, naming = _read(root / "labels", "int64", rows)
        ids, _ = _read(root / "ids", "uint8", rows, ndim=2)
        status, ledger = _read(root / "status", "uint8", rows)
        decoder = None
        if (root / "decoder").exists():
            decoder, _ = _read(root / "decoder", "float32", None, ndim=2)
        names = _class_names(naming)
        if labels.min() < -1 or labels.max() >= len(names):
            raise ValueError(f"labels must lie in -1 to {len(names) - 1}")
        return SmallArrays(
            labels=labels,
            class_names=names,
            ids=decode_ids(ids),
            status=status,
            reasons=_reasons(ledger, rows),
            decoder=decoder,
        )


def read_ledger(root: Path, rows: int) -> dict[int, str]:
    """Return row to reason of the unreadable rows, from the ledger alone.

    Raises:
        CorruptError: If the ledger is damaged.
    """
    with _damage_named(root):
        _, ledger = _read(root / "status", "uint8", rows)
        return _reasons(ledger, rows)


@contextmanager
def _damage_named(root: Path) -> Iterator[None]:
    """Turn whatever damaged metadata leads to into a `CorruptError`."""
    try:
        yield
    except CorruptError:
        raise
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptError(
            f"{root} must hold the arrays labels, ids and status; {type(error).__name__}: {error}. "
            "Run `featcache cache verify`, then delete the set's directory and extract it again."
        ) from error


def _class_names(attributes: Mapping[str, Json]) -> tuple[str, ...]:
    names = attributes["class_names"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TypeError("the class names are not a list of texts")
    return tuple(names)


def _reasons(attributes: Mapping[str, Json], rows: int) -> dict[int, str]:
    reasons = {int(row): why for row, why in attributes["reasons"].items()}
    if list(map(str, reasons)) != list(attributes["reasons"]):
        raise ValueError("a row of a reason is not written as a number")
    if not all(0 <= row < rows and isinstance(why, str) for row, why in reasons.items()):
        raise ValueError("a reason is no text, or of a row that there is not")
    return reasons


def _write(path: Path, values: NDArray[Any], attributes: dict[str, Json]) -> None:
    values = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    file = path / _chunk_path(values.ndim)
    file.parent.mkdir(parents=True)
    data = values.reshape(-1).view(np.uint8).data
    with file.open("xb") as out:
        out.write(data)
        out.write(crc32c.crc32c(data).to_bytes(CRC_BYTES, "little"))
    metadata = _metadata(values.shape, values.dtype.name, attributes)
    (path / "zarr.json").write_bytes(json_bytes(metadata))


def _read(
    path: Path, dtype: str, rows: int | None, ndim: int = 1
) -> tuple[NDArray[Any], dict[str, Any]]:
    """Return a whole array and its attributes; `rows` None takes any number.

    Nothing is allocated beyond what the file holds, whatever the metadata claims.
    """
    metadata: Json = read_json(path / "zarr.json")
    shape, attributes = tuple(metadata["shape"]), metadata["attributes"]
    is_shaped = len(shape) == ndim and rows in (None, shape[0])
    is_sized = all(type(size) is int and 1 <= size < MAX_BYTES for size in shape)
    is_known = is_shaped and is_sized and isinstance(attributes, dict)
    if not is_known or not is_same_json(metadata, _metadata(shape, dtype, attributes)):
        raise CorruptError(
            f"{path / 'zarr.json'} must describe {rows} values of type {dtype} as featcache "
            "stores them; it does not. Delete the set's directory and extract it again."
        )
    file = path / _chunk_path(ndim)
    expected = math.prod(shape) * np.dtype(dtype).itemsize + CRC_BYTES
    if file.stat().st_size != expected:
        raise CorruptError(
            f"{file} must have {expected} bytes; it has {file.stat().st_size}. "
            "Delete the set's directory and extract it again."
        )
    data = file.read_bytes()
    if crc32c.crc32c(data[:-CRC_BYTES]) != int.from_bytes(data[-CRC_BYTES:], "little"):
        raise CorruptError(
            f"{file} must match its checksum; it does not. "
            "Delete the set's directory and extract it again."
        )
    values = np.frombuffer(data, np.dtype(dtype).newbyteorder("<"), count=math.prod(shape))
    return values.reshape(shape).astype(dtype, copy=False), dict(attributes)


def _chunk_path(ndim: int) -> str:
    return "/".join(["c", *("0" for _ in range(ndim))])


def _metadata(shape: tuple[int, ...], dtype: str, attributes: dict[str, Json]) -> dict[str, Json]:
    """Return the `zarr.json` of an array in one chunk."""
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(shape)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [
            {"name": "bytes", "configuration": {"endian": "little"}},
            {"name": "crc32c"},
        ],
        "attributes": attributes,
    }
