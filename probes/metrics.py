"""Accuracies of predictions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ShapeError


def top1(labels: NDArray[np.int64], predictions: NDArray[np.int64]) -> float:
    """Return the share of rows predicted right.

    Raises:
        ShapeError: If there are no rows, or if the shapes differ.
    """
    _check_rows(labels, predictions)
    return float((labels == predictions).mean())


def mean_per_class(labels: NDArray[np.int64], predictions: NDArray[np.int64]) -> float:
    """Return the accuracy within each class, averaged over the classes in `labels`.

    Raises:
        ShapeError: If there are no rows, or if the shapes differ.
    """
    _check_rows(labels, predictions)
    _, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return float((np.bincount(codes, weights=labels == predictions) / counts).mean())


def _check_rows(labels: NDArray[np.int64], predictions: NDArray[np.int64]) -> None:
    if labels.shape != predictions.shape or labels.ndim != 1 or not len(labels):
        raise ShapeError(
            "`labels` and `predictions` must be two columns of one length, at least 1; got "
            f"shapes {labels.shape} and {predictions.shape}. Pass the same rows, labelled ones."
        )
