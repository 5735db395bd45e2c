"""When two computations of the same rows are equal but for rounding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TOLERANCE: Mapping[str, float] = {"fp32": 2e-3, "tf32": 1e-2, "fp16": 2e-2, "bf16": 5e-2}
"""Largest relative L2 distance of a row computed again, by compute dtype. float16 storage alone
rounds to 5e-4; the rest is what other kernels and batch sizes of that precision give."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How rows computed twice compare."""

    rows: int
    """Rows compared."""
    worst: int
    """Position of the row that differs most."""
    distance: float
    """Its ‖new - stored‖₂ / ‖stored‖₂."""
    largest: float
    """Largest |new - stored| of a value."""
    cosine: float
    """Smallest cosine of a row; two rows of zeros agree."""


def compare_rows(new: NDArray[np.floating], stored: NDArray[np.floating]) -> Difference:
    """Compare two computations of the same rows, shape (n, ...), n >= 1, in float64."""
    a = new.reshape(len(new), -1).astype(np.float64)
    b = stored.reshape(len(stored), -1).astype(np.float64)
    tiny = np.finfo(np.float16).tiny
    size = np.maximum(np.linalg.norm(b, axis=1), tiny)
    distance = np.linalg.norm(a - b, axis=1) / size
    both_zero = ~a.any(axis=1) & ~b.any(axis=1)
    cosine = (a * b).sum(axis=1) / (size * np.maximum(np.linalg.norm(a, axis=1), 1e-300))
    worst = int(distance.argmax())
    return Difference(
        rows=len(a),
        worst=worst,
        distance=float(distance[worst]),
        largest=float(np.abs(a - b).max()),
        cosine=float(np.where(both_zero, 1.0, cosine).min()),
    )
