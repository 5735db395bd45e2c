"""Each law of datasets is kept by ours, and broken by a dataset made to break it."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from featcache.datasets.catalog import open_dataset
from featcache.datasets.dataset import Split
from featcache.datasets.images import ArrayImages
from featcache.datasets.source import LoadedDataset
from featcache.errors import DatasetError
from featcache.testing import ContractError, check_dataset
from featcache.testing.contracts import DatasetContract
from featcache.testing.dataset_laws import LAWS


class TestDigits(DatasetContract):
    @pytest.fixture
    def dataset(self):
        return open_dataset("digits?rows=40")


def split(name="train", **given):
    rng = np.random.default_rng(len(name))
    fields = {
        "dataset": "shapes",
        "name": name,
        "ids": ("a", "b", "c"),
        "labels": np.array([0, 1, -1]),
        "class_names": ("round", "square"),
        "images": ArrayImages(rng.integers(0, 256, (3, 5, 5, 3), np.uint8)),
    }
    return Split(**{**fields, **given})


def dataset(change=lambda one: one, *, name="shapes", splits=("train", "test")):
    return LoadedDataset(name, splits, lambda name: change(split(name)))


class Grey(ArrayImages):
    def read(self, row):
        return super().read(row).convert("L")


RISING = itertools.count()


class Rising(ArrayImages):
    def digests(self, memo):
        return [str(next(RISING))]


class Unpicklable(ArrayImages):
    def __reduce__(self):
        raise TypeError("no copy")


class Lenient:
    """A dataset that has every split one asks for."""

    name = "shapes"
    splits = ("train",)

    def load(self, name):
        return split(name)


PIXELS = np.zeros((3, 5, 5), np.uint8)
BROKEN = {
    "has_the_members_of_a_dataset": [
        dataset(lambda one: replace(one, dataset="another")),
        dataset(splits=()),
        object(),
    ],
    "its_ids_are_unique_texts": [
        dataset(lambda one: replace(one, ids=("a", "a", "c"))),
        dataset(lambda one: replace(one, ids=("a", "", "c"))),
        dataset(lambda one: replace(one, ids=(1, 2, 3))),
    ],
    "its_labels_are_indices_of_classes": [
        dataset(lambda one: replace(one, labels=np.array([0, 1, 2]))),
        dataset(lambda one: replace(one, labels=np.array([0, 1, -2]))),
        dataset(lambda one: replace(one, labels=np.array([0, 1]))),
        dataset(lambda one: replace(one, labels=np.array([0.0, 1.0, 1.0]))),
    ],
    "its_splits_share_their_classes": [
        dataset(lambda one: replace(one, class_names=("round", one.name))),
        dataset(lambda one: replace(one, class_names=("round", "round"))),
    ],
    "its_images_are_rgb": [dataset(lambda one: replace(one, images=Grey(PIXELS)))],
    "its_digests_name_the_contents": [dataset(lambda one: replace(one, images=Rising(PIXELS)))],
    "its_reader_survives_pickling": [dataset(lambda one: replace(one, images=Unpicklable(PIXELS)))],
    "its_facts_are_plain_data": [dataset(lambda one: replace(one, facts={"licence": {1}}))],
    "it_refuses_a_split_that_is_not_there": [Lenient()],
}


def test_a_dataset_that_keeps_every_law_passes():
    check_dataset(dataset())


def test_each_law_has_a_dataset_that_breaks_it():
    assert BROKEN.keys() == LAWS.keys()


@pytest.mark.parametrize(
    ("law", "broken"), [(law, one) for law, several in BROKEN.items() for one in several]
)
def test_a_broken_law_is_named(law, broken):
    with pytest.raises(ContractError, match=rf"of 9 laws are broken:[\s\S]*- {law}: "):
        check_dataset(broken)


def test_a_source_that_cannot_be_opened_says_so_itself():
    with pytest.raises(DatasetError):
        check_dataset("imagefolder:/no/such/folder")
