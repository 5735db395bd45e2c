"""CUB-200-2011: tables of images, classes and the split, each line with the number of the image.

    ROOT/images.txt                  1 001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg
    ROOT/image_class_labels.txt      1 1
    ROOT/train_test_split.txt        1 0      (1 for train)
    ROOT/classes.txt                 1 001.Black_footed_Albatross
    ROOT/images/001.Black_footed_Albatross/*.jpg

Argument of a split: `is_train`, 1 or 0.
"""

from __future__ import annotations

from pathlib import Path

from featcache.datasets.dataset import Split
from featcache.datasets.listed import Listed, existing, listed_split, read_lines, refuse
from featcache.datasets.recorded import Record


def read(record: Record, root: Path, split: str) -> Split:
    """Read a split; rows are in the order of the images' numbers in the tables.

    Raises:
        DatasetError: If a file is missing, or if the tables do not fit each other.
    """
    images, labels = _table(record, root, "images"), _table(record, root, "image_class_labels")
    side, classes = _table(record, root, "train_test_split"), _table(record, root, "classes")
    if not images.keys() == labels.keys() == side.keys():
        refuse(record, root, "its tables are about different images")
    index = {number: label for label, number in enumerate(classes)}
    wanted = str(record.splits[split]["is_train"])
    try:
        rows = [
            Listed(file, index[labels[number]])
            for number, file in images.items()
            if side[number] == wanted
        ]
    except KeyError as error:
        refuse(record, root, f"classes.txt lacks the class {error}")
    return listed_split(record, split, existing(record, root, "images"), rows, [*classes.values()])


def _table(record: Record, root: Path, name: str) -> dict[str, str]:
    lines = read_lines(existing(record, root, f"{name}.txt"))
    pairs = (line.partition(" ") for line in lines)
    return {number: text.strip() for number, _, text in pairs}
