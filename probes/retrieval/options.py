"""Options of retrieval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from featcache.probes.options import check_choice, check_ks

Gallery = Literal["test", "train"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalOptions:
    """Options of retrieval."""

    k: tuple[int, ...] = (1, 5, 10)
    gallery: Gallery = "test"
    """`test`: each query searches the other test rows; `train`: it searches the train rows."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_ks("k", self.k)
        check_choice("gallery", self.gallery, get_args(Gallery))
