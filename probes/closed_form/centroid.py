"""The nearest class mean, by cosine or by Euclidean distance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featcache.probes.arrays import (
    Features,
    check_features,
    check_labels,
    check_pair,
    row_blocks,
    to_float64,
    unit_rows,
)
from featcache.probes.closed_form.moments import class_sums
from featcache.probes.closed_form.options import Metric


@dataclass(frozen=True, slots=True, kw_only=True)
class Centroids:
    """Class means, and how rows are compared with them."""

    classes: NDArray[np.int64]
    """Shape (C,), the labels seen in training, sorted."""
    means: NDArray[np.float64]
    """Shape (C, D), less `origin`."""
    origin: NDArray[np.float64]
    """Shape (D,), subtracted from every row: the train mean, or zero."""
    metric: Metric

    def scores(self, features: Features) -> NDArray[np.float64]:
        """Return the cosine to each class mean, or minus the distance, shape (M, C).

        With an origin, a row or mean that lies on it has no direction, and cosine 0.

        Raises:
            ShapeError: If D differs from the training rows, if values are not finite, or if a
                row is zero and cosines are taken without an origin.
        """
        if len(features):
            check_pair("features", features, "means", self.means)
        means = _directions(self.means) if self.metric == "cosine" else self.means
        square = (means**2).sum(axis=1)  # (C,)
        result = np.empty((len(features), len(means)))
        for block in row_blocks(len(features), 8 * (2 * means.shape[1] + 2 * len(means))):
            rows = self._prepared(features[block])
            cross = rows @ means.T  # (B, C)
            if self.metric == "euclidean":  # ‖a - b‖² = ‖a‖² - 2ab + ‖b‖²
                cross = (rows**2).sum(axis=1)[:, None] - 2 * cross + square
                cross = -np.sqrt(np.maximum(cross, 0))
            result[block] = cross
        return result

    def _prepared(self, features: Features) -> NDArray[np.float64]:
        if self.metric == "cosine" and not self.origin.any():
            return unit_rows("features", features)
        rows = to_float64("features", features) - self.origin
        return _directions(rows) if self.metric == "cosine" else rows


def fit_centroids(
    features: Features, labels: NDArray[np.int64], *, metric: Metric, centre: bool
) -> Centroids:
    """Average the training rows of each class.

    Means are those of the rows as they are stored, less the train mean with `centre`; rows are
    not scaled before they are averaged. Of equal scores the smaller class index is predicted, as
    `argmax` takes the first.

    Args:
        features: Shape (N, D), any float dtype; sums are float64.
        labels: Shape (N,), class indices from 0; classes may be missing.
        metric: `cosine` or `euclidean`; the latter gives the same with and without `centre`.
        centre: Whether to subtract the mean of all rows from rows and class means.

    Raises:
        ShapeError: If arrays do not fit together, are empty or not finite.

    Source: nearest class mean, Mensink et al. 2013, section 3.2; centred as in SimpleShot,
        arXiv:1911.04623; checked against scikit-learn's NearestCentroid.
    """
    check_features("features", features)
    check_labels("labels", features, labels)
    counts, sums = class_sums(lambda: [(features, labels)])
    classes = np.flatnonzero(counts)
    origin = sums.sum(axis=0) / counts.sum()
    means = sums[classes] / counts[classes, None]
    if not centre and metric == "cosine":
        origin = np.zeros_like(origin)
    return Centroids(classes=classes, means=means - origin, origin=origin, metric=metric)


def _directions(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale rows to unit norm; zero rows stay zero."""
    norms = np.sqrt(np.einsum("nd,nd->n", rows, rows))
    return np.asarray(rows / np.where(norms == 0, 1, norms)[:, None])
