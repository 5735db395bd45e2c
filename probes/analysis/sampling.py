"""The rows that an analysis looks at: those all sets have, by id, drawn by seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ShapeError

Ids = NDArray[np.str_]


@dataclass(frozen=True, slots=True, kw_only=True)
class CommonRows:
    """The same rows of several sets."""

    ids: Ids
    """Shape (n,), sorted."""
    rows: tuple[NDArray[np.intp], ...]
    """For each set the positions of `ids`, shape (n,)."""
    n_common: int
    """Rows that all sets have, before the draw."""
    n_missing: tuple[int, ...]
    """For each set its rows that another one lacks."""


def common_rows(ids: Sequence[Ids], size: int, rng: np.random.Generator) -> CommonRows:
    """Match sets by id and draw at most `size` of the rows they share.

    Depends on the ids alone, not on the order of rows.

    Args:
        ids: Of each set, shape (N_i,), unique.
        size: Rows to draw; with fewer, all are taken.
        rng: Draws them.

    Raises:
        ShapeError: If no row is in all sets.
    """
    shared = np.sort(ids[0])
    for others in ids[1:]:
        shared = np.intersect1d(shared, others, assume_unique=True)
    if not len(shared):
        raise ShapeError(
            f"Sets must share rows to be compared; {len(ids)} sets have no id in common. "
            "Extract them from the same split."
        )
    chosen = shared
    if len(shared) > size:
        chosen = shared[np.sort(rng.choice(len(shared), size, replace=False))]
    places = []
    for own in ids:
        order = np.argsort(own)
        places.append(order[np.searchsorted(own, chosen, sorter=order)])
    return CommonRows(
        ids=chosen,
        rows=tuple(places),
        n_common=len(shared),
        n_missing=tuple(len(own) - len(shared) for own in ids),
    )


def subsample(n_rows: int, size: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return at most `size` of `n_rows` row indices, drawn without replacement, increasing."""
    if n_rows <= size:
        return np.arange(n_rows)
    return np.sort(rng.choice(n_rows, size, replace=False))
