"""Read a sealed feature set."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featcache.digest import Json
from featcache.errors import CorruptError, OptionError, ShapeError, StoreError, UnsealedError
from featcache.spec import ExtractionSpec
from featcache.store.arrays import OK, SmallArrays, read_arrays
from featcache.store.codes import CODE_DTYPE, check_decoder, decode
from featcache.store.files import read_json
from featcache.store.layout import Layout, parse_layout
from featcache.store.manifest import GROUP_FILE, is_digest
from featcache.store.shard import MappedShard, ShardReader, as_items
from featcache.store.table import Table

if TYPE_CHECKING:
    import zarr

BLOCK_ROWS = 8192
"""Rows per streamed block: small enough to stay in a processor's cache."""


def is_sealed(path: Path) -> bool:
    """Tell whether a complete feature set lies at `path`."""
    return (path / GROUP_FILE).exists() and read_group(path)["sealed"] is not None


def read_group(path: Path) -> dict[str, Any]:
    """Return the attributes of the feature set at `path`, sealed or not.

    Raises:
        StoreError: If there is none, or its metadata is not a feature set's.
    """
    try:
        attributes: Json = read_json(path / GROUP_FILE)["attributes"]
        if not {"spec", "provenance", "sealed"} <= attributes.keys():
            raise KeyError("spec, provenance, sealed")  # noqa: TRY301
        if attributes["sealed"] is not None:
            _check_sealed(attributes)
    except FileNotFoundError:
        raise StoreError(
            f"A feature set must lie at {path}; there is none. List what the cache holds with: "
            "featcache ls features"
        ) from None
    except (KeyError, TypeError, AttributeError) as error:
        raise CorruptError(
            f"{path / GROUP_FILE} must be a feature set's; it lacks {error!r}. "
            "Delete the set's directory and extract it again."
        ) from None
    return dict(attributes)


def _check_sealed(attributes: Mapping[str, Json]) -> None:
    """Raise a `KeyError` or `TypeError` unless everything that is read of a sealed set is there."""
    sealed = attributes["sealed"]
    files, digest, provenance = sealed["files"], sealed["digest"], attributes["provenance"]
    types: list[tuple[Json, type]] = [(provenance, dict), (digest, str), (files, list)]
    types += [(sealed["rows"], int), (sealed["readable"], int)]
    for file in files:
        types += [(file["path"], str), (file["bytes"], int), (file["blake3"], str)]
    if not all(type(value) is kind for value, kind in types) or not is_digest(digest):
        raise TypeError("a field of its type")


