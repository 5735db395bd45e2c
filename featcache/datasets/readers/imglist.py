"""Lists of images, one line each: a path, a space, the index of the class or -1 for none.

OpenOOD's `benchmark_imglist`, VisDA-2017's `image_list.txt` and DomainNet's `*_train.txt` are such.
Arguments of a split:

    list        the file, or several of which the first that is there is taken
    images      where its paths start
    names       the names of the classes: a list; `imagenet` for WordNet ids; nothing if the rows
                have no labels
    names_from  lists (a pattern) in which the folder of an image is the name of its class
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from featcache.datasets.dataset import NO_LABEL, Split
from featcache.datasets.imagenet import imagenet_wnids
from featcache.datasets.listed import Listed, existing, listed_split, read_lines, refuse
from featcache.datasets.recorded import Record


def read(record: Record, root: Path, split: str) -> Split:
    """Read a split; rows are in the order of the list.

    Raises:
        DatasetError: If a file is missing, or a line is not of that form.
    """
    given = record.splits[split]
    lists = given["list"]
    file = existing(record, root, *([lists] if isinstance(lists, str) else lists))
    folder = existing(record, root, given.get("images", "."))
    return listed_split(
        record, split, folder, read_list(record, file), _classes(record, root, split)
    )


def read_list(record: Record, file: Path) -> list[Listed]:
    """Return the rows of a list.

    A path may hold spaces; what stands after the last one is the label. A label that is a mapping,
    as OpenOOD's v1.0 has them, is refused.

    Raises:
        DatasetError: With the first line that is not of that form.
    """
    rows = []
    for number, line in enumerate(read_lines(file), start=1):
        path, _, label = line.rpartition(" ")
        if not path or not _is_label(label):
            got = f"line {number} of {file.name!r} is {line[:80]!r}, not a path and a label"
            refuse(record, file.parent, got)
        rows.append(Listed(path.strip(), int(label)))
    return rows


def _is_label(text: str) -> bool:
    return text.isdecimal() or text == str(NO_LABEL)


def _classes(record: Record, root: Path, split: str) -> tuple[str, ...]:
    given = record.splits[split]
    if pattern := given.get("names_from"):
        return _folder_names(record, root, pattern)
    names = given.get("names", ())
    return imagenet_wnids() if names == "imagenet" else tuple(names)


def _folder_names(record: Record, root: Path, pattern: str) -> tuple[str, ...]:
    """Return the class names that lists give by the folders of their images.

    Every list is read, as one may lack a class; so the names do not depend on the split.
    """
    names: dict[int, str] = {}
    for file in sorted(root.glob(pattern)):
        for row in read_list(record, file):
            name = PurePosixPath(row.file).parent.name
            if names.setdefault(row.label, name) != name:
                got = f"label {row.label} is both {names[row.label]!r} and {name!r} in its lists"
                refuse(record, root, got)
    n_classes = int(record.facts.get("classes", 0))
    return tuple(names.get(label, f"class {label}") for label in range(n_classes))
