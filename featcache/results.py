"""Results: one JSON record per probe run, with per-sample predictions beside it in Parquet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from featcache.digest import Json
from featcache.errors import ShapeError


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a probe gives back."""

    metrics: Mapping[str, float]
    primary: str
    """The metric a table shows; one of `metrics`, larger is better."""
    n: int
    """Rows (or queries) the metrics are means over."""
    predictions: Mapping[str, NDArray[np.generic]]
    """Per-sample columns of one length; `id` is among them."""
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """95 % confidence intervals of some of the metrics, over test samples only."""
    details: Mapping[str, Json] = field(default_factory=dict)
    """What was chosen on the way (L2 strength, class counts, which side is positive)."""

    def __post_init__(self) -> None:
        """Refuse an outcome that its own record would contradict."""
        if self.primary not in self.metrics:
            raise ShapeError(f"`primary` must be one of the metrics; got {self.primary!r}.")
        lengths = {name: len(column) for name, column in self.predictions.items()}
        if "id" not in lengths or len(set(lengths.values())) != 1:
            raise ShapeError(f"`predictions` must hold `id` and columns as long; got {lengths}.")
