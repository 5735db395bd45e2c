"""What a regression is to predict: a high number for the own classes and a low one for others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ShapeError
from featcache.probes.closed_form.options import Targets

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassTargets:
    """The classes of N rows; the matrix of targets is only made block by block."""

    columns: NDArray[np.int64]
    """Shape (N,), the column of each row's class."""
    n_classes: int
    low: float
    """The target of a class that a row does not belong to; the other one is 1."""

    @classmethod
    def of_columns(
        cls, columns: NDArray[np.int64], n_classes: int, targets: Targets = "plus_minus"
    ) -> ClassTargets:
        """Return the targets of rows with one class each.

        Raises:
            ShapeError: If `columns` are not of shape (N,), from 0 to `n_classes` - 1.
        """
        if columns.ndim != 1 or (
            len(columns) and not 0 <= columns.min() <= columns.max() < n_classes
        ):
            raise ShapeError(
                f"`columns` must name one of {n_classes} classes per row; got shape "
                f"{columns.shape}. Number the classes from 0."
            )
        return cls(columns=columns.astype(np.int64), n_classes=n_classes, low=_LOW[targets])

    def check_rows(self, n_rows: int) -> None:
        """Refuse targets of other rows.

        Raises:
            ShapeError: If there are more or fewer than `n_rows`.
        """
        if len(self.columns) != n_rows:
            raise ShapeError(
                f"`targets` must be those of the features' {n_rows} rows; got "
                f"{len(self.columns)}. Pass targets and features of the same rows."
            )

    def array(self, rows: slice) -> NDArray[np.float64]:
        """Return the targets of a block of rows, shape (B, C)."""
        is_member = self.columns[rows, None] == np.arange(self.n_classes)
        return np.where(is_member, 1.0, self.low)

    def count_right(self, rows: slice, predictions: torch.Tensor) -> NDArray[np.int64]:
        """Count right predictions for each of K strengths.

        Args:
            rows: Which rows.
            predictions: Shape (B, K, C).

        Returns:
            Shape (K,): rows whose largest prediction, the first on a tie, is their class.
        """
        import torch

        own = torch.from_numpy(self.columns[rows]).to(predictions.device)
        return np.asarray((predictions.argmax(dim=2) == own[:, None]).sum(dim=0).cpu().numpy())


_LOW = {"plus_minus": -1.0, "one_hot": 0.0}
