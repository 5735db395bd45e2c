"""Pascal VOC's objects, and which of its 20 classes are in an image.

    ROOT/ImageSets/Main/trainval.txt        000005
    ROOT/Annotations/000005.xml             <object><name>chair</name><difficult>0</difficult>...
    ROOT/JPEGImages/000005.jpg

Arguments of a split: `list` (the file of the names of its images) and `difficult`, `absent` or
`present`: what an image counts as for a class of which it has only objects marked as difficult.
Published boxes count pixels from 1 and include the last one; ours count from 0 and end behind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as Xml

import numpy as np

from featcache.datasets.annotations import Annotations, Boxes
from featcache.datasets.dataset import Split
from featcache.datasets.label_sets import label_sets, set_labels
from featcache.datasets.listed import Listed, existing, listed_split, read_lines, refuse
from featcache.datasets.recorded import Record


def read(record: Record, root: Path, split: str) -> Split:
    """Read a split; rows are in the order of the list.

    Each set of classes that occurs in any split is a class.

    Raises:
        DatasetError: If a file is missing, or if an annotation cannot be read.
    """
    found = {name: _sets(record, root, name) for name in record.splits}
    names = label_sets(*(sets.values() for sets in found.values()))
    labels = set_labels(found[split].values(), names)
    rows = (Listed(f"{one}.jpg", label) for one, label in zip(found[split], labels, strict=True))
    return listed_split(record, split, existing(record, root, "JPEGImages"), rows, names)


def annotated(record: Record, root: Path, split: str) -> Annotations:
    """Return the objects of each image of a split.

    Raises:
        DatasetError: If a file is missing, or if an annotation cannot be read.
    """
    files = {f"{name}.jpg": file for name, file in _files(record, root, split).items()}
    labels = {name: label for label, name in enumerate(CLASSES)}

    def draw(row_id: str) -> Boxes:
        return _boxes(record, root, files[row_id], labels)

    return Annotations(CLASSES, tuple(files), draw)


CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
"""In the order of the challenge, which is that of the alphabet."""


class _Object(NamedTuple):
    name: str
    is_difficult: bool
    corners: tuple[float, ...]
    """As published; empty if it has no box."""


def _files(record: Record, root: Path, split: str) -> dict[str, Path]:
    """Return the annotations of a split that are there, by the name of the image."""
    folder = existing(record, root, "Annotations")
    lines = read_lines(existing(record, root, str(record.splits[split]["list"])))
    files = {name: folder / f"{name}.xml" for name in (line.split()[0] for line in lines)}
    return {name: file for name, file in files.items() if file.exists()}


def _sets(record: Record, root: Path, split: str) -> dict[str, frozenset[str]]:
    """Return the classes in each image of a split."""
    with_difficult = record.splits[split]["difficult"] == "present"
    return {
        name: frozenset(
            one.name
            for one in _objects(record, root, file)
            if with_difficult or not one.is_difficult
        )
        for name, file in _files(record, root, split).items()
    }


def _boxes(record: Record, root: Path, file: Path, labels: Mapping[str, int]) -> Boxes:
    found = _objects(record, root, file)
    if strange := [one.name for one in found if one.name not in labels or not one.corners]:
        refuse(record, root, f"{file.name!r} has an object without class or box: {strange[0]!r}")
    corners = np.array([one.corners for one in found], dtype=np.float32).reshape(-1, 4)
    corners[:, :2] -= 1
    sides = corners[:, 2:] - corners[:, :2]
    return Boxes(
        corners=corners,
        labels=np.array([labels[one.name] for one in found], dtype=np.int64),
        is_crowd=np.zeros(len(found), dtype=np.bool_),
        is_difficult=np.array([one.is_difficult for one in found], dtype=np.bool_),
        areas=sides.prod(axis=1),
    )


def _objects(record: Record, root: Path, file: Path) -> list[_Object]:
    try:
        return [
            _Object(
                name=one.findtext("name", "").strip(),
                is_difficult=one.findtext("difficult", "0").strip() == "1",
                corners=_corners(one.find("bndbox")),
            )
            for one in Xml.parse(file).getroot().findall("object")
        ]
    except (Xml.ParseError, ValueError) as error:
        return refuse(record, root, f"{file.name!r} is no XML of objects: {error}")


def _corners(box: Xml.Element | None) -> tuple[float, ...]:
    edges = ("xmin", "ymin", "xmax", "ymax")
    return () if box is None else tuple(float(box.findtext(edge, "")) for edge in edges)
