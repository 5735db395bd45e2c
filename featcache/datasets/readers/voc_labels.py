"""Pascal VOC as images of several classes: which of the 20 are in an image.

    ROOT/ImageSets/Main/trainval.txt        000005
    ROOT/Annotations/000005.xml             <object><name>chair</name><difficult>0</difficult>...
    ROOT/JPEGImages/000005.jpg

Arguments of a split: `list` (the file of the names of its images) and `difficult`, `absent` or
`present`: what an image counts as for a class of which it has only objects marked as difficult.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as Xml

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


def _sets(record: Record, root: Path, split: str) -> dict[str, frozenset[str]]:
    """Return the classes in each image of a split; of those that are there if a part is."""
    given = record.splits[split]
    folder, with_difficult = existing(record, root, "Annotations"), given["difficult"] == "present"
    sets = {}
    for line in read_lines(existing(record, root, str(given["list"]))):
        name = line.split()[0]
        file = folder / f"{name}.xml"
        if file.exists():
            sets[name] = _classes(record, root, file, with_difficult=with_difficult)
    return sets


def _classes(record: Record, root: Path, file: Path, *, with_difficult: bool) -> frozenset[str]:
    try:
        objects = Xml.parse(file).getroot().findall("object")
    except Xml.ParseError as error:
        refuse(record, root, f"{file.name!r} is no XML: {error}")
    return frozenset(
        one.findtext("name", "").strip()
        for one in objects
        if with_difficult or one.findtext("difficult", "0").strip() != "1"
    )
