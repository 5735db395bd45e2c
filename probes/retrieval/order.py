"""Scores as numbers that can be counted: equal where similarities are equal, or all distinct."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from featcache.probes.retrieval.row_lists import Flat

if TYPE_CHECKING:
    import torch

Ties = Literal["id", "pessimistic", "average"]

_STEPS = 2.0**30  # similarities closer than 2^-30 count as equal: beyond any rounding order


def levels(scores: torch.Tensor) -> torch.Tensor:
    """Return the scores in whole steps of 2^-30, in place.

    Products are taken in float64, whose error (below 1e-13 for unit rows of 1000 dimensions) is
    far below a step. So two equal rows get one level whatever the shape of the product, the
    order of the rows or the device; float32 products differ by 1e-7 between two such runs, and
    would make the order of near ties a matter of chance.

    Args:
        scores: Shape (B, G), float64, of magnitude up to about 4; overwritten.

    Returns:
        Shape (B, G), float64 holding whole numbers.
    """
    return scores.mul_(_STEPS).round_()


def distinct_keys(stepped: torch.Tensor) -> torch.Tensor:
    """Return levels with their ties broken: of equal ones the smaller row gets the larger key.

    Args:
        stepped: Shape (B, G), as `levels` returns it, the rows of the gallery in the order of
            their ids; 2^33 levels times G must fit 63 bits, so G is at most 2^30.

    Returns:
        Shape (B, G), int64, distinct within each line.
    """
    import torch

    n_rows = stepped.shape[1]
    reverse = torch.arange(n_rows - 1, -1, -1, device=stepped.device)
    return stepped.to(torch.int64).mul_(n_rows).add_(reverse)


def lowest(values: torch.Tensor) -> float | int:
    """Return the value below all others, given to what a query must not find."""
    import torch

    return -torch.inf if values.is_floating_point() else torch.iinfo(values.dtype).min


def hide(values: torch.Tensor, pairs: Flat) -> None:
    """Put pairs (query, row) below everything else, in place.

    Args:
        values: Shape (B, G), levels or keys.
        pairs: What to hide.
    """
    import torch

    if len(pairs[0]):
        query, row = (torch.from_numpy(column).to(values.device) for column in pairs)
        values[query, row] = lowest(values)
