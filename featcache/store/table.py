"""A feature set's valid rows in memory: what a probe gets, and all it gets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ShapeError


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Features, labels and ids of the readable rows, in the order of the dataset."""

    features: NDArray[np.floating]
    """Shape (N, D), float16 or float32 as stored; may be a read-only memory map."""
    labels: NDArray[np.int64]
    """Shape (N,), indices into `class_names`, -1 where a row has no label."""
    ids: NDArray[np.str_]
    """Shape (N,), unique."""
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse columns of unequal length."""
        lengths = {len(self.features), len(self.labels), len(self.ids)}
        if len(lengths) != 1:
            raise ShapeError(
                "`features`, `labels` and `ids` must have one length; got "
                f"{len(self.features)}, {len(self.labels)} and {len(self.ids)}."
            )

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.ids)

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> Table:
        """Return the given rows (indices or mask), copied."""
        return Table(
            features=self.features[rows],
            labels=self.labels[rows],
            ids=self.ids[rows],
            class_names=self.class_names,
        )
