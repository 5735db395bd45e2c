"""Options of out-of-distribution detection."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from featcache.errors import OptionError
from featcache.probes.linear.options import LinearOptions
from featcache.probes.options import check_at_least, check_choice, check_range

Detector = Literal["msp", "maxlogit", "energy", "mahalanobis", "knn"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OodOptions:
    """Options of out-of-distribution detection."""

    detectors: tuple[Detector, ...] = get_args(Detector)
    primary: Detector = "knn"
    """Its AUROC, averaged over OOD sets, is the primary metric."""
    k: int = 50  # OpenOOD v1.5 knn.yml
    k_class_share: float = 0.1
    """`k` is at most this share of the mean class size: the k-th neighbour of a typical row must
    be of its own class. 0.1 leaves 50 as it is from 500 rows per class on (CIFAR, ImageNet)."""
    temperature: float = 1.0  # Liu et al. 2020, arXiv:2010.03759
    eigenvalue_floor: float = 2.0**-22
    """Share of the largest variance; float16 rounds values to 2^-11, so less is rounding noise."""
    head: LinearOptions = field(default_factory=LinearOptions)
    """How the head behind `msp`, `maxlogit` and `energy` is fitted on the ID train rows."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        if not self.detectors or len(set(self.detectors)) != len(self.detectors):
            raise OptionError(
                f"`detectors` must be distinct names, at least one; got {list(self.detectors)}."
            )
        for name in self.detectors:
            check_choice("detectors", name, get_args(Detector))
        check_choice("primary", self.primary, self.detectors)
        check_at_least("k", self.k, 1)
        check_range("k_class_share", self.k_class_share, 0, math.inf)
        check_range("temperature", self.temperature, 0, math.inf)
        check_range("eigenvalue_floor", self.eigenvalue_floor, 0, 1)
