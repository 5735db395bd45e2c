"""What extraction relies on in a dataset, law by law."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from typing import cast

import numpy as np

from featcache.datasets.dataset import NO_LABEL, Dataset, Split
from featcache.datasets.memo import FileDigestMemo
from featcache.digest import canonical_json
from featcache.errors import DatasetError
from featcache.testing.laws import ContractError, Law, must, named


def opened(dataset: object) -> Dataset:
    """Return a dataset, or open the one of a source."""
    from featcache.datasets.catalog import open_dataset

    return open_dataset(dataset) if isinstance(dataset, str) else cast(Dataset, dataset)


def has_the_members_of_a_dataset(dataset: Dataset) -> None:
    """`name`, `splits` and `load` must be there, and at least one split."""
    must(isinstance(dataset, Dataset), f"{type(dataset).__name__} lacks a member of `Dataset`.")
    must(dataset.name, "`name` must not be empty.")
    must(dataset.splits, "`splits` must hold at least one name.")
    for split in _splits(dataset):
        must(split.dataset == dataset.name, f"Split {split.name!r} must name its dataset.")
        must(
            split.name in dataset.splits, f"Split {split.name!r} must have the name it is asked by."
        )


def its_ids_are_unique_texts(dataset: Dataset) -> None:
    """Each row must have an id of its own, a text that is not empty."""
    for split in _splits(dataset):
        must(len(split), f"Split {split.name!r} must hold at least one row.")
        must(
            all(isinstance(one, str) and one for one in split.ids),
            f"Ids of {split.name!r} must be texts that are not empty.",
        )
        must(len(set(split.ids)) == len(split.ids), f"Ids of {split.name!r} must be unique.")


def its_labels_are_indices_of_classes(dataset: Dataset) -> None:
    """Labels must be int64 from `NO_LABEL` to the number of classes, one per row."""
    for split in _splits(dataset):
        labels, most = split.labels, max(1, len(split.class_names))
        must(len(labels) == len(split.ids), f"Split {split.name!r} must have a label per id.")
        must(labels.dtype == np.int64, f"Labels must be int64; got {labels.dtype}.")
        must(
            labels.min() >= NO_LABEL and labels.max() < most,
            f"Labels of {split.name!r} must be from {NO_LABEL} to {most - 1}; got "
            f"{labels.min()} to {labels.max()}.",
        )


def its_splits_share_their_classes(dataset: Dataset) -> None:
    """Class names must be unique, and the same in each split."""
    names = {split.class_names for split in _splits(dataset)}
    must(len(names) == 1, "All splits must have the same class names in the same order.")
    only = names.pop()
    must(len(set(only)) == len(only), "Class names must be unique.")


def its_images_are_rgb(dataset: Dataset) -> None:
    """The first and the last image of each split must decode to mode RGB."""
    for split in _splits(dataset):
        for row in (0, len(split) - 1):
            mode = split.images.read(row).mode
            must(mode == "RGB", f"Image {split.ids[row]!r} must be RGB; got {mode}.")


def its_digests_name_the_contents(dataset: Dataset) -> None:
    """There must be one digest per row, or one for all; and the same when it is opened again."""
    for split in _splits(dataset):
        digests = split.images.digests(FileDigestMemo())
        must(
            len(digests) in (1, len(split)),
            f"Split {split.name!r} must have 1 or {len(split)} digests; got {len(digests)}.",
        )
        again = dataset.load(split.name)
        same = split.identity(FileDigestMemo()) == again.identity(FileDigestMemo())
        must(same, f"Split {split.name!r} must have the same identity when it is loaded again.")


def its_reader_survives_pickling(dataset: Dataset) -> None:
    """Worker processes get a copy of the reader."""
    split = next(_splits(dataset))
    copied = pickle.loads(pickle.dumps(split.images))
    same = np.array_equal(np.asarray(copied.read(0)), np.asarray(split.images.read(0)))
    must(same, "A pickled reader must read what it read before.")


def its_facts_are_plain_data(dataset: Dataset) -> None:
    """Licence, citation and the like are stored as JSON."""
    for split in _splits(dataset):
        canonical_json(dict(split.facts))


def it_refuses_a_split_that_is_not_there(dataset: Dataset) -> None:
    """`load` must raise a `DatasetError` for an unknown split."""
    try:
        dataset.load("no such split")
    except DatasetError:
        return
    raise ContractError("`load` must raise a DatasetError for an unknown split; it raised nothing.")


def _splits(dataset: Dataset) -> Iterator[Split]:
    return (dataset.load(name) for name in dataset.splits)


LAWS: Mapping[str, Law[Dataset]] = named(
    has_the_members_of_a_dataset,
    its_ids_are_unique_texts,
    its_labels_are_indices_of_classes,
    its_splits_share_their_classes,
    its_images_are_rgb,
    its_digests_name_the_contents,
    its_reader_survives_pickling,
    its_facts_are_plain_data,
    it_refuses_a_split_that_is_not_there,
)
"""Every law by name."""
