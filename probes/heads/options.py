"""Options of classification with a stored head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from featcache.errors import OptionError
from featcache.probes.options import check_choice

Mask = Literal["dataset", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadOptions:
    """Options of classification with a stored head."""

    mask: Mask = "dataset"  # Hendrycks et al., imagenet-r and natural-adv-examples eval.py
    """Which of the head's classes `top1` may choose: those of the test dataset, or all."""
    class_map: str = ""
    """One line `dataset class -> head class` for each dataset class that the head calls otherwise;
    classes without a line are matched by name, or by the head's description of a class."""

    def __post_init__(self) -> None:
        """Refuse an unknown mask, and lines that cannot be read."""
        check_choice("mask", self.mask, get_args(Mask))
        self.mapping()

    def mapping(self) -> dict[str, str]:
        """Return `class_map` as a mapping.

        Raises:
            OptionError: If a line has no arrow, or if two lines are for one class.
        """
        found: dict[str, str] = {}
        for line in filter(str.strip, self.class_map.splitlines()):
            name, arrow, other = (part.strip() for part in line.partition("->"))
            if not (name and arrow and other) or name in found:
                why = "a second line for its class" if name in found else repr(line.strip())
                raise OptionError(
                    "`class_map` must have one line `dataset class -> head class` per class; got "
                    f"{why}. Correct the line."
                )
            found[name] = other
        return found
