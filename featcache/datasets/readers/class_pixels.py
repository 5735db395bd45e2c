"""Images with the class of every pixel: Pascal VOC's and Cityscapes'.

    ROOT/ImageSets/Segmentation/val.txt                            2007_000033
    ROOT/JPEGImages/2007_000033.jpg
    ROOT/SegmentationClass/2007_000033.png                         indices into a palette

    ROOT/leftImg8bit/val/lindau/lindau_000000_000019_leftImg8bit.png
    ROOT/gtFine/val/lindau/lindau_000000_000019_gtFine_labelIds.png

Arguments of a split: `list`, the file of the names of its images, or `city`, the folder of its
cities; `classes`, the names of what is counted, by the number that a pixel has. A pixel of any
other number is `IGNORED`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featcache.datasets.annotations import IGNORED, Annotations
from featcache.datasets.dataset import Split
from featcache.datasets.listed import Listed, existing, listed_split, read_lines, refuse
from featcache.datasets.recorded import Record

_PHOTO, _DRAWN = "_leftImg8bit.png", "_gtFine_labelIds.png"
_LEVELS = 256


def read(record: Record, root: Path, split: str) -> Split:
    """Read a split; rows are in the order of the list, or sorted. They have no label.

    Raises:
        DatasetError: If a file is missing.
    """
    folder, names = _photographs(record, root, split)
    return listed_split(record, split, folder, [Listed(name) for name in names])


def annotated(record: Record, root: Path, split: str) -> Annotations:
    """Return the class of every pixel of each image of a split.

    Raises:
        DatasetError: If a file is missing; when one is read, if it is no image of one channel.
    """
    given = record.splits[split]
    classes = {int(number): str(name) for number, name in given["classes"].items()}
    numbers = np.full(_LEVELS, IGNORED, dtype=np.uint8)
    numbers[list(classes)] = np.arange(len(classes))
    folder, names = _photographs(record, root, split)
    if "city" in given:
        drawn = existing(record, root, "gtFine") / str(given["city"])
        files = {name: drawn / f"{name.removesuffix(_PHOTO)}{_DRAWN}" for name in names}
    else:
        drawn = existing(record, root, "SegmentationClass")
        files = {name: drawn / f"{Path(name).stem}.png" for name in names}
    there = tuple(name for name in files if (folder / name).exists())

    def draw(row_id: str) -> NDArray[np.uint8]:
        return numbers[_levels(record, root, files[row_id])]

    return Annotations(tuple(classes.values()), there, draw)


def _photographs(record: Record, root: Path, split: str) -> tuple[Path, list[str]]:
    """Return the folder of a split's photographs, and their names in it."""
    given = record.splits[split]
    if "city" not in given:
        lines = read_lines(existing(record, root, str(given["list"])))
        return existing(record, root, "JPEGImages"), [f"{line.split()[0]}.jpg" for line in lines]
    folder = existing(record, root, f"leftImg8bit/{given['city']}")
    found = sorted(folder.glob(f"*/*{_PHOTO}"))
    return folder, [file.relative_to(folder).as_posix() for file in found]


def _levels(record: Record, root: Path, file: Path) -> NDArray[np.uint8]:
    """Return the numbers of an image of one channel; those of a palette are its indices."""
    try:
        with Image.open(file) as image:
            if image.mode not in ("P", "L"):
                refuse(record, root, f"{file.name!r} has the mode {image.mode}, not one channel")
            return np.asarray(image, dtype=np.uint8)
    except OSError as error:
        return refuse(record, root, f"{file.name!r} cannot be read: {error}")
