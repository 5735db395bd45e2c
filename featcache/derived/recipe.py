"""What is done to features, as text: steps from left to right, `pca:128|l2`.

l2            each row divided by its L2 norm; a row of zeros stays one
l2each        each backbone's part of a concatenated row, likewise (first)
center        minus the mean                                      (fitted)
zscore        minus the mean, over the standard deviation         (fitted)
pca:D         projected on the first D principal axes             (fitted)
whiten:D      the same, each over its standard deviation          (fitted)
truncate:D    the first D values
int8          one byte per value, 256 even levels per dimension   (fitted, last)
pq:M          one byte per M-th of the row, 256 centroids each    (fitted, last)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from featcache.errors import OptionError, did_you_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What is true of every step of a name."""

    takes_size: bool = False
    is_fitted: bool = False
    """Whether it learns from training rows."""
    is_first: bool = False
    """Whether it must see rows as they are stored."""
    is_code: bool = False
    """Whether it gives codes, and so must come last."""


KINDS: Mapping[str, Kind] = {
    "l2": Kind(),
    "l2each": Kind(is_first=True),
    "center": Kind(is_fitted=True),
    "zscore": Kind(is_fitted=True),
    "pca": Kind(takes_size=True, is_fitted=True),
    "whiten": Kind(takes_size=True, is_fitted=True),
    "truncate": Kind(takes_size=True),
    "int8": Kind(is_fitted=True, is_code=True),
    "pq": Kind(takes_size=True, is_fitted=True, is_code=True),
}


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a recipe."""

    name: str
    size: int = 0
    """Dimensions or parts; 0 for a step that takes none."""

    @property
    def kind(self) -> Kind:
        """Return what is true of steps of this name."""
        return KINDS[self.name]

    def __str__(self) -> str:
        """Return the step as it is written in a recipe."""
        return f"{self.name}:{self.size}" if self.kind.takes_size else self.name


@dataclass(frozen=True, slots=True)
class Recipe:
    """Steps from left to right; none leaves features as they are."""

    steps: tuple[Step, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Recipe:
        """Read a recipe; empty text has no steps.

        Raises:
            OptionError: If a step is unknown, lacks its size or has one too many, or is misplaced.
        """
        steps = tuple(_parse_step(part.strip()) for part in text.split("|")) if text else ()
        for misplaced, where in (
            ([step for step in steps[:-1] if step.kind.is_code], "last"),
            ([step for step in steps[1:] if step.kind.is_first], "first"),
        ):
            if misplaced:
                raise OptionError(
                    f"Step '{misplaced[0]}' must be the {where} one; got {text!r}. Move it."
                )
        return cls(steps)

    @property
    def is_fitted(self) -> bool:
        """Whether a step learns from training rows."""
        return any(step.kind.is_fitted for step in self.steps)

    @property
    def gives_codes(self) -> bool:
        """Whether the last step quantises."""
        return bool(self.steps) and self.steps[-1].kind.is_code

    def __str__(self) -> str:
        """Return the recipe in its one form."""
        return "|".join(map(str, self.steps))


def _parse_step(text: str) -> Step:
    name, colon, size = text.partition(":")
    if name not in KINDS:
        raise OptionError(
            f"A step must be one of {', '.join(KINDS)}; got {text!r}. "
            f"{did_you_mean(name, KINDS)}Write for instance 'pca:128|l2'."
        )
    if not KINDS[name].takes_size:
        if colon:
            raise OptionError(f"Step {name!r} takes no size; got {text!r}. Leave it out.")
        return Step(name)
    if not (size.isascii() and size.isdigit() and 1 <= int(size[:10]) <= 1 << 20):
        raise OptionError(
            f"Step {name!r} needs a size of at least 1; got {text!r}. Write for instance {name}:64."
        )
    return Step(name, int(size))
