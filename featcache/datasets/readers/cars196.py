"""Cars196 by class for retrieval: the first 98 models to train, the other 98 to test.

    ROOT/cars_annos.mat      `annotations` (relative_im_path, bbox_*, class, test), `class_names`
    ROOT/car_ims/000001.jpg

Arguments of a split: `first` and `last`, the classes in it, from 1. All images of a class are in
one split, whatever the classification split (`test`) says.
"""

from __future__ import annotations

from pathlib import Path

from featcache.datasets.dataset import Split
from featcache.datasets.listed import Listed, existing, listed_split, refuse
from featcache.datasets.recorded import Record


def read(record: Record, root: Path, split: str) -> Split:
    """Read a split; rows are in the order of the table.

    Raises:
        DatasetError: If a file is missing, or the table is not of that form.
    """
    from scipy.io import loadmat

    file = existing(record, root, "cars_annos.mat")
    first, last = record.splits[split]["first"], record.splits[split]["last"]
    try:
        table = loadmat(str(file), squeeze_me=True)
        classes = [str(name) for name in table["class_names"]]
        images = [(str(row["relative_im_path"]), int(row["class"])) for row in table["annotations"]]
    except (KeyError, TypeError, ValueError) as error:
        refuse(record, root, f"{file.name} is not of its form: {error!r}")
    rows = [Listed(path, label - 1) for path, label in images if first <= label <= last]
    return listed_split(record, split, root, rows, classes)
