"""What the columns of a Hugging Face table mean: the image, its label, its id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featcache.datasets.dataset import NO_LABEL, DigestMemo
from featcache.datasets.decode import decode
from featcache.datasets.memo import file_digests
from featcache.datasets.source import some_of
from featcache.digest import blake3_bytes
from featcache.errors import DatasetError, UnreadableImageError

ID_COLUMNS = ("id", "image_id", "file_name")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class")
BINARY_COLUMNS = ("image", "img", "jpg", "png", "bytes")


@dataclass(frozen=True, slots=True)
class HfImages:
    """The image column of one split, as encoded bytes or paths."""

    table: Any
    """A `datasets.Dataset` with the image column alone, not decoded."""
    column: str
    files: tuple[str, ...] = ()
    """Local Parquet files that hold the rows."""
    origin: str = ""
    """Repository, commit and configuration that name the rows; '' if they are not known."""

    def read(self, row: int) -> Image.Image:
        """Return the decoded image in mode RGB.

        Raises:
            UnreadableImageError: With the reason, if it cannot be decoded.
        """
        data, path = self._encoded(row)
        if data is not None:
            return decode(data)
        if path is None:
            raise UnreadableImageError("no image in this row")
        if self.files:  # their digest would not cover what lies at the path
            raise UnreadableImageError("a path without bytes; store the images in the Parquet file")
        return decode(path)

    def digests(self, memo: DigestMemo) -> list[str]:
        """Return one digest for all rows if commit or files name them, else one per row."""
        if self.origin:
            return [f"{self.origin}:{self.column}"]
        if not self.files:
            return [self._row_digest(row, memo) for row in range(len(self.table))]
        digests = file_digests(self.files, memo)
        if "" in digests:
            raise DatasetError(
                "The Parquet files must stay in place while they are read; "
                f"{self.files[digests.index('')]!r} cannot be read. Put it back."
            )
        return [blake3_bytes(" ".join([self.column, *digests]).encode())]

    def select(self, rows: Sequence[int]) -> HfImages:
        """Return a reader of these rows, in this order."""
        return replace(self, table=self.table.select(rows))

    def _encoded(self, row: int) -> tuple[bytes | None, str | None]:
        value = self.table[row][self.column] or {}
        return value.get("bytes"), value.get("path") or None

    def _row_digest(self, row: int, memo: DigestMemo) -> str:
        data, path = self._encoded(row)
        if data is not None:
            return blake3_bytes(data)
        return memo.file_digest(path) if path is not None else ""


def image_column(table: Any) -> tuple[Any, str]:  # noqa: ANN401
    """Return a `datasets.Dataset` of the image column alone, not decoded, and its name.

    The first column of type Image is taken, else the first that holds {bytes, path}, else one of
    `BINARY_COLUMNS` that holds bytes.

    Raises:
        DatasetError: If there is no such column.
    """
    import datasets

    features = table.features
    names = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
    names += [
        name
        for name, kind in features.items()
        if isinstance(kind, dict) and set(kind) == {"bytes", "path"}
    ]
    names += [
        name
        for name in BINARY_COLUMNS
        if getattr(features.get(name), "dtype", None) in ("binary", "large_binary")
    ]
    if not names:
        raise DatasetError(
            "A Hugging Face dataset must have an image column; got "
            f"{', '.join(f'{name} ({_kind(kind)})' for name, kind in features.items())}. "
            "Store images as the feature Image, {bytes, path} or bytes."
        )
    images = table.select_columns([names[0]])
    return images.cast_column(names[0], datasets.Image(decode=False)), names[0]


def labels_of(tables: dict[str, Any]) -> tuple[dict[str, NDArray[np.int64]], tuple[str, ...], str]:
    """Return the labels of each split, the class names they share, and the label column.

    A ClassLabel column is taken first, then one of `LABEL_COLUMNS` with integers or text, whose
    sorted values become the classes. Without either, all rows have `NO_LABEL`.
    """
    import datasets

    features = next(iter(tables.values())).features
    kinds = {name: features[name] for name in LABEL_COLUMNS if name in features}
    for name, kind in {**kinds, **features}.items():
        if isinstance(kind, datasets.ClassLabel):
            found = {split: _numbers(table[name]) for split, table in tables.items()}
            return found, tuple(kind.names), name
    for name, kind in kinds.items():
        if isinstance(kind, datasets.Value) and kind.dtype.startswith(("int", "uint", "string")):
            values = {split: list(table[name]) for split, table in tables.items()}
            classes = sorted({v for column in values.values() for v in column if v is not None})
            index = {value: i for i, value in enumerate(classes)}
            found = {
                split: _numbers([index.get(value) for value in column])
                for split, column in values.items()
            }
            return found, tuple(str(value) for value in classes), name
    return {split: _numbers([None] * len(table)) for split, table in tables.items()}, (), ""


def ids_of(table: Any) -> tuple[str, ...]:  # noqa: ANN401
    """Return the first of `ID_COLUMNS` whose values are unique, else zero-padded row numbers."""
    for name in ID_COLUMNS:
        if name in table.features:
            values = list(table[name])
            if all(isinstance(v, str | int) for v in values) and len(set(values)) == len(values):
                return tuple(str(value) for value in values)
    digits = len(str(max(len(table) - 1, 0)))
    return tuple(f"{row:0{digits}d}" for row in range(len(table)))


def check_alike(tables: dict[str, Any]) -> None:
    """Refuse splits with different columns.

    Raises:
        DatasetError: With the columns that are not in all.
    """
    columns = [set(table.features) for table in tables.values()]
    differing = set.union(*columns) - set.intersection(*columns)
    if differing:
        raise DatasetError(
            f"All splits must have the same columns; {some_of(sorted(differing))} are not in "
            f"each of {', '.join(tables)}. Open the splits as separate datasets."
        )


def _numbers(values: Sequence[int | None]) -> NDArray[np.int64]:
    return np.array([NO_LABEL if value is None else value for value in values], dtype=np.int64)


def _kind(kind: object) -> str:
    return str(getattr(kind, "dtype", None) or type(kind).__name__)
