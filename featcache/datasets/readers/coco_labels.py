"""Tables as of COCO that give each image one category: iNaturalist's competitions.

    ROOT/train.json            {"images": [{"id": 0, "file_name": "train/.../x.jpg"}, ...],
                                "annotations": [{"image_id": 0, "category_id": 7}, ...],
                                "categories": [{"id": 7, "name": "Abaeis nicippe"}, ...]}
    ROOT/train/.../x.jpg

Argument of a split: `table`, the file. Classes are the categories in the order of their ids.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from featcache.datasets.dataset import NO_LABEL, Split
from featcache.datasets.listed import Listed, existing, listed_split, refuse
from featcache.datasets.recorded import Record


def read(record: Record, root: Path, split: str) -> Split:
    """Read a split; rows are in the order of the table's images.

    A name that several categories have is made unique by the category's id.

    Raises:
        DatasetError: If the file is missing, or if it is no such table.
    """
    file = existing(record, root, str(record.splits[split]["table"]))
    try:
        table = json.loads(file.read_bytes())
        ids = sorted(one["id"] for one in table["categories"])
        index = {one: label for label, one in enumerate(ids)}
        labels = {one["image_id"]: index[one["category_id"]] for one in table["annotations"]}
        images = [(one["file_name"], labels.get(one["id"], NO_LABEL)) for one in table["images"]]
        names = _names(table["categories"])
    except (ValueError, KeyError, TypeError) as error:
        got = f"{file.name!r} is no table as of COCO ({type(error).__name__}: {error})"
        refuse(record, root, got)
    rows = (Listed(str(name), label) for name, label in images)
    return listed_split(record, split, root, rows, names)


def _names(categories: Sequence[Mapping[str, Any]]) -> list[str]:
    count = Counter(str(one["name"]) for one in categories)
    return [
        str(one["name"]) if count[str(one["name"])] == 1 else f"{one['name']} {one['id']}"
        for one in sorted(categories, key=lambda one: one["id"])
    ]
