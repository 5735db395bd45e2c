"""`digits`: scikit-learn's 1,797 handwritten digits of 8 × 8 pixels, always at hand."""

from __future__ import annotations

import hashlib

import numpy as np

from featcache.datasets.dataset import Dataset, Split
from featcache.datasets.images import ArrayImages
from featcache.datasets.named import facts_of
from featcache.datasets.source import LoadedDataset, Source, refuse_option

TEST_SHARE = 3
"""Every third row of a class, in the order of the hash of its id, is a test row."""


def open_digits(rest: str) -> Dataset:
    """Open the embedded digits; `rest` must be empty.

    The set has no official split (it is the test part of a larger one), so a fixed one is made:
    within each class, rows are ordered by the SHA-256 of their id, and every third is a test row.

    Raises:
        OptionError: If `rest` is not empty.
    """
    refuse_option("digits", rest)
    return LoadedDataset("digits", ("train", "test"), _split)


def _split(name: str) -> Split:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    labels = bunch.target.astype(np.int64)
    ids = [f"{row:04d}" for row in range(len(labels))]
    is_test = np.zeros(len(labels), dtype=bool)
    for label in range(10):
        rows = np.flatnonzero(labels == label)
        ordered = sorted(rows, key=lambda row: hashlib.sha256(ids[row].encode()).digest())
        is_test[ordered[TEST_SHARE - 1 :: TEST_SHARE]] = True
    rows = np.flatnonzero(is_test == (name == "test"))
    pixels = np.rint(bunch.images[rows] * (255 / 16)).astype(np.uint8)  # (N, 8, 8), from 0..16
    return Split(
        dataset="digits",
        name=name,
        ids=tuple(ids[row] for row in rows),
        labels=labels[rows],
        class_names=tuple(str(label) for label in range(10)),
        images=ArrayImages(pixels),
        facts=facts_of("digits"),
    )


SOURCE = Source(name=lambda _rest: "digits", open=open_digits)
