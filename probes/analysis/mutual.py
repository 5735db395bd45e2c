"""Mutual nearest neighbours: whether two sets call the same rows near."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ShapeError
from featcache.probes.arrays import Features
from featcache.probes.knn.neighbours import nearest_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutual:
    """How many neighbours two sets share."""

    share: float
    """Mean share of a row's neighbours that are common."""
    chance: float
    """Its expectation for unrelated sets, k / (N - 1)."""
    corrected: float
    """(share - chance) / (1 - chance): 0 for unrelated sets, 1 for equal neighbours."""


def neighbour_lists(features: Features, *, k: int, device: str = "cpu") -> NDArray[np.int64]:
    """Return the k nearest other rows of each row by cosine, sorted by row index.

    Rows of equal similarity are taken by row index.

    Args:
        features: Shape (N, D), any float dtype.
        k: At most N - 2, as with all other rows there is nothing to share by merit.
        device: Where FAISS searches.

    Returns:
        Shape (N, k).

    Raises:
        ShapeError: If there are too few rows, or if one is zero or not finite.
    """
    if not 1 <= k <= len(features) - 2:
        raise ShapeError(
            f"`k` must be between 1 and the rows less two; got k = {k} and {len(features)} rows. "
            "Lower k, or take more rows."
        )
    own_rows = np.arange(len(features), dtype=np.int64)
    _, rows = nearest_rows(features, features, k=k, own_rows=own_rows, device=device)
    return np.sort(rows, axis=1)


def mutual_neighbours(first: NDArray[np.int64], second: NDArray[np.int64]) -> Mutual:
    """Compare the neighbour lists of two sets of the same rows.

    Args:
        first: Shape (N, k), from `neighbour_lists`: no row twice in a list, none its own.
        second: Shape (N, k).

    Raises:
        ShapeError: If the shapes differ.

    Source: Huh et al. 2024, arXiv:2405.07987 (mutual k-nearest neighbours); chance
        correction as in Cohen's κ.
    """
    if first.shape != second.shape:
        raise ShapeError(
            f"Both lists must have the same rows and k; got shapes {first.shape} and "
            f"{second.shape}. Match rows by id."
        )
    n_rows, k = first.shape
    together = np.sort(np.concatenate([first, second], axis=1), axis=1)
    share = float((together[:, 1:] == together[:, :-1]).sum() / (n_rows * k))
    chance = k / (n_rows - 1)
    return Mutual(share=share, chance=chance, corrected=(share - chance) / (1 - chance))
