"""A part of a dataset is fixed, stratified and nested."""

from itertools import pairwise

import numpy as np
import pytest

from featcache.datasets.catalog import dataset_name, open_dataset
from featcache.datasets.dataset import NO_LABEL
from featcache.datasets.memo import FileDigestMemo
from featcache.datasets.subset import SubsetDataset, choose_rows, parse_suffix
from featcache.errors import OptionError
from tests.datasets.pictures import write
from tests.fakes import ArrayImages, fake_split


def labelled(counts: list[int]) -> tuple[list[str], np.ndarray]:
    labels = np.repeat(np.arange(len(counts)), counts)
    return [f"row {row}" for row in range(len(labels))], labels


def test_a_smaller_part_lies_inside_a_larger_one():
    ids, labels = labelled([50, 7, 200, 1])
    parts = [set(choose_rows(ids, labels, n).tolist()) for n in range(1, 259)]
    assert all(small < large for small, large in pairwise(parts))
    assert [len(part) for part in parts] == list(range(1, 259))


def test_labels_keep_their_shares_and_each_has_a_row_before_any_has_two():
    ids, labels = labelled([600, 300, 100])
    np.testing.assert_allclose(
        np.bincount(labels[choose_rows(ids, labels, 100)]), [60, 30, 10], atol=1
    )
    assert sorted(labels[choose_rows(ids, labels, 3)]) == [0, 1, 2]


def test_rows_come_ascending_and_follow_ids_not_positions():
    ids, labels = labelled([30, 30])
    rows = choose_rows(ids, labels, 20)
    assert (np.diff(rows) > 0).all()
    turned = choose_rows(ids[::-1], labels[::-1], 20)
    assert {ids[::-1][row] for row in turned} == {ids[row] for row in rows}


def test_asking_for_too_many_gives_all_and_none_of_none():
    ids, labels = labelled([2, 1])
    assert choose_rows(ids, labels, 10).tolist() == [0, 1, 2]
    assert choose_rows([], np.zeros(0, np.int64), 10).tolist() == []


def test_unlabelled_rows_are_one_group():
    ids, labels = labelled([40])
    assert len(choose_rows(ids, np.full_like(labels, NO_LABEL), 10)) == 10


def test_splits_with_more_labels_than_rows_get_the_same_labels():
    """A rehearsal's queries have answers in its gallery, and its classifier has seen its test."""
    chosen = []
    for split, counts in (("query", [1] * 40), ("gallery", [4] * 40)):
        labels = np.repeat(np.arange(40), counts)
        ids = [f"{split} {row}" for row in range(len(labels))]
        chosen.append(sorted(labels[choose_rows(ids, labels, 8)].tolist()))
    assert chosen[0] == chosen[1]
    assert len(set(chosen[0])) == 8


def test_rows_that_go_first_are_taken_in_their_order():
    ids, labels = labelled([5, 5])
    first = ["row 9", "of another split", "row 8", "row 0", "row 1"]
    assert choose_rows(ids, labels, 1, first=first).tolist() == [9]
    assert choose_rows(ids, labels, 3, first=first).tolist() == [0, 8, 9]
    parts = [set(choose_rows(ids, labels, n, first=first).tolist()) for n in range(11)]
    assert all(small < large for small, large in pairwise(parts))


def test_the_choice_is_pinned():
    ids, labels = labelled([5, 5])
    assert choose_rows(ids, labels, 4).tolist() == [2, 4, 5, 7]


def test_a_part_of_digits_has_its_rows_images_and_facts():
    whole, part = open_dataset("digits"), open_dataset("digits?rows=300")
    assert part.name == dataset_name("digits?rows=300") == "digits-300"
    assert part.splits == whole.splits
    split, full = part.load("train"), whole.load("train")
    assert len(split) == 300
    assert (split.facts["subset_rows"], split.facts["subset_of_rows"]) == (300, len(full))
    row = full.ids.index(split.ids[17])
    assert split.labels[17] == full.labels[row]
    np.testing.assert_array_equal(split.images.read(17), full.images.read(row))
    assert set(split.ids) < set(open_dataset("digits?rows=600").load("train").ids)


def test_only_the_files_of_a_part_are_digested(tmp_path, monkeypatch):
    for i in range(12):
        write(tmp_path / "pets" / "ab"[i % 2] / f"{i:02d}.png", i)
    split = open_dataset(f"imagefolder:{tmp_path / 'pets'}?rows=4").load("all")
    digested: list[str] = []

    class Counting(FileDigestMemo):
        def file_digest(self, path):
            digested.append(path)
            return super().file_digest(path)

    identity = split.identity(Counting())
    assert (identity.name, identity.rows, len(digested)) == ("pets-4", 4, 4)


def test_a_reader_that_cannot_select_is_wrapped():
    class Plain:
        name, splits = "plain", ("train",)

        def load(self, split):
            return fake_split(9)

    part = SubsetDataset(Plain(), 4).load("train")
    whole = fake_split(9)
    assert isinstance(whole.images, ArrayImages)
    for row, name in enumerate(part.ids):
        np.testing.assert_array_equal(
            part.images.read(row), whole.images.read(whole.ids.index(name))
        )
    assert part.images.digests(FileDigestMemo()) == whole.images.digests(FileDigestMemo())


@pytest.mark.parametrize(
    ("source", "parsed"),
    [
        ("digits", ("digits", None, False)),
        ("digits?rows=5", ("digits", 5, False)),
        ("digits?part", ("digits", None, True)),
        ("digits?part&rows=5", ("digits", 5, True)),
        ("digits?rows=5&part", ("digits", 5, True)),
        ("imagefolder:/a?/b", ("imagefolder:/a?/b", None, False)),
        ("imagefolder:/what?rows=1/b?rows=2", ("imagefolder:/what?rows=1/b", 2, False)),
    ],
)
def test_the_suffix_is_parsed(source, parsed):
    assert parse_suffix(source) == parsed


@pytest.mark.parametrize(
    "suffix", ["?rows=0", "?rows=-3", "?rows=", "?rows=1e3", "?row=3", "?part&part"]
)
def test_another_suffix_is_refused(suffix):
    with pytest.raises(OptionError, match=r"must be `\?rows=N` with .*; got '\?"):
        parse_suffix(f"digits{suffix}")
