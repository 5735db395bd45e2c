"""WILDS: tables of metadata that say for each image its class and its split.

    ROOT/metadata.csv                                                iwildcam_v2.0, images in train/
    ROOT/rgb_metadata.csv, ROOT/images/rgb_img_ROW.png               fmow_v1.1
    ROOT/metadata.csv, ROOT/patches/patient_P_node_N/*.png           camelyon17_v1.0

Splits are those of WILDS: train; id_val, id_test (like train); val, test (another camera, year or
hospital). Argument of a split: `table`, the dataset's name in WILDS. The record's `class_names` are
those of its classes; without them they are called by their numbers.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from featcache.datasets.dataset import Split
from featcache.datasets.listed import Listed, existing, listed_split, refuse
from featcache.datasets.recorded import Record

Row = Mapping[str, str]
Found = Iterator[tuple[str, str, str]]
"""(split, file, class or its number) per image."""


def read(record: Record, root: Path, split: str) -> Split:
    """Read a split; rows are in the order of the table.

    Raises:
        DatasetError: If a file is missing, or if the table lacks a column.
    """
    name, find = _TABLES[record.splits[split]["table"]]
    file = existing(record, root, name)
    classes = record.facts.get("class_names") or map(str, range(int(record.facts["classes"])))
    classes = tuple(classes)
    index = {one: label for label, one in enumerate(classes)}
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            found = [one for one in find(csv.DictReader(lines)) if one[0] == split]
        rows = [Listed(image, _label(label, index)) for _, image, label in found]
    except (KeyError, TypeError, ValueError) as error:
        refuse(record, file, f"its columns are not those of WILDS: {error}")
    return listed_split(record, split, root, rows, classes)


def _label(text: str, index: Mapping[str, int]) -> int:
    return index[text] if text in index else int(text)


def _iwildcam(table: Iterable[Row]) -> Found:
    for row in table:
        yield row["split"], f"train/{row['filename']}", row["y"]


def _fmow(table: Iterable[Row]) -> Found:
    """Yield the images; val is of 2013 to 2015, test of 2016 on, train and id_* are older.

    Pictures are numbered by their row in the table, withheld ones (`seq`) included.
    """
    for number, row in enumerate(table):
        year, part = int(row["timestamp"][:4]), row["split"]
        if year >= 2016:
            split = {"test": "test"}.get(part, "")
        elif year >= 2013:
            split = {"val": "val"}.get(part, "")
        else:
            split = {"train": "train", "val": "id_val", "test": "id_test"}.get(part, "")
        yield split, f"images/rgb_img_{number}.png", row["category"]


def _camelyon17(table: Iterable[Row]) -> Found:
    """Yield the patches; hospital 1 is val and 2 is test, whatever the column `split` says."""
    for row in table:
        split = {"1": "val", "2": "test"}.get(row["center"])
        node = f"patient_{row['patient']}_node_{row['node']}"
        file = f"patches/{node}/patch_{node}_x_{row['x_coord']}_y_{row['y_coord']}.png"
        yield split or {"0": "train", "1": "id_val"}[row["split"]], file, row["tumor"]


_TABLES: Mapping[str, tuple[str, Callable[[Iterable[Row]], Found]]] = {
    "iwildcam": ("metadata.csv", _iwildcam),
    "fmow": ("rgb_metadata.csv", _fmow),
    "camelyon17": ("metadata.csv", _camelyon17),
}
