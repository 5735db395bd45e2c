"""Options of the linear probe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from featcache.errors import OptionError
from featcache.probes.linear.scaling import Standardise
from featcache.probes.options import (
    check_at_least,
    check_choice,
    check_positive_rising,
    check_range,
)

Search = Literal["grid", "bracket"]
Criterion = Literal["top1", "mean_per_class", "nll"]
ClassWeight = Literal["none", "balanced"]
Refit = Literal["all", "train"]
Binary = Literal["softmax", "sigmoid"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearOptions:
    """Options of the linear probe."""

    strengths: tuple[float, ...] = tuple(10.0**power for power in range(-5, 4))
    """Values of C (larger is a weaker penalty), increasing; a single one is not chosen."""
    search: Search = "grid"
    """`grid` takes the best strength; `bracket` then halves the spacing around it."""
    steps_per_decade: int = 8  # CLIP, arXiv:2103.00020, App. A.3
    """Resolution at which a `bracket` search ends."""
    extend_decades: float = 0.0
    """How far a grid may grow while its best strength lies at an edge."""
    stop_standard_errors: float = 0.0
    """Weaker penalties are not tried once the held-out accuracy lies this many of its standard
    errors below the best; they are by far the slowest to solve. 0 tries the whole grid."""
    held_out: float = 0.2
    """Share of each class of train on which the strength is chosen, where there are no `folds`
    and no validation split."""
    folds: int = 0
    """Folds of train, stratified; each is held out once. 0: one held-out part."""
    criterion: Criterion = "top1"
    """What the chosen strength is best at, on held-out rows; `nll` is the smallest."""
    refit: Refit = "all"
    """What is fitted with the chosen strength: `all`, with the validation split, or `train`."""
    standardise: Standardise = "zscore"
    """`zscore`: train mean and deviation per dimension; `l2`: unit rows; `none`: as stored;
    `centre`: the mean alone, which a free bias makes the same as `none`."""
    class_weight: ClassWeight = "none"
    """`balanced`: a row counts n / (classes · rows of its class)."""
    binary: Binary = "softmax"
    """The penalty where there are two classes. `softmax`: of both weight vectors, as for any other
    number of classes. `sigmoid`: of their difference, as in scikit-learn's and cuML's
    LogisticRegression: at the same C twice the penalty. Nothing changes from three classes on."""
    classes: tuple[str, ...] = ()
    """Names of the classes to tell apart; rows of others are left out. Empty: all."""
    tol: float = 1e-6
    max_iter: int = 1000  # CLIP and dinov2 log_regression.py

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_choice("search", self.search, get_args(Search))
        check_choice("standardise", self.standardise, get_args(Standardise))
        check_choice("criterion", self.criterion, get_args(Criterion))
        check_choice("class_weight", self.class_weight, get_args(ClassWeight))
        check_choice("refit", self.refit, get_args(Refit))
        check_choice("binary", self.binary, get_args(Binary))
        check_positive_rising("strengths", self.strengths)
        check_range("held_out", self.held_out, 0, 1)
        check_at_least("extend_decades", self.extend_decades, 0)
        check_at_least("stop_standard_errors", self.stop_standard_errors, 0)
        if self.criterion == "nll" and self.stop_standard_errors:
            raise OptionError(
                "`stop_standard_errors` must be 0 with `criterion: nll`, as it counts errors of an "
                f"accuracy; got {self.stop_standard_errors!r}."
            )
        check_range("tol", self.tol, 0, 1)
        check_at_least("steps_per_decade", self.steps_per_decade, 1)
        check_at_least("max_iter", self.max_iter, 1)
        if self.folds == 1 or self.folds < 0:
            raise OptionError(f"`folds` must be 0, or 2 and more; got {self.folds!r}. Choose 5.")
        if len(set(self.classes)) != len(self.classes):
            raise OptionError(f"`classes` must be distinct names; got {list(self.classes)!r}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class MultilabelOptions:
    """Options of the linear probe on rows of several classes."""

    separator: str = "|"
    """A class name is a list of names between separators; a row belongs to each."""
    strengths: tuple[float, ...] = tuple(10.0**power for power in range(-5, 4))
    """Values of C, increasing, the same for all classes."""
    extend_decades: float = 2.0
    """How far the grid may grow while its best strength lies at an edge."""
    held_out: float = 0.2
    """Share of each combination of classes on which the strength is chosen, by mean average
    precision."""
    standardise: Standardise = "zscore"
    tol: float = 1e-6
    max_iter: int = 1000

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        if not self.separator:
            raise OptionError("`separator` must not be empty; got ''. Use '|'.")
        self.as_linear()

    def as_linear(self) -> LinearOptions:
        """Return what the search for a strength needs."""
        return LinearOptions(
            strengths=self.strengths,
            extend_decades=self.extend_decades,
            held_out=self.held_out,
            standardise=self.standardise,
            tol=self.tol,
            max_iter=self.max_iter,
        )
