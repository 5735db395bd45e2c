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
    """Class membership of N rows; the matrix of targets is only made block by block."""

    members: NDArray[np.int64] | NDArray[np.bool_]
    """Shape (N,), the column of each row's class; or multi-label, shape (N, C)."""
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
        return cls(members=columns.astype(np.int64), n_classes=n_classes, low=_LOW[targets])

    @classmethod
    def of_matrix(cls, members: NDArray[np.bool_], targets: Targets = "plus_minus") -> ClassTargets:
        """Return the targets of multi-label rows, `members` of shape (N, C).

        Raises:
            ShapeError: If `members` is no matrix of booleans with a column.
        """
        if members.ndim != 2 or members.dtype != np.bool_ or not members.shape[1]:
            raise ShapeError(
                "`members` must be a matrix (rows, classes) of booleans; got shape "
                f"{members.shape} of {members.dtype}. Compare it with what marks a member."
            )
        return cls(members=members, n_classes=members.shape[1], low=_LOW[targets])

    @property
    def is_multi_label(self) -> bool:
        """Whether rows may belong to any number of classes."""
        return self.members.ndim == 2

    def check_rows(self, n_rows: int) -> None:
        """Refuse targets of other rows.

        Raises:
            ShapeError: If there are more or fewer than `n_rows`.
        """
        if len(self.members) != n_rows:
            raise ShapeError(
                f"`targets` must be those of the features' {n_rows} rows; got "
                f"{len(self.members)}. Pass targets and features of the same rows."
            )

    def array(self, rows: slice) -> NDArray[np.float64]:
        """Return the targets of a block of rows, shape (B, C)."""
        chosen = self.members[rows]
        is_member = chosen if self.is_multi_label else chosen[:, None] == np.arange(self.n_classes)
        return np.where(is_member, 1.0, self.low)

    def count_right(self, rows: slice, predictions: torch.Tensor) -> NDArray[np.int64]:
        """Count right predictions for each of K strengths.

        Args:
            rows: Which rows.
            predictions: Shape (B, K, C).

        Returns:
            Shape (K,): rows whose largest prediction, the first on a tie, is their class; or of
            multi-label targets the cells on the right side of the middle.
        """
        import torch

        chosen = torch.from_numpy(self.members[rows]).to(predictions.device)
        if self.is_multi_label:
            is_right = (predictions > (1 + self.low) / 2) == chosen[:, None]
            return np.asarray(is_right.sum(dim=(0, 2)).cpu().numpy())
        return np.asarray((predictions.argmax(dim=2) == chosen[:, None]).sum(dim=0).cpu().numpy())


_LOW = {"plus_minus": -1.0, "one_hot": 0.0}
