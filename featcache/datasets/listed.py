"""Splits made of files that a list, a table or folders name: what all readers of files share."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from featcache.datasets.cropped import Box, CroppedFiles
from featcache.datasets.dataset import NO_LABEL, ImageReader, Split
from featcache.datasets.images import FileImages
from featcache.datasets.recorded import Record
from featcache.datasets.source import some_of, text_id
from featcache.errors import DatasetError


@dataclass(frozen=True, slots=True)
class Listed:
    """One row of a split before it is known whether its file is there."""

    file: str
    """Below the folder of the split, with `/`."""
    label: int = NO_LABEL
    id: str = ""
    """The file if empty."""
    box: Box | None = None


def listed_split(
    record: Record,
    split: str,
    folder: Path,
    rows: Iterable[Listed],
    classes: Sequence[str] = (),
    *,
    border: int = 0,
) -> Split:
    """Return the split of the rows whose files are there, in their order.

    Where the record says how many rows there must be, files that are missing are left out, and
    their number is refused later unless a part is asked for; where it does not, they are refused.

    Args:
        record: The dataset.
        split: Name of the split.
        folder: Where the files lie.
        rows: All rows; either each has a box or none has.
        classes: Names of the classes; a label is `NO_LABEL` or an index into them.
        border: Pixels taken off each side of each image.

    Raises:
        DatasetError: If a file is missing, a row is there twice, or a label is that of no class.
    """
    listed = list(rows)
    kept = [row for row in listed if _is_there(folder, row.file)]
    if len(kept) < len(listed) and split not in record.rows:
        missing = [row.file for row in listed if not _is_there(folder, row.file)]
        refuse(record, folder, f"its files {some_of(missing, 3)} are missing there")
    labels = np.array([row.label for row in kept], dtype=np.int64)
    ids = tuple(text_id(row.id or row.file) for row in kept)
    if len(set(ids)) < len(ids):
        refuse(record, folder, f"{len(ids) - len(set(ids))} rows are listed twice")
    if len(kept) and not NO_LABEL <= labels.min() <= labels.max() < max(1, len(classes)):
        got = f"its labels reach from {labels.min()} to {labels.max()}, with {len(classes)} classes"
        refuse(record, folder, got)
    files = FileImages(os.path.abspath(folder), tuple(row.file for row in kept))  # noqa: PTH100
    boxes = tuple(row.box for row in kept if row.box is not None)
    images: ImageReader = CroppedFiles(files, border, boxes) if border or boxes else files
    return Split(
        dataset=record.name,
        name=split,
        ids=ids,
        labels=labels,
        class_names=tuple(classes),
        images=images,
        facts=record.facts,
    )


def existing(record: Record, root: Path, *alternatives: str) -> Path:
    """Return the first of some files or folders below `root` that is there.

    Raises:
        DatasetError: If none is, with the way to get it.
    """
    for name in alternatives:
        if (root / name).exists():
            return root / name
    return refuse(record, root, f"there is no {' and no '.join(map(repr, alternatives))}")


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file that are not empty, without spaces around them."""
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    return [line.strip() for line in lines if line.strip()]


def refuse(record: Record, root: Path, got: str) -> NoReturn:
    """Refuse files that are not as they must be.

    Raises:
        DatasetError: With what was got, and the way to get the right ones.
    """
    raise DatasetError(
        f"The files of {record.name} must lie in {str(root)!r} as they were published; {got}. "
        f"{record.get}"
    )


def _is_there(folder: Path, file: str) -> bool:
    return os.path.exists(f"{folder}/{file}")  # noqa: PTH110  a hot loop over str
