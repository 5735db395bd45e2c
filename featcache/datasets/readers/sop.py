"""Stanford Online Products: a table each of train and test, with other classes in either.

    ROOT/Ebay_train.txt      image_id class_id super_class_id path
                             1 1 1 bicycle_final/111085122871_0.JPG
    ROOT/Ebay_test.txt
    ROOT/bicycle_final/*.JPG

Argument of a split: `table`. Classes are called by their numbers, 1 to 22634 in both splits.
"""

from __future__ import annotations

from pathlib import Path

from featcache.datasets.dataset import Split
from featcache.datasets.listed import Listed, existing, listed_split, read_lines, refuse
from featcache.datasets.recorded import Record

HEADER = "image_id class_id super_class_id path"


def read(record: Record, root: Path, split: str) -> Split:
    """Read a split; rows are in the order of the table.

    Raises:
        DatasetError: If a file is missing, or the table is not of that form.
    """
    file = existing(record, root, record.splits[split]["table"])
    header, *lines = read_lines(file) or [""]
    if header != HEADER:
        refuse(record, root, f"{file.name} begins with {header[:80]!r}, not with {HEADER!r}")
    try:
        fields = [line.split(maxsplit=3) for line in lines]
        rows = [Listed(path, int(label) - 1) for _, label, _, path in fields]
    except ValueError as error:
        refuse(record, root, f"{file.name} has a line of another form: {error}")
    names = [str(number + 1) for number in range(int(record.facts["classes"]))]
    return listed_split(record, split, root, rows, names)
