"""Metrics of detection scores, from exact counts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ShapeError

POSITIVE = {
    "auroc": "either",
    "aupr_id": "id",
    "aupr_ood": "ood",
    "fpr95_id_pos": "id",
    "fpr95_ood_pos": "ood",
    "aupr_id_trapz": "id",
    "aupr_ood_trapz": "ood",
    "detection_error": "either",
}
"""Which side each detection metric counts as positive."""


def detection_metrics(
    id_scores: NDArray[np.floating], ood_scores: NDArray[np.floating]
) -> dict[str, float]:
    """Measure how well a score separates in-distribution from out-of-distribution rows.

    All metrics come from integer counts at the distinct scores, so rows of equal score are
    accepted or rejected together; ties count ½ in AUROC. Infinite scores are allowed.

    Args:
        id_scores: Shape (n_id,), larger means more in-distribution.
        ood_scores: Shape (n_ood,).

    Returns:
        `auroc`; `aupr_id` and `aupr_ood`, the average precision with that side positive;
        `fpr95_id_pos`, the share of OOD rows accepted by the strictest threshold that accepts
        95 % of the ID rows; and `fpr95_ood_pos`, the share of ID rows flagged by the strictest
        threshold that flags 95 % of the OOD rows (OpenOOD's FPR@95); for both, smaller is better.
        `aupr_id_trapz` and `aupr_ood_trapz`, the areas under straight lines, which OpenOOD and
        pytorch-ood report, too large where scores tie; and `detection_error`, the least mean of
        both error rates over all thresholds.

    Raises:
        ShapeError: If a side is empty or a score is NaN.
    """
    if not len(id_scores) or not len(ood_scores):
        raise ShapeError(
            f"Both sides must have at least one score; got {len(id_scores)} ID and "
            f"{len(ood_scores)} OOD scores. Extract some rows of each."
        )
    n_id, n_ood = _counts(id_scores, ood_scores)  # at each distinct score, ascending
    below = np.cumsum(n_ood) - n_ood
    wins = int((n_id * (2 * below + n_ood)).sum())  # twice the pairs won, ties once
    return {
        "auroc": wins / (2 * len(id_scores) * len(ood_scores)),
        "aupr_id": _average_precision(n_id[::-1], n_ood[::-1]),
        "aupr_ood": _average_precision(n_ood, n_id),
        "fpr95_id_pos": _fpr95(n_id[::-1], n_ood[::-1]),
        "fpr95_ood_pos": _fpr95(n_ood, n_id),
        "aupr_id_trapz": _trapezoid(n_id[::-1], n_ood[::-1]),
        "aupr_ood_trapz": _trapezoid(n_ood, n_id),
        "detection_error": _detection_error(n_id[::-1], n_ood[::-1]),
    }


def _counts(
    id_scores: NDArray[np.floating], ood_scores: NDArray[np.floating]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    scores = np.concatenate([id_scores, ood_scores]).astype(np.float64)
    if np.isnan(scores).any():
        raise ShapeError(
            f"Scores must not be NaN; got {int(np.isnan(scores).sum())} of {len(scores)}. "
            "Look for NaN in the features."
        )
    values, places = np.unique(scores, return_inverse=True)
    n_id = np.bincount(places[: len(id_scores)], minlength=len(values))
    return n_id, np.bincount(places[len(id_scores) :], minlength=len(values))


def _average_precision(positives: NDArray[np.int64], negatives: NDArray[np.int64]) -> float:
    """Σ (R_i - R_{i-1}) P_i over the thresholds, counts given from the most positive on."""
    hits, taken = np.cumsum(positives), np.cumsum(positives + negatives)
    return float((positives * (hits / taken)).sum() / hits[-1])


def _fpr95(positives: NDArray[np.int64], negatives: NDArray[np.int64]) -> float:
    hits, false_alarms = np.cumsum(positives), np.cumsum(negatives)
    first = int((20 * hits >= 19 * hits[-1]).argmax())  # hits / all >= 0.95, in integers
    return float(false_alarms[first] / false_alarms[-1])


def _trapezoid(positives: NDArray[np.int64], negatives: NDArray[np.int64]) -> float:
    """Area under straight lines between the points (recall, precision), from (0, 1) on."""
    hits, taken = np.cumsum(positives), np.cumsum(positives + negatives)
    recall = np.concatenate([[0.0], hits / hits[-1]])
    precision = np.concatenate([[1.0], hits / taken])
    return float((np.diff(recall) * (precision[1:] + precision[:-1])).sum() / 2)


def _detection_error(positives: NDArray[np.int64], negatives: NDArray[np.int64]) -> float:
    """Return the least mean of the two error rates over all thresholds, at most a half."""
    missed = 1 - np.cumsum(positives) / positives.sum()
    accepted = np.cumsum(negatives) / negatives.sum()
    return float(min(0.5, ((missed + accepted) / 2).min()))
