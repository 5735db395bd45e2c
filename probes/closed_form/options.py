"""Options of the classifiers with a closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from featcache.errors import OptionError
from featcache.probes.linear.scaling import Standardise
from featcache.probes.options import check_at_least, check_choice, check_positive_rising

Targets = Literal["plus_minus", "one_hot"]
ClassWeight = Literal["none", "balanced"]
Selection = Literal["accuracy", "squared_error"]
Shrinkage = Literal["none", "ledoit_wolf", "oas", "fixed"]
Priors = Literal["empirical", "uniform"]
Metric = Literal["cosine", "euclidean"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RidgeOptions:
    """Options of ridge regression on class targets."""

    strengths: tuple[float, ...] = (
        *(float(f"{base}e{power}") for power in range(-3, 8) for base in (1.0, 3.2)),
        1e8,
    )
    """Penalties α (larger is a stronger penalty), increasing. For z-scored rows the mean
    eigenvalue of XᵀX is N, so two per decade from 1e-3 to 1e8 surround it for any N."""
    selection: Selection = "accuracy"
    """What leave-one-out chooses the strength by."""
    extend_decades: int = 4
    """Decades that the grid may grow by at either end while the optimum lies there."""
    standardise: Standardise = "zscore"
    """`zscore`: train mean and deviation per dimension; `l2`: unit rows; `none`: as stored;
    `centre` gives what `none` gives, as the intercept is free."""
    targets: Targets = "plus_minus"
    """+1 for the own class and -1 (big_vision `fewshot_lsr.py`, scikit-learn) or 0 for others."""
    class_weight: ClassWeight = "none"
    """`balanced` weighs a row by N / (C · rows of its class), as scikit-learn does."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_positive_rising("strengths", self.strengths)
        check_choice("selection", self.selection, get_args(Selection))
        check_at_least("extend_decades", self.extend_decades, 0)
        check_choice("standardise", self.standardise, get_args(Standardise))
        check_choice("targets", self.targets, get_args(Targets))
        check_choice("class_weight", self.class_weight, get_args(ClassWeight))


@dataclass(frozen=True, slots=True, kw_only=True)
class LdaOptions:
    """Options of linear discriminant analysis."""

    shrinkage: Shrinkage = "ledoit_wolf"
    """How far the covariance is drawn to a multiple of the unit matrix. Ledoit and Wolf's amount
    (2004) is estimated from the rows, so nothing is tuned."""
    shrinkage_amount: float = 0.1
    """The share of the unit matrix with `fixed`, in [0, 1]; not used otherwise."""
    priors: Priors = "empirical"
    """Class shares in train, or all equal."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_choice("shrinkage", self.shrinkage, get_args(Shrinkage))
        check_choice("priors", self.priors, get_args(Priors))
        if not 0 <= self.shrinkage_amount <= 1:
            raise OptionError(
                f"`shrinkage_amount` must be between 0 and 1; got {self.shrinkage_amount!r}. "
                "0 is the plain covariance, 1 a multiple of the unit matrix."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class CentroidOptions:
    """Options of the nearest class mean."""

    metric: Metric = "cosine"
    centre: bool = True
    """Subtract the train mean first. It makes cosines tell classes apart where all features lean
    in one direction, and changes nothing in Euclidean distances."""

    def __post_init__(self) -> None:
        """Refuse an unknown metric."""
        check_choice("metric", self.metric, get_args(Metric))
