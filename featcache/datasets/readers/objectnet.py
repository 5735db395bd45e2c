"""ObjectNet 1.0: folders of objects, and tables of which of them are classes of ImageNet.

    ROOT/images/air_freshener/*.png
    ROOT/mappings/folder_to_objectnet_label.json      {"air_freshener": "Air freshener", ...}
    ROOT/mappings/objectnet_to_imagenet_1k.json       {"Alarm clock": "analog clock; digital clock"}
    ROOT/mappings/imagenet_to_label_2012_v2           a label a line, by its number in 2012
    ROOT/mappings/pytorch_to_imagenet_2012_id.json    {"0": 448, ...}: index to 2012 number

Argument of a split: `classes`, `all` or `imagenet` (those which are ImageNet's too). Class names
are ObjectNet's folders. Every image has a red border, which must go or it tells the dataset.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from featcache.datasets.dataset import Split
from featcache.datasets.folders import scan
from featcache.datasets.imagenet import imagenet_wnids
from featcache.datasets.listed import Listed, existing, listed_split, read_lines, refuse
from featcache.datasets.recorded import Record

BORDER = 2
"""Pixels of red on each side; the authors' own loader crops as many."""

_MAPPINGS = "mappings"


def read(record: Record, root: Path, split: str) -> Split:
    """Read a split; rows are ordered by folder and file name.

    With `classes: imagenet` the facts have `imagenet_classes`, from each class to the WordNet ids
    that count as it. A prediction is right if it is one of them.

    Raises:
        DatasetError: If a file is missing, or if the tables do not fit each other.
    """
    folder = existing(record, root, "images")
    table = _table(record, root, "folder_to_objectnet_label.json")
    overlap = imagenet_classes(record, root, table)
    only_overlap = record.splits[split]["classes"] == "imagenet"
    classes = sorted(overlap if only_overlap else table)
    found = listed_split(record, split, folder, _rows(folder, classes), classes, border=BORDER)
    if not only_overlap:
        return found
    mapping = {name: list(overlap[name]) for name in classes}
    return replace(found, facts={**found.facts, "imagenet_classes": mapping})


def imagenet_classes(
    record: Record, root: Path, folder_labels: Mapping[str, str]
) -> dict[str, tuple[str, ...]]:
    """Return ObjectNet's folders that are ImageNet classes too, to the WordNet ids of those.

    Args:
        record: The dataset.
        root: Its folder.
        folder_labels: Folder to ObjectNet's label.

    Raises:
        DatasetError: If a table names what another lacks.
    """
    numbers = _table(record, root, "pytorch_to_imagenet_2012_id.json")
    index = {int(number): int(index) for index, number in numbers.items()}
    labels = read_lines(existing(record, root, f"{_MAPPINGS}/imagenet_to_label_2012_v2"))
    wnids = imagenet_wnids()
    by_label = {
        label: wnids[index[number]] for number, label in enumerate(labels) if number in index
    }
    folders = {label: name for name, label in folder_labels.items()}
    found = {}
    for label, text in _table(record, root, "objectnet_to_imagenet_1k.json").items():
        names = [name.strip() for name in text.split(";")]
        if label not in folders or any(name not in by_label for name in names):
            refuse(record, root, f"{label!r}: {text!r} names classes that other tables lack")
        found[folders[label]] = tuple(by_label[name] for name in names)
    return found


def _table(record: Record, root: Path, name: str) -> Mapping[str, str]:
    file = existing(record, root, f"{_MAPPINGS}/{name}")
    try:
        table: Mapping[str, str] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        refuse(record, root, f"{_MAPPINGS}/{name} is no JSON: {error}")
    return table


def _rows(folder: Path, classes: list[str]) -> Iterator[Listed]:
    for label, name in enumerate(classes):
        if (folder / name).is_dir():
            for image in scan(str(folder / name)).images():
                yield Listed(f"{name}/{image}", label)
