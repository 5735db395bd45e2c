"""Selective prediction: what error remains if only the surest rows are answered."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ShapeError


def risk_at_coverage(
    confidences: NDArray[np.floating], is_right: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the error among the k surest rows, for k = 1 .. M, shape (M,).

    Rows of equal confidence come in random order, and the mean over all orders is given.

    Args:
        confidences: Shape (M,), M >= 1.
        is_right: Shape (M,).

    Raises:
        ShapeError: If there are no rows, or if the shapes differ.

    Source: Geifman & El-Yaniv 2017, arXiv:1705.08500.
    """
    if not len(confidences) or confidences.shape != is_right.shape:
        raise ShapeError(
            "`confidences` and `is_right` must have one length, at least 1; got shapes "
            f"{confidences.shape} and {is_right.shape}. Pass the same labelled rows."
        )
    _, places = np.unique(-confidences.astype(np.float64), return_inverse=True)  # surest first
    sizes = np.bincount(places)
    wrong = np.bincount(places, ~is_right) / sizes
    return np.asarray(np.cumsum(np.repeat(wrong, sizes)) / np.arange(1, len(confidences) + 1))


def aurc(confidences: NDArray[np.floating], is_right: NDArray[np.bool_]) -> float:
    """Return the area under the risk-coverage curve: its mean over all coverages; 0 is best."""
    return float(risk_at_coverage(confidences, is_right).mean())


def excess_aurc(confidences: NDArray[np.floating], is_right: NDArray[np.bool_]) -> float:
    """Return the area less that of the same predictions in the best order.

    Source: Geifman, Uziel & El-Yaniv 2019, arXiv:1805.08206 (E-AURC).
    """
    best = risk_at_coverage(is_right.astype(np.float64), is_right)
    return float(aurc(confidences, is_right) - best.mean())
