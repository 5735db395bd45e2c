"""Options of retrieval between images and texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from featcache.probes.options import check_at_least, check_choice, check_ks

TextTies = Literal["id", "pessimistic"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTextOptions:
    """Options of retrieval between images and their captions."""

    k: tuple[int, ...] = (1, 5, 10)
    captions_per_image: int = 5
    """The first so many of each image are taken; 0 for all. 5: Karpathy & Fei-Fei 2015; COCO has up
    to seven."""
    ties: TextTies = "id"
    """Order of equal similarities: by id, or relevant ones last."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_ks("k", self.k)
        check_at_least("captions_per_image", self.captions_per_image, 0)
        check_choice("ties", self.ties, get_args(TextTies))
