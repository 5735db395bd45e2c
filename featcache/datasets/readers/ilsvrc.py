"""ImageNet of ILSVRC 2012, as its archives unpack, and as Kaggle lays it out.

    ROOT/train/n01440764/n01440764_18.JPEG
    ROOT/val/n01440764/ILSVRC2012_val_00000293.JPEG    in folders of classes, or
    ROOT/val/ILSVRC2012_val_00000001.JPEG              all in one folder, and beside it either
    ROOT/ILSVRC2012_devkit_t12/data/                   the ground truth and meta.mat, or
    ROOT/LOC_val_solution.csv                          Kaggle's table
    ROOT/ILSVRC/Data/CLS-LOC/{train,val}/              Kaggle's folders

Arguments of a split: `images` (train or val) and `list`, a file of the names of its images, such as
SimCLR's subsets. Ids and order do not depend on which of the layouts it is.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from featcache.datasets.dataset import Split
from featcache.datasets.folders import Folder, scan
from featcache.datasets.imagenet import imagenet_wnids
from featcache.datasets.listed import Listed, existing, listed_split, read_lines, refuse
from featcache.datasets.recorded import Record
from featcache.datasets.source import some_of

_KAGGLE = "ILSVRC/Data/CLS-LOC"
_DEVKIT = ("ILSVRC2012_devkit_t12/data", "data", ".")
_TRUTH = "ILSVRC2012_validation_ground_truth.txt"


def read(record: Record, root: Path, split: str) -> Split:
    """Read a split; train is ordered by class and file name, val by file name.

    Raises:
        DatasetError: If files are missing, or if a class or an image is not one of ImageNet.
    """
    given = record.splits[split]
    images, listed = str(given["images"]), given.get("list")
    folder = existing(record, root, images, f"{_KAGGLE}/{images}")
    labels = {wnid: label for label, wnid in enumerate(imagenet_wnids())}
    if listed:
        file = existing(record, root, listed, f"imagenet_subsets/{listed}", f"{images}/{listed}")
        rows = [(f"{name.partition('_')[0]}/{name}", name) for name in read_lines(file)]
        rows = [(path, path) for path, _ in sorted(rows)]
    else:
        found = scan(str(folder))
        if found.direct:
            return _flat(record, root, split, folder, found, labels)
        is_train = images == "train"
        rows = [(path, path if is_train else PurePosixPath(path).name) for path in found.images()]
        rows.sort(key=lambda row: row[1])
    _refuse_strange(record, folder, {path.partition("/")[0] for path, _ in rows}, labels)
    return listed_split(
        record,
        split,
        folder,
        (Listed(path, labels[path.partition("/")[0]], name) for path, name in rows),
        imagenet_wnids(),
    )


def _flat(
    record: Record, root: Path, split: str, folder: Path, found: Folder, labels: Mapping[str, int]
) -> Split:
    wnids = _truth(record, root)
    names = sorted(found.direct)
    if unknown := [name for name in names if PurePosixPath(name).stem not in wnids]:
        refuse(record, folder, f"{some_of(unknown, 3)} has no class in the ground truth")
    _refuse_strange(record, root, set(wnids.values()), labels)
    rows = [Listed(name, labels[wnids[PurePosixPath(name).stem]]) for name in names]
    return listed_split(record, split, folder, rows, imagenet_wnids())


def _refuse_strange(
    record: Record, folder: Path, wnids: set[str], labels: Mapping[str, int]
) -> None:
    if strange := sorted(wnids - labels.keys()):
        refuse(record, folder, f"{some_of(strange)} is no class of ImageNet (such as n01440764)")


def _truth(record: Record, root: Path) -> dict[str, str]:
    """Return the WordNet id of each image of val, by its name without extension."""
    kaggle = root / "LOC_val_solution.csv"
    if kaggle.exists():
        with kaggle.open(encoding="utf-8", newline="") as lines:
            return {
                row["ImageId"]: row["PredictionString"].split()[0] for row in csv.DictReader(lines)
            }
    file = existing(record, root, *(f"{folder}/{_TRUTH}" for folder in _DEVKIT))
    wnids = _devkit_wnids(existing(record, file.parent, "meta.mat"))
    return {
        f"ILSVRC2012_val_{number:08d}": wnids[int(line)]
        for number, line in enumerate(read_lines(file), start=1)
    }


def _devkit_wnids(file: Path) -> dict[int, str]:
    """Return the WordNet id of each class by the devkit's number, which is not the sorted one."""
    from scipy.io import loadmat

    synsets = loadmat(str(file), squeeze_me=True)["synsets"]
    pairs = zip(synsets["ILSVRC2012_ID"], synsets["WNID"], strict=True)
    return {int(number): str(wnid) for number, wnid in pairs}
