"""Texts as a split: what is one, and what names it."""

import dataclasses

import numpy as np
import pytest

from featcache.datasets.texts import TextSplit
from featcache.errors import DatasetError, SpecError


@pytest.fixture
def texts():
    return TextSplit(
        name="pets-captions",
        split="test",
        ids=("0/0", "0/1", "1/0"),
        texts=("a dog", "a small dog", "une bête"),
        labels=np.array([0, 0, 1]),
        class_names=("dog", "animal"),
    )


def test_rows_have_a_name_that_their_order_contents_and_labels_decide(texts):
    one = texts.identity()
    assert (one.name, one.split, one.rows, len(texts)) == ("pets-captions", "test", 3, 3)
    assert texts.identity() == one
    changed = [
        {"ids": ("0/0", "0/1", "2/0")},
        {"texts": ("a dog", "a small dog", "une bete")},
        {"texts": ("a small dog", "a dog", "une bête")},
        {"labels": np.array([0, 1, 1])},
        {"class_names": ("dog", "beast")},
        {"split": "train"},
    ]
    assert len({one, *(dataclasses.replace(texts, **each).identity() for each in changed)}) == 7


def test_the_same_rows_under_another_name_have_the_same_fingerprint(texts):
    other = dataclasses.replace(texts, name="other").identity()
    assert other.fingerprint == texts.identity().fingerprint


def test_texts_may_have_no_classes(texts):
    plain = dataclasses.replace(texts, labels=np.full(3, -1), class_names=())
    assert plain.identity().label_set != texts.identity().label_set


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": ("a", "b")}, "has 3 texts, 2 ids and labels of shape"),
        ({"labels": np.zeros((3, 1))}, r"labels of shape \(3, 1\)"),
        ({"ids": ("a", "b", "a")}, "must differ; 1 of 'pets-captions' repeat"),
        ({"texts": ("a", " \n", "b")}, "those of '0/1' in 'pets-captions' have none"),
        ({"labels": np.array([0, 1, 2])}, "number of classes, 2; those .* are 0 to 2"),
        ({"labels": np.array([0, 1, -2])}, "are -2 to 1"),
        ({"class_names": ()}, "number of classes, 0"),
    ],
)
def test_rows_that_do_not_fit_together_are_refused(texts, change, message):
    with pytest.raises(DatasetError, match=message):
        dataclasses.replace(texts, **change)


def test_no_texts_have_no_name(texts):
    empty = dataclasses.replace(texts, ids=(), texts=(), labels=np.empty(0, np.int64))
    with pytest.raises(SpecError, match="must have at least one row"):
        empty.identity()
