"""Folders of classes without an official split: EuroSAT, Caltech-101. The split is our own.

Arguments of a split:

    folder   where the class folders lie; or several, of which the first that is there is taken
    without  folders that are no classes
    part     train or test
    train    how much of each class is train: a number of images, or a share of them

Within a class, images are ordered by the SHA-256 of their path below `folder`; the first are train.
So the split needs no list, and is the same on each machine.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from featcache.datasets.dataset import Split
from featcache.datasets.folders import scan
from featcache.datasets.listed import Listed, existing, listed_split
from featcache.datasets.recorded import Record
from featcache.datasets.source import text_id


def read(record: Record, root: Path, split: str) -> Split:
    """Read a split; rows are ordered by class and file name.

    Raises:
        DatasetError: If there is no such folder.
    """
    given = record.splits[split]
    options = given["folder"] if isinstance(given["folder"], list) else [given["folder"]]
    folder = existing(record, root, *options)
    classes = {
        name: sorted(f"{name}/{image}" for image in inner.images())
        for name, inner in scan(str(folder)).folders.items()
        if name not in given.get("without", ())
    }
    rows = []
    for label, images in enumerate(classes.values()):
        train = train_part(images, given["train"])
        rows += [
            Listed(one, label) for one in images if (one in train) == (given["part"] == "train")
        ]
    return listed_split(record, split, folder, rows, tuple(map(text_id, classes)))


def train_part(images: list[str], train: float) -> set[str]:
    """Return the images of one class that are train.

    Args:
        images: Paths.
        train: How many if an integer, else which share of them, rounded.
    """
    count = train if isinstance(train, int) else round(train * len(images))
    ordered = sorted(images, key=lambda one: hashlib.sha256(text_id(one).encode()).digest())
    return set(ordered[: int(count)])
