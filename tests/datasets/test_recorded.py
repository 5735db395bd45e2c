"""Datasets that are a row of data: what must be there, and what is said if it is not."""

import sys
import types

import numpy as np
import pytest

from featcache.datasets import catalog, recorded
from featcache.datasets.catalog import dataset_name, open_dataset
from featcache.datasets.dataset import Split
from featcache.datasets.images import ArrayImages
from featcache.errors import DatasetError, OptionError
from featcache.registry import Entry

ROW = {
    "reader": "for_tests",
    "folder": "birds",
    "get": "Fetch birds.tgz and unpack it.",
    "classes": 2,
    "splits": {"train": {"start": 0}, "test": {"start": 100}},
    "rows": {"train": 5, "test": 3},
}


@pytest.fixture
def birds(monkeypatch, tmp_path):
    """A dataset of data and a reader that finds as many images as a file says."""

    def read(record, root, split):
        count = int((root / f"{split}.txt").read_text())
        return Split(
            dataset=record.name,
            name=split,
            ids=tuple(f"{record.splits[split]['start'] + row}" for row in range(count)),
            labels=np.arange(count) % 2,
            class_names=("wren", "robin"),
            images=ArrayImages(np.zeros((count, 4, 4), np.uint8)),
            facts=record.facts,
        )

    module = types.ModuleType("for_tests")
    module.read = read
    monkeypatch.setitem(sys.modules, "featcache.datasets.readers.for_tests", module)
    catalog.DATASETS.names()
    entry = Entry("featcache.datasets.recorded:source_of", ROW)
    monkeypatch.setitem(catalog.DATASETS._entries, "birds", entry)
    folder = tmp_path / "data" / "birds"
    folder.mkdir(parents=True)
    (folder / "train.txt").write_text("5")
    (folder / "test.txt").write_text("3")
    monkeypatch.setenv("FEATCACHE_DATA", str(folder.parent))
    return folder


def test_a_row_of_data_is_a_dataset(birds):
    dataset = open_dataset("birds")
    assert (dataset.name, dataset.splits) == ("birds", ("train", "test"))
    split = dataset.load("test")
    assert split.ids == ("100", "101", "102")
    assert split.facts == {"classes": 2, "rows": {"train": 5, "test": 3}}


def test_another_folder_can_be_given(birds, tmp_path, monkeypatch):
    monkeypatch.delenv("FEATCACHE_DATA")
    assert len(open_dataset(f"birds@{birds}").load("train")) == 5


def test_a_missing_folder_is_named_with_the_way_to_get_it(birds, tmp_path, monkeypatch):
    monkeypatch.setenv("FEATCACHE_DATA", str(tmp_path))
    with pytest.raises(DatasetError, match=r"no folder '.*birds'. Fetch birds.tgz and unpack it"):
        open_dataset("birds")
    monkeypatch.delenv("FEATCACHE_DATA")
    with pytest.raises(DatasetError, match=r"no folder is known.*write birds@DIR"):
        open_dataset("birds")


@pytest.mark.parametrize("count", [4, 6])
def test_another_number_of_images_is_refused(birds, count):
    (birds / "train.txt").write_text(str(count))
    with pytest.raises(DatasetError, match=rf"must have 5 images; '.*birds' holds {count}"):
        open_dataset("birds").load("train")


def test_a_part_says_so_in_its_name(birds):
    (birds / "train.txt").write_text("4")
    dataset = open_dataset("birds?part")
    split = dataset.load("train")
    assert dataset.name == split.dataset == dataset_name("birds?part") == "birds-part"
    assert len(split) == 4
    small = open_dataset("birds?part&rows=2").load("train")
    assert small.dataset == dataset_name("birds?part&rows=2") == "birds-part-2"
    assert len(small) == 2
    for count in ("6", "0"):
        (birds / "train.txt").write_text(count)
        with pytest.raises(DatasetError, match="must have 5 images"):
            open_dataset("birds?part").load("train")


def test_part_means_nothing_where_the_number_is_not_known():
    with pytest.raises(OptionError, match="'digits' has none"):
        open_dataset("digits?part")


def test_every_row_of_ours_says_what_is_needed():
    names = [n for n in catalog.DATASETS.names() if "reader" in catalog.DATASETS.get(n).facts]
    for name in names:
        record = recorded.Record.of(name, catalog.DATASETS.get(name).facts)
        assert record.splits, name
        assert record.rows.keys() <= record.splits.keys(), name
        for fact in ("description", "licence", "citation"):
            assert record.facts.get(fact), (name, fact)
