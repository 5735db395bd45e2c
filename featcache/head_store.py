"""Linear classifiers beside the features they read: fitted, native, or of a text tower."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from featcache.digest import Json
from featcache.spec import BackboneIdentity

HeadKind = Literal["native", "probe", "text"]
"""The network's own classifier; one that a probe fitted; class prompts through a text tower."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredHead:
    """A linear classifier on the features of one backbone at one tap."""

    kind: HeadKind
    weights: NDArray[np.floating]
    """Shape (D, C). Of a text head the unit class vectors, not yet multiplied by `scale`."""
    bias: NDArray[np.floating]
    """Shape (C,)."""
    class_names: tuple[str, ...]
    """The C columns, in order."""
    backbone: BackboneIdentity
    """Of the network whose features it reads; its weights' digest must be that of the features."""
    tap: str
    is_unit_norm: bool = False
    """Whether rows are scaled to unit norm first."""
    scale: float = 1.0
    """Multiplies the logits: 100 for CLIP's cosines, 1 for others."""
    origin: Mapping[str, Json] = field(default_factory=dict)
    """Where it came from: protocol, seed and sets of a probe; prompts of a text head."""
