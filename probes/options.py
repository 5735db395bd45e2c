"""The options of the four tasks: closed sets of names, each validated, no heavy import."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from featcache.digest import Json
from featcache.errors import OptionError, did_you_mean

Standardise = Literal["none", "zscore", "l2"]
Search = Literal["grid", "bracket"]
Gallery = Literal["test", "train"]
Detector = Literal["msp", "maxlogit", "energy", "mahalanobis", "knn"]


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
        _check_positive_rising("strengths", self.strengths)
        _check_range("held_out", self.held_out, 0, 1)
        _check_at_least("stop_standard_errors", self.stop_standard_errors, 0)
        _check_range("tol", self.tol, 0, 1)
        _check_at_least("steps_per_decade", self.steps_per_decade, 1)
        _check_at_least("max_iter", self.max_iter, 1)


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
        _check_ks("k", self.k)
        if self.primary_k not in self.k:
            raise OptionError(
                f"`primary_k` must be one of `k`; got {self.primary_k!r} and k = {list(self.k)}. "
                "Add it to `k`, or choose another."
            )
        _check_range("temperature", self.temperature, 0, math.inf)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalOptions:
    """Options of retrieval."""

    k: tuple[int, ...] = (1, 5, 10)
    gallery: Gallery = "test"
    """`test`: each query searches the other test rows; `train`: it searches the train rows."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        _check_ks("k", self.k)
        check_choice("gallery", self.gallery, get_args(Gallery))


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
        _check_at_least("k", self.k, 1)
        _check_range("k_class_share", self.k_class_share, 0, math.inf)
        _check_range("temperature", self.temperature, 0, math.inf)
        _check_range("eigenvalue_floor", self.eigenvalue_floor, 0, 1)


Options = LinearOptions | KnnOptions | RetrievalOptions | OodOptions

OPTIONS: Mapping[str, type[Options]] = {
    "linear": LinearOptions,
    "knn": KnnOptions,
    "retrieval": RetrievalOptions,
    "ood": OodOptions,
}


def parse_options(kind: type[Any], values: Mapping[str, Json], *, prefix: str = "") -> Any:  # noqa: ANN401
    """Build an options dataclass from plain JSON, for instance a protocol's mapping.

    Lists become tuples and integers stand for floats; what is left out keeps its default.

    Args:
        kind: The dataclass, one of the values of `OPTIONS`.
        values: Option names to values.
        prefix: Written before option names in messages (`head.` for a nested mapping).

    Raises:
        OptionError: If a name is unknown, or a value has the wrong type or is out of range.
    """
    fields = {item.name: item for item in dataclasses.fields(kind)}
    defaults, built = kind(), {}
    for name, value in values.items():
        if name not in fields:
            raise OptionError(
                f"An option must be one of {', '.join(sorted(fields))}; got {prefix + str(name)!r}."
                f" {did_you_mean(str(name), fields)}Correct the name."
            )
        built[name] = _convert(prefix + name, value, getattr(defaults, name))
    return kind(**built)


def _convert(name: str, value: Json, default: object) -> object:
    """Return `value` in the type of `default`."""
    if dataclasses.is_dataclass(default):
        if isinstance(value, Mapping):
            return parse_options(type(default), value, prefix=f"{name}.")
    elif isinstance(default, tuple):
        if isinstance(value, Sequence) and not isinstance(value, str):
            sample = default[0] if default else 1.0
            return tuple(_convert(name, item, sample) for item in value)
    elif isinstance(default, float) and not isinstance(value, bool):
        if isinstance(value, int | float):
            return float(value)
    elif type(value) is type(default):
        return value
    wanted = {tuple: "a list", float: "a number", int: "a whole number", bool: "true or false"}
    raise OptionError(
        f"`{name}` must be {wanted.get(type(default), 'a name or a mapping')}; got {value!r}. "
        "In YAML write 1.0e-6, not 1e-6, which is text."
    )


def check_choice(name: str, got: object, allowed: Sequence[str]) -> None:
    """Refuse what is not one of the allowed names.

    Raises:
        OptionError: With all of them, and the one most like it.
    """
    if got not in allowed:
        raise OptionError(
            f"`{name}` must be one of {', '.join(allowed)}; got {got!r}. "
            f"{did_you_mean(str(got), allowed)}Choose one of them."
        )


def _check_range(name: str, got: float, low: float, high: float) -> None:
    if not low < got < high:
        raise OptionError(
            f"`{name}` must be between {low} and {high}, both excluded; got {got!r}."
            " Choose a value in between."
        )


def _check_at_least(name: str, got: float, low: float) -> None:
    if got < low:
        raise OptionError(f"`{name}` must be at least {low}; got {got!r}. Raise it.")


def _check_positive_rising(name: str, got: Sequence[float]) -> None:
    rises = all(low < high for low, high in itertools.pairwise(got))
    if not got or not rises or not (got[0] > 0 and math.isfinite(got[-1])):
        raise OptionError(
            f"`{name}` must be positive finite numbers in increasing order, at least one; got "
            f"{list(got)!r}. Sort them, and drop repeats."
        )


def _check_ks(name: str, got: Sequence[int]) -> None:
    if not got or min(got) < 1 or len(set(got)) != len(got):
        raise OptionError(
            f"`{name}` must be distinct whole numbers from 1; got {list(got)!r}. "
            "Drop what is below 1, and repeats."
        )
