"""Few rows in many dimensions: the same problem in the space that the rows span."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featcache.probes.arrays import Features, to_float64
from featcache.probes.linear.scaling import Rows

_ROUNDING = 8 * np.finfo(np.float64).eps  # of the mean: what is left of a constant dimension


def row_space(
    features: Features | Rows,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Rotate centred features of N < D rows into the space they span.

    Where a penalty or a covariance forbids weight outside that space, the optimum lies in it, and
    a rotation keeps norms: the problem is the same with N instead of D dimensions.

    Args:
        features: Shape (N, D).

    Returns:
        The rows there, shape (N, N); the orthonormal basis, shape (D, N); the mean, shape (D,).

    Raises:
        ShapeError: If a value is not finite.
    """
    values = to_float64("features", features[:])
    mean = values.mean(axis=0)
    values -= mean
    values[np.abs(values) <= _ROUNDING * np.abs(mean)] = 0
    basis, triangle = np.linalg.qr(values.T)  # (D, N), (N, N)
    return np.ascontiguousarray(triangle.T), basis, mean
