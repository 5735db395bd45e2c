"""What every transferability score must beat: cheap probes on the same rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ShapeError
from featcache.probes.analysis.decomposition import compact
from featcache.probes.arrays import Features, check_features, check_labels
from featcache.probes.closed_form.options import RidgeOptions
from featcache.probes.closed_form.ridge import decompose as decompose_ridge
from featcache.probes.closed_form.targets import ClassTargets
from featcache.probes.knn.classify import knn_classify


def knn_accuracy(
    features: Features,
    labels: NDArray[np.int64],
    *,
    k: int,
    temperature: float,
    device: str = "cpu",
) -> float:
    """Return the share of rows whose k nearest other rows vote for their class.

    Votes weigh exp(cosine / T), as in the knn task. With fewer other rows than k all vote.

    Args:
        features: Shape (N, D), any float dtype.
        labels: Shape (N,), class indices from 0.
        k: Neighbours that vote.
        temperature: Divides the cosine similarity.
        device: Where FAISS searches.

    Raises:
        ShapeError: If arrays do not fit, if a row is zero or not finite, or if there is one row.
    """
    own_rows = np.arange(len(features), dtype=np.int64)
    found = knn_classify(
        features,
        labels,
        features,
        k=[k],
        temperature=temperature,
        own_rows=own_rows,
        device=device,
    )
    return float((found[k].predictions == labels).mean())


def ridge_accuracy(
    features: Features, labels: NDArray[np.int64], *, device: str = "cpu"
) -> tuple[float, float]:
    """Return the leave-one-out accuracy of ridge regression at its best strength, and that.

    Z-scored features, targets ±1, strengths of the ridge task. The best of 23 strengths on the
    rows it is scored on is a little optimistic; the smallest of equals is taken.

    Args:
        features: Shape (N, D), any float dtype.
        labels: Shape (N,), class indices from 0.
        device: Torch device of the products.

    Raises:
        ShapeError: If arrays do not fit, if a row is not finite, or if there is one row.
    """
    check_features("features", features)
    check_labels("labels", features, labels)
    if len(features) < 2:
        raise ShapeError(f"Leave-one-out needs two rows at least; got {len(features)}.")
    columns = compact(labels)
    targets = ClassTargets.of_columns(columns, int(columns.max()) + 1)
    system = decompose_ridge(features, targets, standardise="zscore", device=device)
    found = system.leave_one_out(RidgeOptions().strengths)
    best = int(found.accuracy.argmax())
    return float(found.accuracy[best]), found.strengths[best]