class FeatureSet:
    """A sealed, immutable feature set: features, labels, ids and ledger by row.

    Rows keep the order of the dataset. Unreadable rows are there, as zeros; `valid` tells which
    rows to use, and `table()` leaves the others out.
    """

    def __init__(
        self,
        path: Path,
        *,
        check: bool = True,
        open_shard: Callable[[int], ShardReader] | None = None,
    ) -> None:
        """Open the set at `path`; nothing but two small JSON files is read.

        Args:
            path: Directory `<tap>-<key>.zarr`.
            check: Check each chunk against its CRC-32C when it is first read.
            open_shard: Gives the rows of a shard that is not a file below `path`.

        Raises:
            UnsealedError: If the set is not complete.
            CorruptError: If its metadata is damaged.
        """
        attributes = read_group(path)
        self.path = path
        self.spec = ExtractionSpec.from_json(attributes["spec"])
        sealed = attributes["sealed"]
        if sealed is None:
            raise UnsealedError(
                f"A feature set must be sealed before it is read; {path} is still being extracted "
                "or was interrupted. Run the same `featcache extract` again: it resumes."
            )
        self.provenance: Mapping[str, Any] = attributes["provenance"]
        self.sealed: Mapping[str, Any] = sealed
        self._check = check
        self._open_shard = open_shard or self._map_shard

    @property
    def key(self) -> str:
        """The spec key, 64 hex digits."""
        return self.spec.key

    @property
    def digest(self) -> str:
        """The content digest, 64 hex digits."""
        return str(self.sealed["digest"])

    @property
    def rows(self) -> int:
        """Number of rows, unreadable ones included."""
        return self.spec.dataset.rows

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.rows

    def __repr__(self) -> str:
        """Name the set as a person would."""
        one = self.spec
        return (
            f"<FeatureSet {one.dataset.name}/{one.dataset.split} {one.backbone.name} {one.view} "
            f"{self.layout.rows}x{'x'.join(map(str, self.layout.row_shape))} {one.key[:8]}>"
        )

    @cached_property
    def layout(self) -> Layout:
        """Geometry of the stored features."""
        layout = parse_layout(read_json(self.path / "features" / "zarr.json"))
        if layout.rows != self.rows:
            raise CorruptError(
                f"{self.path} must hold {self.rows} rows; its array has {layout.rows}. "
                "Delete the set's directory and extract it again."
            )
        if layout.dtype != self.spec.numerics.stored:
            raise CorruptError(
                f"{self.path} must hold {self.spec.numerics.stored}; its array is {layout.dtype}. "
                "Delete the set's directory and extract it again."
            )
        return layout

    @cached_property
    def arrays(self) -> SmallArrays:
        """Labels, ids and ledger, read at once on first use."""
        return read_arrays(self.path, self.rows)

    @cached_property
    def decoder(self) -> NDArray[np.float32] | None:
        """What stored codes stand for, shape (2, D) or (256, D); None where values are stored.

        Raises:
            CorruptError: If it does not fit the codes.
        """
        if self.layout.dtype != CODE_DTYPE:
            return None
        if wrong := check_decoder(self.arrays.decoder, self.layout.row_shape):
            raise CorruptError(
                f"{self.path / 'decoder'} must fit the stored codes; it {wrong}. "
                "Delete the set's directory and derive it again."
            )
        return self.arrays.decoder

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one row of `features()`."""
        return self.layout.row_shape if self.decoder is None else self.decoder.shape[1:]

    @property
    def labels(self) -> NDArray[np.int64]:
        """Shape (N,), indices into `class_names`, -1 without a label."""
        return self.arrays.labels

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.arrays.class_names

    @property
    def ids(self) -> NDArray[np.str_]:
        """Shape (N,), unique."""
        return self.arrays.ids

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Shape (N,), false where the image could not be read."""
        return np.equal(self.arrays.status, OK)

    @property
    def reasons(self) -> Mapping[int, str]:
        """Row to reason, for each unreadable row."""
        return self.arrays.reasons

    @cached_property
    def _shards(self) -> dict[int, ShardReader]:
        with suppress(OSError):  # a cache may be read-only
            os.utime(self.path)  # so that `cache gc` knows which sets were used last
        return {}

    def _shard(self, shard: int) -> ShardReader:
        if shard not in self._shards:
            self._shards[shard] = self._open_shard(shard)
        return self._shards[shard]

    def _require(self, start: int, stop: int) -> None:
        """Open the shards of a row range, so that nothing is allocated for what is not there."""
        size = self.layout.shard_rows
        for shard in range(start // size, -(-max(start, stop) // size)):
            self._shard(shard)

    def _map_shard(self, shard: int) -> MappedShard:
        path = self.path / "features" / self.layout.shard_path(shard)
        return MappedShard(path, self.layout, shard)

    def features(
        self, rows: ArrayLike | slice | None = None, *, out: NDArray[np.floating] | None = None
    ) -> NDArray[np.floating]:
        """Return features as stored, or as the stored codes stand for.

        Args:
            rows: Row indices or a mask of shape (N,), in any order and repeated at will, a slice,
                or None for all.
            out: Buffer to fill, shape (n, *row_shape), of the stored dtype; float32 for codes.

        Returns:
            Shape (n, *row_shape), float16 or float32.

        Raises:
            CorruptError: If a chunk does not match its checksum.
            OptionError: If a row is out of range.
            ShapeError: If `out` does not fit.
        """
        if self.decoder is None:
            return self._stored(rows, out)
        values = decode(self._stored(rows, None), self.decoder)
        if out is None:
            return values
        _buffer(out, values.shape, values.dtype)[...] = values
        return out

    def _stored(self, rows: ArrayLike | slice | None, out: NDArray[Any] | None) -> NDArray[Any]:
        shape, dtype = self.layout.row_shape, np.dtype(self.layout.dtype)
        if rows is None or isinstance(rows, slice):
            start, stop, step = (rows or slice(None)).indices(self.rows)
            if step == 1:
                self._require(start, stop)
                out = _buffer(out, (max(0, stop - start), *shape), dtype)
                self._read_range(start, out)
                return out
            rows = np.arange(start, stop, step)
        index = self._index(rows)
        out = _buffer(out, (len(index), *shape), dtype)
        values = out if out.flags.c_contiguous else np.empty_like(out, order="C")
        order = np.argsort(index // self.layout.chunk_rows, kind="stable")
        ordered = index[order]
        shards = ordered // self.layout.shard_rows
        for shard in np.unique(shards).tolist():
            first, last = np.searchsorted(shards, [shard, shard + 1])
            local = ordered[first:last] - shard * self.layout.shard_rows
            self._take(shard, local, order[first:last], values)
        if values is not out:
            out[...] = values
        return out

    def _take(
        self, shard: int, local: NDArray[np.intp], where: NDArray[np.intp], out: NDArray[Any]
    ) -> None:
        """Copy rows of a shard to `out[where]`, straight there if that is a range in order."""
        first, last = int(where[0]), int(where[-1]) + 1
        if last - first == len(where) and (where[1:] > where[:-1]).all():
            self._shard(shard).take(local, out[first:last], check=self._check)
            return
        part = np.empty((len(where), *out.shape[1:]), out.dtype)
        self._shard(shard).take(local, part, check=self._check)
        as_items(out)[where] = as_items(part)

    def batches(self, size: int = BLOCK_ROWS) -> Iterator[tuple[int, NDArray[np.floating]]]:
        """Stream all rows in blocks of `size`, each a fresh array with its first row.

        Memory is bounded by one block.
        """
        for start in range(0, self.rows, size):
            yield start, self.features(slice(start, start + size))

    def table(self) -> Table:
        """Return the readable rows in memory, as a probe takes them.

        Raises:
            ShapeError: If the tap's features are not vectors.
        """
        if len(self.layout.row_shape) != 1:
            raise ShapeError(
                f"A probe takes one vector per image; tap {self.spec.tap!r} gives "
                f"{self.layout.row_shape}. Extract a pooled tap."
            )
        rows = np.flatnonzero(self.valid)
        return Table(
            features=self.features(None if len(rows) == self.rows else rows),
            labels=self.labels[rows],
            ids=self.ids[rows],
            class_names=self.class_names,
        )

    def zarr(self) -> zarr.Group:
        """Return the set as a read-only Zarr group, for tools that take one."""
        import zarr

        return zarr.open_group(self.path, mode="r")

    def _read_range(self, start: int, out: NDArray[np.floating]) -> None:
        done = 0
        while done < len(out):
            shard, first = divmod(start + done, self.layout.shard_rows)
            n = min(self.layout.shard_rows - first, len(out) - done)
            self._shard(shard).read(first, out[done : done + n], check=self._check)
            done += n

    def _index(self, rows: ArrayLike) -> NDArray[np.intp]:
        index = np.asarray(rows)
        if index.dtype == bool:
            if index.shape != (self.rows,):
                raise ShapeError(f"A mask must have shape ({self.rows},); got {index.shape}.")
            return np.flatnonzero(index)
        if len(index) and not np.issubdtype(index.dtype, np.integer):
            raise OptionError(f"Rows must be whole numbers or a mask; got {index.dtype}. Convert.")
        index = index.astype(np.intp, copy=False).reshape(-1)
        if len(index) and not (-self.rows <= index.min() and index.max() < self.rows):
            raise OptionError(
                f"Rows must lie in 0 to {self.rows - 1}; got {index.min()} to {index.max()}."
            )
        return np.where(index < 0, index + self.rows, index)


def _buffer(out: NDArray[Any] | None, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return `out` if it fits, a new array if it is None."""
    if out is None:
        return np.empty(shape, dtype)
    if out.shape != shape or out.dtype != dtype:
        raise ShapeError(
            f"`out` must have shape {shape} and dtype {dtype}; got {out.shape} and {out.dtype}."
        )
    return out
