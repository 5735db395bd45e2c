"""MATLAB's tables: Flowers-102 and Stanford Cars.

    ROOT/imagelabels.mat, ROOT/setid.mat, ROOT/jpg/image_00001.jpg
    ROOT/devkit/cars_train_annos.mat, ROOT/devkit/cars_meta.mat, ROOT/cars_train/00001.jpg

Arguments of a split of numbered files:

    labels       file and variable: the class of each image, from 1
    rows         file and variable: the numbers of the split's images
    pattern      of the file names; the classes are the record's `class_names`

and of one with annotations:

    annotations  a file, or several of which the first that is there is taken; its table has the
                 columns `fname` and `class`, from 1
    images       the folder of the images
    classes      file and variable: the names of the classes
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from featcache.datasets.dataset import Split
from featcache.datasets.listed import Listed, existing, listed_split, refuse
from featcache.datasets.recorded import Record


def read(record: Record, root: Path, split: str) -> Split:
    """Read a split; rows are in the order of the table.

    Raises:
        DatasetError: If a file or a variable in it is missing.
    """
    if "annotations" in record.splits[split]:
        return _annotated(record, root, split)
    return _numbered(record, root, split)


def _numbered(record: Record, root: Path, split: str) -> Split:
    given = record.splits[split]
    labels, numbers = (_variable(record, root, *given[key]) for key in ("labels", "rows"))
    rows = [
        Listed(str(given["pattern"]).format(number), int(labels[number - 1]) - 1)
        for number in numbers.tolist()
    ]
    return listed_split(record, split, root, rows, record.facts["class_names"])


def _annotated(record: Record, root: Path, split: str) -> Split:
    given = record.splits[split]
    options = given["annotations"]
    file = existing(record, root, *([options] if isinstance(options, str) else options))
    table = _variable(record, root, file.relative_to(root).as_posix(), "annotations")
    if "class" not in table.dtype.names:
        got = f"{file.name!r} has no column 'class': it is the one without labels"
        refuse(record, root, got)
    names = [str(name) for name in _variable(record, root, *given["classes"]).tolist()]
    pairs = zip(table["fname"].tolist(), table["class"].tolist(), strict=True)
    rows = [Listed(str(name), int(label) - 1) for name, label in pairs]
    folder = existing(record, root, str(given["images"]))
    return listed_split(record, split, folder, rows, names)


def _variable(record: Record, root: Path, file: str, name: str) -> Any:  # noqa: ANN401
    """Return a variable as a one-dimensional array."""
    from numpy import atleast_1d
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    path = existing(record, root, file)
    try:
        return atleast_1d(loadmat(str(path), squeeze_me=True, variable_names=[name])[name])
    except (KeyError, ValueError, TypeError, NotImplementedError, MatReadError) as error:
        return refuse(record, root, f"{file!r} has no variable {name!r} to be read: {error}")
