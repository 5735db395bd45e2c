"""Captions of images, as texts that a text tower embeds: `<image>#0`, `<image>#1`, ..."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from featcache.datasets.catalog import DATASETS, dataset_name, parse_source
from featcache.datasets.dataset import NO_LABEL
from featcache.datasets.recorded import Record, find_root
from featcache.datasets.source import text_id
from featcache.datasets.texts import TextSplit
from featcache.errors import OptionError
from featcache.registry import load_target

FIELD = "captioned"
"""Field of a record whose reader has `captions`."""
SUFFIX = "-texts"
"""Follows the name of the images' dataset in the name of its captions."""


def captions(source: str, split: str, *, images: Collection[str] | None = None) -> TextSplit:
    """Return the captions of a dataset's images; no image is opened.

    Args:
        source: Name of the dataset, or NAME@DIR; a `?` suffix goes into the name of the texts.
        split: One of its splits.
        images: Ids of the images whose captions are wanted; None: all.

    Returns:
        All captions that are not blank, image by image in the order of the dataset; without labels.

    Raises:
        OptionError: If the dataset has no captions, or no such split.
        DatasetError: If the table is missing or not as it must be.
        UnknownNameError: If there is no such dataset.
    """
    record, rest = _record(source)
    if split not in record.splits:
        known = ", ".join(record.splits)
        raise OptionError(f"{record.name} has the splits {known}; got {split!r}. Take one of them.")
    module = f"featcache.datasets.readers.{record.reader}"
    read = cast(_Read, load_target(f"{module}:captions"))
    found = [
        (caption_id(name, number), text)
        for image, texts in read(record, find_root(record, rest), split).items()
        for name in [text_id(image)]
        if images is None or name in images
        for number, text in enumerate(texts)
        if text.strip()
    ]
    return TextSplit(
        name=f"{dataset_name(source)}{SUFFIX}",
        split=split,
        ids=tuple(name for name, _ in found),
        texts=tuple(text for _, text in found),
        labels=np.full(len(found), NO_LABEL, np.int64),
    )


def has_captions(source: str) -> bool:
    """Tell whether a dataset has captions; touches no file."""
    name = parse_source(source)[0]
    return name in DATASETS and bool(DATASETS.get(name).facts.get(FIELD))


def refuse_without_captions(source: str) -> None:
    """Refuse a dataset without captions; touches no file.

    Raises:
        OptionError: If it has none.
    """
    if not has_captions(source):
        having = ", ".join(n for n in DATASETS.names() if DATASETS.get(n).facts.get(FIELD))
        raise OptionError(f"Captions are there for {having}; got {source!r}. Take one of these.")


def caption_id(image: str, number: int) -> str:
    """Return the id of an image's caption, counted from 0."""
    return f"{image}#{number}"


def parse_caption_id(name: str) -> tuple[str, int] | None:
    """Return image and number of a caption; None if the id is not of that form."""
    image, _, number = name.rpartition("#")
    return (image, int(number)) if image and number.isdecimal() else None


_Read = Callable[[Record, Path, str], Mapping[str, Sequence[str]]]


def _record(source: str) -> tuple[Record, str]:
    refuse_without_captions(source)
    name, rest = parse_source(source)
    return Record.of(name, DATASETS.get(name).facts), rest
