"""A fitted linear classifier, and what it says of features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from featcache.digest import Json
from featcache.probes.arrays import Features, check_pair, row_blocks, to_float64, unit_rows
from featcache.result_store import FittedHead

if TYPE_CHECKING:
    from featcache.head_store import StoredHead


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearHead:
    """A fitted linear classifier on features as they are stored."""

    classes: NDArray[np.int64]
    """Shape (C,), the labels seen in training, sorted."""
    weights: NDArray[np.float64]
    """Shape (D, C); a z-score is folded in."""
    bias: NDArray[np.float64]
    """Shape (C,)."""
    is_unit_norm: bool
    """Whether rows are scaled to unit norm first."""
    details: dict[str, Json]
    """How the strength was chosen, and how well the solver converged."""

    @classmethod
    def of_stored(cls, head: StoredHead) -> Self:
        """Return a stored head, its columns numbered in its own order; the scale is folded in."""
        return cls(
            classes=np.arange(len(head.class_names)),
            weights=head.scale * head.weights.astype(np.float64),
            bias=head.scale * head.bias.astype(np.float64),
            is_unit_norm=head.is_unit_norm,
            details={"kind": head.kind, **head.origin},
        )

    def kept(self, class_names: Sequence[str]) -> FittedHead:
        """Return what is stored of a head whose classes are indices into `class_names`."""
        seen = set(self.classes.tolist())
        return FittedHead(
            weights=self.weights,
            bias=self.bias,
            class_names=tuple(class_names[c] for c in self.classes),
            is_unit_norm=self.is_unit_norm,
            absent=tuple(name for c, name in enumerate(class_names) if c not in seen),
        )

    def logits(self, features: Features) -> NDArray[np.float64]:
        """Return the logits of each row, shape (M, C), float64.

        Raises:
            ShapeError: If D differs from the training rows, or if values are not finite.
        """
        if len(features):
            check_pair("features", features, "weights", self.weights.T)
        prepare = unit_rows if self.is_unit_norm else to_float64
        result = np.empty((len(features), len(self.classes)))
        for block in row_blocks(len(features), 8 * len(self.weights)):
            result[block] = prepare("features", features[block]) @ self.weights + self.bias
        return result
