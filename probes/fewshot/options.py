"""Options of few-shot and zero-shot classification."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from featcache.errors import OptionError
from featcache.probes.linear.options import Binary
from featcache.probes.linear.scaling import Standardise
from featcache.probes.options import check_at_least, check_choice, check_ks, check_range

Method = Literal["logistic", "ridge", "big_vision", "centroid"]
ShortClasses = Literal["error", "all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FewshotOptions:
    """Options of classification from a few shots."""

    shots: tuple[int, ...] = (1, 2, 5, 10)
    """Train rows per class."""
    primary_shots: int = 5
    """Whose accuracy, averaged over draws, is the primary metric."""
    n_draws: int = 5  # MIEB, arXiv:2504.10471
    method: Method = "logistic"
    """`logistic` with the fixed `strength`; `ridge` with a strength by leave-one-out; `big_vision`,
    ridge with `strength` as the penalty; `centroid`, the nearest class mean by cosine."""
    strength: float = 1.0
    """C of `logistic`, the penalty of `big_vision`; not used otherwise."""
    standardise: Standardise = "l2"
    """Of `logistic`; the others have their own."""
    binary: Binary = "softmax"
    """Of `logistic`: what is penalised where there are two classes, as for the linear probe."""
    short_classes: ShortClasses = "error"
    """What a class with too few rows does: stop the run, or give all it has."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_ks("shots", self.shots)
        check_at_least("n_draws", self.n_draws, 1)
        check_choice("method", self.method, get_args(Method))
        check_choice("standardise", self.standardise, get_args(Standardise))
        check_choice("binary", self.binary, get_args(Binary))
        check_choice("short_classes", self.short_classes, get_args(ShortClasses))
        check_range("strength", self.strength, 0, math.inf)
        _check_member("primary_shots", self.primary_shots, "shots", self.shots)

    @property
    def needs_direction(self) -> bool:
        """Whether rows are scaled to unit norm, which a zero row does not have."""
        return self.method == "logistic" and self.standardise == "l2"


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroshotOptions:
    """Options of classification by class names alone."""

    classes: tuple[str, ...] = ()
    """Names of the classes to choose among; empty: all of the dataset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterOptions:
    """Options shared by Tip-Adapter and LP++."""

    shots: tuple[int, ...] = (1, 2, 4, 8, 16)  # Tip-Adapter, arXiv:2111.03930
    primary_shots: int = 16
    n_draws: int = 5
    """Tip-Adapter's papers use one fixed draw, which hides the spread between draws."""
    held_out_shots: int = 4
    """Further train rows per class, at most, on which options are chosen."""  # LP++, 2404.02285
    short_classes: ShortClasses = "error"

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_ks("shots", self.shots)
        check_at_least("n_draws", self.n_draws, 1)
        check_at_least("held_out_shots", self.held_out_shots, 1)
        check_choice("short_classes", self.short_classes, get_args(ShortClasses))
        _check_member("primary_shots", self.primary_shots, "shots", self.shots)


@dataclass(frozen=True, slots=True, kw_only=True)
class TipAdapterOptions(AdapterOptions):
    """Options of Tip-Adapter without training."""

    alpha: float = 1.17  # gaopengcuhk/Tip-Adapter configs/imagenet.yaml
    beta: float = 1.0
    alpha_range: tuple[float, ...] = (0.1, 3.0)  # as there, smallest and largest to try
    alpha_steps: int = 20
    beta_range: tuple[float, ...] = (0.1, 7.0)
    beta_steps: int = 20
    """200 there; the accuracy changes slowly along it."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        AdapterOptions.__post_init__(self)
        check_range("alpha", self.alpha, 0, math.inf)
        check_range("beta", self.beta, 0, math.inf)
        for name, ends in (("alpha_range", self.alpha_range), ("beta_range", self.beta_range)):
            if len(ends) != 2 or not 0 < ends[0] <= ends[1] < math.inf:
                raise OptionError(
                    f"`{name}` must be two positive numbers, the smaller first; got {list(ends)}."
                )
        check_at_least("alpha_steps", self.alpha_steps, 1)
        check_at_least("beta_steps", self.beta_steps, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class LpPlusPlusOptions(AdapterOptions):
    """Options of LP++."""

    epochs: int = 300  # FereshteShakeri/FewShot-CLIP-Strong-Baseline
    alpha_every: int = 10
    """Steps between two steps of the blend with the text classifier."""
    momentum: float = 0.9

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        AdapterOptions.__post_init__(self)
        check_at_least("epochs", self.epochs, 1)
        check_at_least("alpha_every", self.alpha_every, 1)


def _check_member(name: str, got: int, of: str, allowed: tuple[int, ...]) -> None:
    if got not in allowed:
        raise OptionError(
            f"`{name}` must be one of `{of}`; got {got!r} and {of} = {list(allowed)}. "
            "Add it, or choose another."
        )
