"""Nearest-neighbour classification: a similarity-weighted vote, for many k from one search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featcache.errors import OptionError, ShapeError
from featcache.probes.arrays import Features, check_labels, row_blocks
from featcache.probes.knn.neighbours import nearest_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class KnnResult:
    """Predictions of one k."""

    k: int
    """Neighbours that voted: the k asked for, or all rows where there are fewer."""
    predictions: NDArray[np.int64]
    """Shape (M,)."""
    confidences: NDArray[np.float32]
    """Shape (M,), the predicted class's share of the vote."""


def knn_classify(
    train: Features,
    labels: NDArray[np.int64],
    queries: Features,
    *,
    k: Sequence[int],
    temperature: float,
    own_rows: NDArray[np.int64] | None = None,
    device: str = "cpu",
) -> dict[int, KnnResult]:
    """Classify each query by a vote of its nearest training rows, weighted by exp(cosine / T).

    One search with the largest k serves all. A k above the rows that a query can find uses
    all of them, and its result says so. Equal votes go to the smaller class index, neighbours
    of equal similarity are taken by row index. No queries give empty predictions.

    Args:
        train: Training features, shape (N, D), any float dtype; scaled to unit norm here.
        labels: Shape (N,), class indices from 0.
        queries: Shape (M, D).
        k: Neighbours that vote, each at least 1.
        temperature: Divides the cosine similarity (no unit), positive; smaller is sharper.
        own_rows: Shape (M,), a row of `train` that each query must not find; -1 for none.
        device: Where FAISS searches.

    Returns:
        A result for each k asked for.

    Raises:
        OptionError: If a k is below 1 or `temperature` is not positive.
        ShapeError: If arrays do not fit together, or if a row is zero or not finite.

    Source: Wu et al. 2018, arXiv:1805.01978, section 3.4, as in DINO's `eval_knn.py`.
    """
    check_labels("labels", train, labels)
    if not k or min(k) < 1 or not temperature > 0:
        raise OptionError(
            f"`k` must be at least 1 and `temperature` positive; got k = {list(k)!r} and "
            f"temperature = {temperature!r}. Raise the one that is too small."
        )
    if own_rows is not None and len(train) < 2:
        raise ShapeError(
            f"Leave-one-out needs two train rows at least; got {len(train)}. Extract more."
        )
    most = max(1, len(train) - (own_rows is not None))
    similarity, rows = nearest_rows(
        train, queries, k=min(max(k), most), own_rows=own_rows, device=device
    )
    votes = labels[rows]  # (M, max k)
    n_classes = int(labels.max()) + 1
    results = {}
    for asked in k:
        used = min(asked, most)
        predictions = np.empty(len(queries), dtype=np.int64)
        confidences = np.empty(len(queries), dtype=np.float32)
        for block in row_blocks(len(queries), 8 * (n_classes + 3 * used)):
            shares = vote(
                similarity[block, :used],
                votes[block, :used],
                temperature=temperature,
                n_classes=n_classes,
            )
            predictions[block] = shares.argmax(axis=1)
            confidences[block] = shares.max(axis=1)
        results[asked] = KnnResult(k=used, predictions=predictions, confidences=confidences)
    return results


def vote(
    similarity: NDArray[np.floating],
    labels: NDArray[np.int64],
    *,
    temperature: float,
    n_classes: int,
) -> NDArray[np.float64]:
    """Sum exp(similarity / T) over the neighbours of each class, and divide by the total.

    Args:
        similarity: Shape (M, k), of the neighbours.
        labels: Shape (M, k), their classes.
        temperature: Positive; the largest similarity is subtracted first, so none overflows.
        n_classes: Columns of the result.

    Returns:
        Class shares, shape (M, C), each row summing to 1.
    """
    wide = similarity.astype(np.float64)
    weights = np.exp((wide - wide.max(axis=1, keepdims=True)) / temperature)
    cells = labels + n_classes * np.arange(len(labels))[:, None]
    totals = np.bincount(cells.ravel(), weights.ravel(), minlength=n_classes * len(labels))
    totals = totals.reshape(-1, n_classes)
    return np.asarray(totals / weights.sum(axis=1, keepdims=True))
