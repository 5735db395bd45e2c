"""INRIA Copydays: originals, and copies of them under three kinds of attack.

    ROOT/original/200000.jpg        the first four digits name the scene
    ROOT/strong/200001.jpg          printed, scanned, painted over, ...
    ROOT/jpegqual/3/200001.jpg      quality 3 to 75
    ROOT/crops/10/200001.jpg        10 % to 80 % cut away

Argument of a split: `folders`, the folders it is made of. Classes are the scenes.
"""

from __future__ import annotations

import re
from pathlib import Path

from featcache.datasets.dataset import Split
from featcache.datasets.folders import scan
from featcache.datasets.listed import Listed, existing, listed_split, refuse
from featcache.datasets.recorded import Record

_NAME = re.compile(r"(\d{4})\d{2}\.\w+")


def read(record: Record, root: Path, split: str) -> Split:
    """Read a split; rows are ordered by folder as given, then by file name.

    Raises:
        DatasetError: If a folder is missing, or a file is called otherwise.
    """
    scenes = sorted({_scene(record, root, name) for name in _files(record, root, "original")})
    index = {scene: label for label, scene in enumerate(scenes)}
    rows = []
    for folder in record.splits[split]["folders"]:
        for name in _files(record, root, folder):
            if (scene := _scene(record, root, name)) not in index:
                refuse(record, root, f"{folder}/{name} has no original")
            rows.append(Listed(f"{folder}/{name}", index[scene]))
    return listed_split(record, split, root, rows, scenes)


def _files(record: Record, root: Path, folder: str) -> list[str]:
    return scan(str(existing(record, root, folder))).direct


def _scene(record: Record, root: Path, name: str) -> str:
    found = _NAME.fullmatch(name)
    return found[1] if found else refuse(record, root, f"{name!r} is not called like 200001.jpg")
