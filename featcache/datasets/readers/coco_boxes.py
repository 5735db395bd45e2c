"""COCO's objects: boxes and outlines of 80 kinds of things.

    ROOT/annotations/instances_val2017.json   {"images": [{"id": 9, "file_name": "0..9.jpg"}, ...],
                                               "annotations": [{"image_id": 9, "category_id": 51,
                                                   "bbox": [left, top, width, height], "area": 3.5,
                                                   "iscrowd": 0, "segmentation": [...]}, ...],
                                               "categories": [{"id": 51, "name": "bowl"}, ...]}
    ROOT/val2017/000000000009.jpg

Arguments of a split: `table`, the file, and `images`, the folder. Categories are numbered from 0 in
the order of their ids, which have gaps. As images of several classes, crowds do not count.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featcache.datasets.annotations import Annotations, Boxes
from featcache.datasets.dataset import Split
from featcache.datasets.label_sets import label_sets, set_labels
from featcache.datasets.listed import Listed, existing, listed_split, refuse
from featcache.datasets.recorded import Record
from featcache.digest import Json


@dataclass(frozen=True, slots=True)
class _Table:
    class_names: tuple[str, ...]
    objects: Mapping[str, Sequence[Mapping[str, Json]]]
    """File to its objects, each with its class as `label`, in the order of the images."""

    def kinds(self) -> list[frozenset[str]]:
        """Return the classes in each image, without crowds."""
        return [
            frozenset(self.class_names[one["label"]] for one in drawn if not one.get("iscrowd", 0))
            for drawn in self.objects.values()
        ]


def read(record: Record, root: Path, split: str) -> Split:
    """Read a split; rows are in the order of the table's images.

    Each set of classes that occurs in any split whose table is there is a class.

    Raises:
        DatasetError: If the file is missing, or if it is no such table.
    """
    tables = {split: _table(record, root, split)}
    for name, given in record.splits.items():
        if name != split and (root / str(given["table"])).exists():
            tables[name] = _table(record, root, name)
    names = label_sets(*(table.kinds() for table in tables.values()))
    labels = set_labels(tables[split].kinds(), names)
    folder = existing(record, root, str(record.splits[split]["images"]))
    files = tables[split].objects
    rows = (Listed(file, label) for file, label in zip(files, labels, strict=True))
    return listed_split(record, split, folder, rows, names)


def annotated(record: Record, root: Path, split: str) -> Annotations:
    """Return the objects of each image of a split.

    Raises:
        DatasetError: If the file is missing, or if it is no such table.
    """
    table = _table(record, root, split)
    ids = tuple(table.objects)
    return Annotations(table.class_names, ids, lambda one: _boxes(table.objects[one]))


def _table(record: Record, root: Path, split: str) -> _Table:
    file = existing(record, root, str(record.splits[split]["table"]))
    try:
        table = json.loads(file.read_bytes())
        kinds = sorted((one["id"], str(one["name"])) for one in table["categories"])
        labels = {number: label for label, (number, _) in enumerate(kinds)}
        drawn = defaultdict(list)
        for one in table["annotations"]:
            _left, _top, _width, _height = one["bbox"]
            drawn[one["image_id"]].append({**one, "label": labels[one["category_id"]]})
        objects = {str(one["file_name"]): drawn[one["id"]] for one in table["images"]}
    except (ValueError, KeyError, TypeError) as error:
        got = f"{file.name!r} is no table of objects ({type(error).__name__}: {error})"
        refuse(record, root, got)
    return _Table(tuple(name for _, name in kinds), objects)


def _boxes(drawn: Sequence[Mapping[str, Json]]) -> Boxes:
    given = np.array([one["bbox"] for one in drawn], dtype=np.float64).reshape(-1, 4)
    corners = np.concatenate([given[:, :2], given[:, :2] + given[:, 2:]], axis=1)
    areas = [one.get("area", one["bbox"][2] * one["bbox"][3]) for one in drawn]
    return Boxes(
        corners=corners.astype(np.float32),
        labels=np.array([one["label"] for one in drawn], dtype=np.int64),
        is_crowd=np.array([one.get("iscrowd", 0) == 1 for one in drawn], dtype=np.bool_),
        is_difficult=np.zeros(len(drawn), dtype=np.bool_),
        areas=np.array(areas, dtype=np.float32),
        outlines=tuple(one.get("segmentation") for one in drawn),
    )
