"""Splitting labelled rows in two, class by class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featcache.errors import OptionError


def stratified_split(
    labels: NDArray[np.int64], fraction: float, rng: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Hold out about `fraction` of each class.

    A class with two rows or more keeps at least one on each side; a class with a single row
    stays in the first part. Without rows both parts are empty.

    Args:
        labels: Shape (N,), class indices.
        fraction: Share of each class that is held out, in (0, 1); rounded to whole rows.
        rng: Draws which rows; the same generator state and labels give the same split.

    Returns:
        Row indices (rest, held out), each sorted, disjoint, together all N rows.

    Raises:
        OptionError: If `fraction` is not between 0 and 1.
    """
    if not 0 < fraction < 1:
        raise OptionError(
            f"`fraction` must be between 0 and 1, both excluded; got {fraction!r}. "
            "Use 0.2 to hold out a fifth."
        )
    is_held = np.zeros(len(labels), dtype=np.bool_)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        if len(rows) > 1:
            n_held = min(max(round(len(rows) * fraction), 1), len(rows) - 1)
            is_held[rng.permutation(rows)[:n_held]] = True
    return np.flatnonzero(~is_held), np.flatnonzero(is_held)


def stratified_folds(
    labels: NDArray[np.int64], n_folds: int, rng: np.random.Generator
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Part labelled rows into folds, each holding about the same share of each class.

    The single row of a class is in no held-out part, so that every fold knows every class. A fold
    may be empty where rows are few.

    Args:
        labels: Shape (N,), class indices.
        n_folds: At least 2.
        rng: Draws which rows.

    Returns:
        For each fold the row indices (rest, held out), each sorted.

    Raises:
        OptionError: If `n_folds` is below 2.
    """
    if n_folds < 2:
        raise OptionError(f"`n_folds` must be at least 2; got {n_folds!r}. Choose 5.")
    fold_of = np.full(len(labels), -1)
    shift = 0  # so that small classes do not all fill the first folds
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        if len(rows) > 1:
            fold_of[rng.permutation(rows)] = (np.arange(len(rows)) + shift) % n_folds
            shift += len(rows)
    return [
        (np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold))
        for fold in range(n_folds)
    ]
