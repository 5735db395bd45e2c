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


def average_precisions(
    truth: NDArray[np.bool_], scores: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return the average precision of each column's ranking, shape (C,); NaN without a positive.

    Σ (R_i - R_{i-1}) P_i over the distinct scores: rows of equal score are accepted together.

    Args:
        truth: Shape (M, C).
        scores: Shape (M, C), larger means more likely.

    Source: Checked against scikit-learn's `average_precision_score`.
    """
    found = np.full(truth.shape[1], np.nan)
    for column in np.flatnonzero(truth.any(axis=0)):
        _, places = np.unique(-scores[:, column], return_inverse=True)
        positives = np.bincount(places, truth[:, column])
        hits, taken = np.cumsum(positives), np.cumsum(np.bincount(places))
        found[column] = (positives * (hits / taken)).sum() / hits[-1]
    return found


def aurocs(truth: NDArray[np.bool_], scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the area under each column's ROC curve, shape (C,); NaN without rows of both kinds.

    The share of pairs of a positive and a negative whose positive scores higher; a tie counts half.

    Args:
        truth: Shape (M, C).
        scores: Shape (M, C), larger means more likely.

    Source: Checked against scikit-learn's `roc_auc_score`.
    """
    found = np.full(truth.shape[1], np.nan)
    for column in np.flatnonzero(truth.any(axis=0) & ~truth.all(axis=0)):
        _, places, counts = np.unique(scores[:, column], return_inverse=True, return_counts=True)
        positives = np.bincount(places, truth[:, column])
        negatives = counts - positives
        below = np.cumsum(negatives) - negatives / 2  # ties halved
        found[column] = (positives * below).sum() / (positives.sum() * negatives.sum())
    return found


def _check_rows(labels: NDArray[np.int64], predictions: NDArray[np.int64]) -> None:
    if labels.shape != predictions.shape or labels.ndim != 1 or not len(labels):
        raise ShapeError(
            "`labels` and `predictions` must be two columns of one length, at least 1; got "
            f"shapes {labels.shape} and {predictions.shape}. Pass the same rows, labelled ones."
        )
