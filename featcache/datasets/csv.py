"""`csv:FILE`: a table of images with the columns path, label, split and id.

Only `path` is needed. Paths are relative to the table's folder, or absolute; `.tsv` is separated
by tabs. Class names are the labels, sorted; by value if all are integers.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featcache.datasets.dataset import NO_LABEL, Dataset, Split
from featcache.datasets.images import FileImages
from featcache.datasets.source import (
    SPLIT_ALIASES,
    LoadedDataset,
    Source,
    class_facts,
    order_splits,
    path_name,
)
from featcache.errors import DatasetError

COLUMNS = ("path", "label", "split", "id")
_INTEGER = re.compile(r"-?[0-9]{1,18}")
_NAMED = 10


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    path: str
    label: str
    split: str
    id: str


def open_csv(rest: str) -> Dataset:
    """Open a table of images; no image is read.

    Args:
        rest: The table's path; `~` is the home directory.

    Raises:
        DatasetError: If the table cannot be read, has no rows, lacks the path column, has rows
            with empty values or repeated ids, or if none of its images exists.
    """
    file = Path(rest).expanduser()
    rows, columns = _read(file)
    folder = os.path.abspath(file.parent)  # noqa: PTH100  links stay as they are
    _check(file, rows, columns, folder)
    labels = {row.label for row in rows} if "label" in columns else set()
    classes = tuple(sorted(labels, key=_by_value if all(map(_INTEGER.fullmatch, labels)) else str))
    splits: dict[str, list[_Row]] = {}
    for row in rows:
        name = SPLIT_ALIASES.get(row.split.lower(), row.split) if "split" in columns else "all"
        splits.setdefault(name, []).append(row)
    dataset = path_name(rest, is_file=True)
    return LoadedDataset(
        dataset,
        order_splits(set(splits)),
        lambda split: _split(dataset, split, splits[split], classes, folder),
    )


def _split(
    dataset: str, name: str, rows: Sequence[_Row], classes: tuple[str, ...], folder: str
) -> Split:
    index = {label: i for i, label in enumerate(classes)}
    return Split(
        dataset=dataset,
        name=name,
        ids=tuple(row.id for row in rows),
        labels=np.array([index.get(row.label, NO_LABEL) for row in rows], dtype=np.int64),
        class_names=classes,
        images=FileImages(folder, tuple(row.path for row in rows)),
        facts=class_facts(len(classes)),
    )


def _read(file: Path) -> tuple[list[_Row], list[str]]:
    """Return the rows and the names of the columns, both without surrounding blanks."""
    delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            lines = csv.reader(stream, delimiter=delimiter, strict=True)
            columns = [name.strip().lower() for name in next(lines, [])]
            _check_columns(file, columns)
            rows = [_row(file, columns, line, lines.line_num) for line in lines if line]
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"A table must be UTF-8; {str(file)!r} is not ({error.reason}). Save it as UTF-8."
        ) from error
    except csv.Error as error:
        raise DatasetError(
            f"A table must be valid CSV; {str(file)!r} line {lines.line_num}: {error}. Mend the "
            "line."
        ) from error
    except OSError as error:
        raise DatasetError(
            f"`csv:FILE` must name a readable file; {str(file)!r}: {error.strerror}. "
            "Check the path."
        ) from error
    return rows, columns


def _row(file: Path, columns: list[str], values: list[str], line: int) -> _Row:
    if len(values) != len(columns):
        raise DatasetError(
            f"Each row must have {len(columns)} values, as the header has; {str(file)!r} line "
            f"{line} has {len(values)}. Quote values that hold the separator."
        )
    of = dict(zip(columns, (value.strip() for value in values), strict=True))
    path = of["path"].replace("\\", "/")
    return _Row(line, path, of.get("label", ""), of.get("split", ""), of.get("id", path))


def _check_columns(file: Path, columns: list[str]) -> None:
    repeated = [name for name in COLUMNS if columns.count(name) > 1]
    if "path" not in columns or repeated:
        got = f"{repeated[0]!r} twice" if repeated else ", ".join(map(repr, columns)) or "nothing"
        raise DatasetError(
            f"A table's first line must name the columns path[,label][,split][,id]; {str(file)!r} "
            f"has {got}. Add or mend the header."
        )


def _check(file: Path, rows: list[_Row], columns: list[str], folder: str) -> None:
    if not rows:
        raise DatasetError(
            f"A table must have at least one row below the header; {str(file)!r} has none. Add one."
        )
    for column in COLUMNS:
        empty = [row.line for row in rows if column in columns and not getattr(row, column)]
        if empty:
            article = "an" if column == "id" else "a"
            raise DatasetError(
                f"Each row must have {article} {column}; {str(file)!r} has none in "
                f"{_lines(empty)}. "
                "Fill them in, or leave the rows out."
            )
    first: dict[str, int] = {}
    for row in rows:
        if (line := first.setdefault(row.id, row.line)) != row.line:
            raise DatasetError(
                f"Each row must have an id of its own; {str(file)!r} has {row.id!r} in lines "
                f"{line} and {row.line}. Remove one, or add an `id` column."
            )
    images = (os.path.join(folder, row.path) for row in rows)  # noqa: PTH118
    if not any(map(os.path.exists, images)):
        raise DatasetError(
            f"The images of a table must exist; none of the {len(rows)} in {str(file)!r} does, the "
            f"first would be {os.path.join(folder, rows[0].path)!r}. "  # noqa: PTH118
            "Write paths relative to the table's folder, or absolute."
        )


def _lines(numbers: list[int]) -> str:
    more = f" and {len(numbers) - _NAMED} more" if len(numbers) > _NAMED else ""
    word = "line" if len(numbers) == 1 else "lines"
    return f"{word} {', '.join(map(str, numbers[:_NAMED]))}{more}"


def _by_value(label: str) -> tuple[int, str]:
    return int(label), label


SOURCE = Source(name=lambda rest: path_name(rest, is_file=True), open=open_csv)
