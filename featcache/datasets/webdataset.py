"""`wds:PATTERN`: tar archives in the WebDataset format, read in place.

    shard-000000.tar: 0001.jpg, 0001.cls, 0001.json, 0002.jpg, ...

PATTERN is a folder, or names archives with braces or wildcards; see `shards`. Files that share
their name up to the first dot, side by side, are a sample: an image, and a label as a whole number
in `cls` (-1: none). `PATTERN#label=FIELD` takes the label from a field of `json` instead, a number
or a name; `PATTERN#image=EXTENSION` says which file is the image where a sample has several.

Ids are `<archive>/<name>`, rows in the order of the archives' names, then as they lie in them. A
file classes.txt or classnames.txt beside the archives names the classes, a line each; else they
are the labels that occur. A split's first use reads the header of each file: about a minute for
the two and a half million of ImageNet.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from featcache.datasets.dataset import NO_LABEL, Dataset, Split
from featcache.datasets.shards import Shards, find_shards, shards_name
from featcache.datasets.source import (
    LoadedDataset,
    Source,
    class_facts,
    order_splits,
    some_of,
    text_id,
)
from featcache.datasets.tar import ABSENT, Member, TarImages
from featcache.datasets.wds_samples import Sample, Wanted, read_samples
from featcache.errors import DatasetError, OptionError

CLASS_FILES = ("classes.txt", "classnames.txt")
"""Files that name the classes, in the order in which they are looked for."""

_OPTIONS = re.compile(r"(.*)#((?:label|image)=[^#/\\]*)", re.DOTALL)
_NOWHERE = Member("", 0, ABSENT)


def open_webdataset(rest: str) -> Dataset:
    """Open shards; the names of all archives are read, no archive is.

    Args:
        rest: `PATTERN`, `PATTERN#label=FIELD`, `PATTERN#image=EXTENSION`, or with both, separated
            by a comma.

    Raises:
        OptionError: If what stands behind `#` is something else.
        DatasetError: If there is no archive, or one is missing or compressed.
    """
    pattern, wanted = _parse(rest)
    shards = find_shards(pattern)
    data = _Samples(shards, wanted)
    name = shards_name(pattern)
    return LoadedDataset(
        name, order_splits(set(shards.splits)), lambda split: _split(name, split, data)
    )


@dataclass(frozen=True, slots=True)
class _Row:
    """A sample, and the archive that it lies in."""

    archive: int
    id: str
    sample: Sample


class _Samples:
    """All samples; those of a split are read once, when they are needed."""

    def __init__(self, shards: Shards, wanted: Wanted) -> None:
        self.shards = shards
        self._wanted = wanted
        self._read: dict[str, list[_Row]] = {}

    def rows(self, split: str) -> list[_Row]:
        """Return the rows of a split."""
        if split not in self._read:
            rows = [
                _Row(number, _id(self.shards.names[path], one), one)
                for number, path in enumerate(self.shards.splits[split])
                for one in read_samples(path, self._wanted)
            ]
            _check(split, rows, self._wanted)
            self._read[split] = rows
        return self._read[split]

    @cached_property
    def class_file(self) -> Path | None:
        """The file that names the classes, if there is one."""
        files = (Path(self.shards.root) / name for name in CLASS_FILES)
        return next((file for file in files if file.is_file()), None)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes: as the file has them, or the labels of all splits in order."""
        if self.class_file is not None:
            return _listed_classes(self.class_file)
        found = {
            row.sample.label
            for split in self.shards.splits
            for row in self.rows(split)
            if row.sample.label not in (None, NO_LABEL)
        }
        if len({type(label) for label in found}) > 1:
            raise DatasetError(
                "Labels must be all numbers or all names; those of the shards in "
                f"{self.shards.root!r} are both. Choose another field."
            )
        return tuple(map(str, sorted(found)))

    def index_of(self, row: _Row) -> int:
        """Return the index of a row's class; a number is a place in the file, if there is one."""
        label = row.sample.label
        if label is None or label == NO_LABEL:
            return NO_LABEL
        if self.class_file is None or isinstance(label, str):
            index = self._numbers.get(str(label), NO_LABEL)
        else:
            index = label if 0 <= label < len(self.classes) else NO_LABEL
        if index == NO_LABEL:
            raise DatasetError(
                f"Labels must be among the {len(self.classes)} classes of "
                f"{str(self.class_file)!r}; {row.id!r} has {label!r}. Correct the file, or take it "
                "away."
            )
        return index

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.classes)}


def _id(archive: str, sample: Sample) -> str:
    return text_id(f"{archive}/{sample.name.removeprefix('./')}")


def _split(dataset: str, name: str, data: _Samples) -> Split:
    rows, archives = data.rows(name), data.shards.splits[name]
    images = [row.sample.image or _NOWHERE for row in rows]
    classes = data.classes
    return Split(
        dataset=dataset,
        name=name,
        ids=tuple(row.id for row in rows),
        labels=np.array([data.index_of(row) for row in rows], dtype=np.int64),
        class_names=classes,
        images=TarImages(
            archives,
            np.array([row.archive for row in rows], dtype=np.int64),
            np.array([image.offset for image in images], dtype=np.int64),
            np.array([image.size for image in images], dtype=np.int64),
        ),
        facts=class_facts(len(classes))
        | {
            "shards": len(archives),
            "samples_without_image": images.count(_NOWHERE),
            "ignored_extensions": sorted({one for row in rows for one in row.sample.ignored}),
        },
    )


def _check(split: str, rows: list[_Row], wanted: Wanted) -> None:
    """Refuse a split without images, and one of which only some samples have a label."""
    if all(row.sample.image is None for row in rows):
        found = sorted({one for row in rows for one in row.sample.ignored})
        raise DatasetError(
            f"Shards must hold at least one image; those of split {split!r} have {len(rows)} "
            f"samples with the files {some_of(found)}. Check the shards, or say which file is the "
            "image: PATTERN#image=EXTENSION."
        )
    lacking = [row.id for row in rows if row.sample.label is None]
    if lacking and (wanted.label or len(lacking) < len(rows)):
        file = ".json" if wanted.label else ".cls"
        raise DatasetError(
            f"Each sample must have a {file}, or none; {len(lacking)} of the {len(rows)} of split "
            f"{split!r} have none: {some_of(lacking, 3)}. Add them, with -1 for no label."
        )


def _listed_classes(file: Path) -> tuple[str, ...]:
    lines = file.read_text(encoding="utf-8-sig").splitlines()
    names = [line.strip() for line in lines]
    while names and not names[-1]:
        names.pop()
    if len(set(names)) < len(names) or "" in names:
        what = "an empty line" if "" in names else "a name twice"
        raise DatasetError(
            f"A list of classes must have a name of its own in each line; {str(file)!r} has "
            f"{what}. Correct it."
        )
    return tuple(names)


def _parse(rest: str) -> tuple[str, Wanted]:
    """Split `PATTERN#label=FIELD,image=EXTENSION`."""
    found = _OPTIONS.fullmatch(rest)
    if found is None:
        return rest, Wanted()
    given: dict[str, str] = {}
    for item in found[2].split(","):
        key, _, value = item.partition("=")
        if key not in ("label", "image") or key in given or not value:
            raise OptionError(
                "Behind `#` must stand label=FIELD, image=EXTENSION, or both with a comma; got "
                f"{found[2]!r}. Write for example wds:shards#label=class_id."
            )
        given[key] = value.lower().removeprefix(".") if key == "image" else value
    return found[1], Wanted(**given)


SOURCE = Source(name=lambda rest: shards_name(_parse(rest)[0]), open=open_webdataset)
