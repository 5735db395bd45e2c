"""Options of the nearest-neighbour classifier."""

from __future__ import annotations

import math
from dataclasses import dataclass

from featcache.errors import OptionError
from featcache.probes.options import check_ks, check_range


@dataclass(frozen=True, slots=True, kw_only=True)
class KnnOptions:
    """Options of the nearest-neighbour classifier."""

    k: tuple[int, ...] = (10, 20, 100, 200)  # dino eval_knn.py
    primary_k: int = 20  # DINO, arXiv:2104.14294, section 4.1: consistently the best of the four
    temperature: float = 0.07  # InstDisc, arXiv:1805.01978; dino eval_knn.py
    leave_one_out: bool = False
    """Exclude the training row with the query's own id."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_ks("k", self.k)
        if self.primary_k not in self.k:
            raise OptionError(
                f"`primary_k` must be one of `k`; got {self.primary_k!r} and k = {list(self.k)}. "
                "Add it to `k`, or choose another."
            )
        check_range("temperature", self.temperature, 0, math.inf)
