"""What is drawn into images: boxes of objects, or the class of every pixel.

Annotations are beside the images, not in a feature set: `open_annotations("coco2017", "val")` reads
them by the ids of the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from featcache.datasets.catalog import DATASETS, parse_source
from featcache.datasets.named import named
from featcache.datasets.recorded import Record, find_root
from featcache.digest import Json
from featcache.errors import OptionError
from featcache.registry import load_target

FIELD = "annotated"
"""Field of a record: `boxes` or `pixels`, what is drawn into its images."""
IGNORED = 255
"""Class of a pixel that does not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Boxes:
    """The n objects of an image; n may be 0."""

    corners: NDArray[np.float32]
    """Shape (n, 4): left, top, right, bottom in pixels. The first pixel reaches from 0 to 1."""
    labels: NDArray[np.int64]
    """Shape (n,), indices into the class names."""
    is_crowd: NDArray[np.bool_]
    """Shape (n,): a box around many objects (COCO)."""
    is_difficult: NDArray[np.bool_]
    """Shape (n,): not counted by the challenge's own scoring (Pascal VOC)."""
    areas: NDArray[np.float32]
    """Shape (n,), pixels: of the outline where it is stated, else of the box."""
    outlines: tuple[Json, ...] = ()
    """COCO's polygons or run lengths, one of each object; empty where there are none."""

    def __len__(self) -> int:
        """Return the number of objects."""
        return len(self.labels)


Drawn = Boxes | NDArray[np.uint8]
"""Boxes, or the class of each pixel, shape (H, W), `IGNORED` where it does not count."""


class Annotations(Mapping[str, Drawn]):
    """From the id of a row to what is drawn into its image; read when it is asked for."""

    def __init__(
        self, class_names: tuple[str, ...], ids: tuple[str, ...], draw: Callable[[str], Drawn]
    ) -> None:
        """Take the classes, the ids in the order of the rows, and what reads one image's."""
        self.class_names, self._ids, self._draw = class_names, dict.fromkeys(ids), draw

    def __getitem__(self, row_id: str) -> Drawn:
        """Return what is drawn into the image of a row.

        Raises:
            KeyError: If there is no such row.
            DatasetError: If its file cannot be read.
        """
        if row_id not in self._ids:
            raise KeyError(row_id)
        return self._draw(row_id)

    def __iter__(self) -> Iterator[str]:
        """Go through the ids in the order of the rows."""
        return iter(self._ids)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._ids)


def open_annotations(source: str, split: str) -> Annotations:
    """Return the annotations of a dataset's split; no image is opened.

    Args:
        source: Name of the dataset, or NAME@DIR.
        split: One of its splits.

    Raises:
        OptionError: If the dataset has none, or no such split.
        DatasetError: If files are missing or not as they must be.
        UnknownNameError: If there is no such dataset.
    """
    record, rest = _record(source)
    if split not in record.splits:
        known = ", ".join(record.splits)
        raise OptionError(f"{record.name} has the splits {known}; got {split!r}. Take one of them.")
    module = f"featcache.datasets.readers.{record.reader}"
    read = cast(Callable[[Record, Path, str], Annotations], load_target(f"{module}:annotated"))
    return read(record, find_root(record, rest), split)


def _record(source: str) -> tuple[Record, str]:
    name, rest = parse_source(source)
    facts = DATASETS.get(name).facts
    if FIELD not in facts:
        known = ", ".join(sorted(other for other, one in named().items() if FIELD in one))
        raise OptionError(
            f"A dataset must have annotations beside its classes, as {known} do; {name!r} has "
            "none. Take one of these."
        )
    return Record.of(name, facts), rest
