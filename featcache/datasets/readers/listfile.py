"""Lists of images, one line each, whose class is a folder, a name or a number in the line.

    banded/banded_0002.jpg          DTD, SUN397, Food-101: the folder is the class
    1025794 707-320                 FGVC-Aircraft: the rest of the line is the class
    Abyssinian_100 1 1 1            Oxford-IIIT Pet: the second column is the number of the class
    images/train/000042.jpg 17      VTAB-1k: the same, from 0

Arguments of a split:

    list     the file
    images   where its paths start; suffix: what is added to each
    label    folder, rest or number; first: the lowest number (0)
    skip     how many folders of a path do not belong to the name of its class (0)
    classes  file of the class names, one a line, in order
    names    `stem`: a class is called as the files of it are, up to their last underscore

Without `classes` and `names` the classes are all that the lists of any split name, sorted; numbers
stay numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from featcache.datasets.dataset import Split
from featcache.datasets.listed import Listed, existing, listed_split, read_lines, refuse
from featcache.datasets.recorded import Record
from featcache.datasets.source import some_of


def read(record: Record, root: Path, split: str) -> Split:
    """Read a split; rows are in the order of the list.

    Raises:
        DatasetError: If a file is missing, or if a line names no class.
    """
    given = record.splits[split]
    folder = existing(record, root, given.get("images", "."))
    found = list(_lines(record, root, split))
    names = _class_names(record, root, split)
    index = {key: label for label, key in enumerate(names)}
    if strange := sorted({key for _, key in found if key not in index}):
        refuse(record, root, f"{some_of(strange)} in {given['list']!r} is no class of it")
    rows = (Listed(path, index[key]) for path, key in found)
    return listed_split(record, split, folder, rows, tuple(names.values()))


def _lines(record: Record, root: Path, split: str) -> Iterator[tuple[str, str]]:
    """Yield the path of each image and what names its class."""
    given = record.splits[split]
    for line in read_lines(existing(record, root, str(given["list"]))):
        if given["label"] == "folder":
            path, rest = line.lstrip("/"), ""
        else:
            path, _, rest = line.partition(" ")
        yield path + given.get("suffix", ""), _key(record, root, split, path, rest.strip())


def _key(record: Record, root: Path, split: str, path: str, rest: str) -> str:
    given = record.splits[split]
    if given["label"] == "folder":
        return "/".join(PurePosixPath(path).parent.parts[given.get("skip", 0) :])
    if given["label"] == "rest":
        return rest
    number = rest.partition(" ")[0]
    if not number.isdecimal():
        got = f"the line of {path!r} in {given['list']!r} has no number of a class"
        refuse(record, root, got)
    return str(int(number) - given.get("first", 0))


def _class_names(record: Record, root: Path, split: str) -> dict[str, str]:
    """Return what names a class in a line to the class's name, in the order of the classes."""
    given = record.splits[split]
    if file := given.get("classes"):
        keys = [line.lstrip("/") for line in read_lines(existing(record, root, file))]
        keys = ["/".join(PurePosixPath(key).parts[given.get("skip", 0) :]) for key in keys]
        return dict(zip(keys, keys, strict=True))
    if given["label"] == "number":
        numbers = [str(number) for number in range(record.facts["classes"])]
        names = _stems(record, root) if given.get("names") == "stem" else {}
        return {number: names.get(number, number) for number in numbers}
    listed = {key for name in record.splits for _, key in _lines(record, root, name)}
    return {key: key for key in sorted(listed)}


def _stems(record: Record, root: Path) -> dict[str, str]:
    """Return the class names by number, from the file names in all lists."""
    names: dict[str, str] = {}
    for split in record.splits:
        for path, number in _lines(record, root, split):
            name = PurePosixPath(path).stem.rpartition("_")[0]
            if names.setdefault(number, name) != name:
                got = f"class {number} is both {names[number]!r} and {name!r} in its lists"
                refuse(record, root, got)
    return names
