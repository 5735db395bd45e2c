"""Folders of images that are called like classes of ImageNet: by WordNet id, or by index.

    ROOT/FOLDER/n01440764/*.jpg      ImageNet-A, -R, -Sketch
    ROOT/FOLDER/0/*.jpeg             ImageNet-V2: 0 to 999, to be sorted as numbers

Arguments of a split: `folder` (one, or several of which the first that is there is taken) and
`numbered` (whether the names are indices). The classes are those of the record's `class_subset`,
else all of ImageNet's; their names are WordNet ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from featcache.datasets.dataset import Split
from featcache.datasets.folders import Folder, scan
from featcache.datasets.imagenet import imagenet_wnids
from featcache.datasets.listed import Listed, existing, listed_split, refuse
from featcache.datasets.recorded import Record
from featcache.datasets.source import some_of


def read(record: Record, root: Path, split: str) -> Split:
    """Read a split; rows are ordered by class and file name.

    Raises:
        DatasetError: If there is no such folder, or if one in it is no class of the dataset.
    """
    given = record.splits[split]
    folder = given.get("folder", ".")
    names = [folder] if isinstance(folder, str) else folder
    return wnid_split(
        record, existing(record, root, *names), split, is_numbered=bool(given.get("numbered"))
    )


def wnid_split(record: Record, folder: Path, split: str, *, is_numbered: bool = False) -> Split:
    """Return the split of the class folders in `folder`.

    Raises:
        DatasetError: If one of them is no class of the dataset.
    """
    subset = record.facts.get("class_subset")
    classes = tuple(subset["classes"]) if subset else imagenet_wnids()
    known = map(str, range(len(classes))) if is_numbered else classes
    index = {name: label for label, name in enumerate(known)}
    found = scan(str(folder)).folders
    if strange := [name for name in found if name not in index]:
        example = "0" if is_numbered else classes[0]
        got = f"{some_of(strange)} is no class of it (such as {example!r})"
        refuse(record, folder, got)
    rows = _rows(sorted(found, key=index.__getitem__), found, index)
    return listed_split(record, split, folder, rows, classes)


def _rows(
    names: Sequence[str], folders: dict[str, Folder], index: dict[str, int]
) -> Iterator[Listed]:
    for name in names:
        for image in folders[name].images():
            yield Listed(f"{name}/{image}", index[name])
