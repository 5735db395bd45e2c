"""Options of the linear probe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from featcache.probes.options import (
    check_at_least,
    check_choice,
    check_positive_rising,
    check_range,
)

Standardise = Literal["none", "zscore", "l2"]
Search = Literal["grid", "bracket"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearOptions:
    """Options of the linear probe."""

    strengths: tuple[float, ...] = tuple(10.0**power for power in range(-5, 4))
    """Values of C (larger is a weaker penalty), increasing."""
    search: Search = "grid"
    """`grid` takes the best strength; `bracket` then halves the spacing around it."""
    steps_per_decade: int = 8  # CLIP, arXiv:2103.00020, App. A.3
    """Resolution at which a `bracket` search ends."""
    stop_standard_errors: float = 0.0
    """Weaker penalties are not tried once the held-out accuracy lies this many of its standard
    errors below the best; they are by far the slowest to solve. 0 tries the whole grid."""
    held_out: float = 0.2
    """Share of each class of train on which the strength is chosen."""
    standardise: Standardise = "zscore"
    """`zscore`: train mean and deviation per dimension; `l2`: unit rows; `none`: as stored."""
    tol: float = 1e-6
    max_iter: int = 1000  # CLIP and dinov2 log_regression.py

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_choice("search", self.search, get_args(Search))
        check_choice("standardise", self.standardise, get_args(Standardise))
        check_positive_rising("strengths", self.strengths)
        check_range("held_out", self.held_out, 0, 1)
        check_at_least("stop_standard_errors", self.stop_standard_errors, 0)
        check_range("tol", self.tol, 0, 1)
        check_at_least("steps_per_decade", self.steps_per_decade, 1)
        check_at_least("max_iter", self.max_iter, 1)
