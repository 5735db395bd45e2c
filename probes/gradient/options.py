"""Options of linear heads trained by gradient descent."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal, get_args

from featcache.errors import OptionError
from featcache.probes.options import (
    check_at_least,
    check_choice,
    check_positive_rising,
    check_range,
)

Optimiser = Literal["sgd", "lars", "adamw"]
Prepare = Literal["none", "batchnorm", "l2"]
HeadInput = Literal["all", "cls1", "cls1+mean", "cls4", "cls4+mean"]
Search = Literal["grid", "bisect"]
Start = Literal["normal", "uniform"]
Selection = Literal["held_out", "test"]

N_BISECT_STARTS = 7  # CLIP, arXiv:2103.00020, App. A.3; CLIP_benchmark linear_probe.py


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientOptions:
    """Options of linear heads trained by gradient descent; one head per combination of a grid."""

    optimiser: Optimiser = "sgd"
    """`sgd` with momentum; `lars`, which scales each step by the norm of the weights; `adamw`,
    whose weight decay is decoupled and also acts on the bias."""
    prepare: Prepare = "none"
    """`none`: features as stored; `batchnorm`: the mean and deviation of the batch, running ones
    afterwards, no learnt scale; `l2`: unit rows."""
    inputs: tuple[HeadInput, ...] = ("all",)
    """Which columns a head sees: `all`, or parts of the tap `cls4_mean` (the class tokens of the
    last four blocks, then the mean patch token): `cls1` is the last class token alone."""
    learning_rates: tuple[float, ...] = (
        *(1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1),
    )  # dinov2 eval/linear.py
    """Increasing; each is multiplied by `batch` / `reference_batch`."""
    reference_batch: int = 256  # dinov2 eval/linear.py, mae main_linprobe.py
    """Batch for which the learning rates are stated; 0 takes them as they are."""
    weight_decays: tuple[float, ...] = (0.0,)
    """Increasing."""
    search: Search = "grid"
    """`grid` trains every combination in one pass; `bisect` tries seven weight decays first, then
    halves the span around the best."""
    batch: int = 128  # dinov2 eval/linear.py, per GPU
    """Rows per iteration, all rows where there are fewer and epochs are counted."""
    iterations: int = 12_500  # dinov2 eval/linear.py: 10 epochs of 1250
    """Length of the training; batches then run on over one shuffle of the rows after another. 0:
    `epochs` counts instead."""
    epochs: int = 0
    """Passes over the rows, each shuffled anew; 0: `iterations` counts instead."""
    drop_last: bool = False
    """Whether an epoch leaves out the rows that do not fill a batch."""
    warmup_epochs: int = 0
    """Epochs in which the learning rate rises from 0, before it falls as a cosine to 0."""
    momentum: float = 0.9  # all three recipes; of AdamW the first beta
    trust_coefficient: float = 0.001  # mae util/lars.py
    """Of `lars`: a step's share of the norm of the weights, per unit of learning rate."""
    start: Start = "normal"
    """`normal`: weights N(0, 0.01²), bias 0 (dinov2, mae); `uniform`: both within 1/√D (torch)."""
    selection: Selection = "held_out"
    """Rows on which the best head is chosen. `test` is optimistic: the same rows are reported."""
    held_out: float = 0.1  # dinov2 log_regression.py holds out a tenth
    """Share of each class of train that `held_out` takes; the chosen head is trained on all."""

    def __post_init__(self) -> None:
        """Refuse values out of range, and choices that exclude each other."""
        for name, got, allowed in (
            ("optimiser", self.optimiser, get_args(Optimiser)),
            ("prepare", self.prepare, get_args(Prepare)),
            ("search", self.search, get_args(Search)),
            ("start", self.start, get_args(Start)),
            ("selection", self.selection, get_args(Selection)),
            *(("inputs", item, get_args(HeadInput)) for item in self.inputs),
        ):
            check_choice(name, got, allowed)
        if not self.inputs or len(set(self.inputs)) != len(self.inputs):
            raise OptionError(
                f"`inputs` must be distinct names, at least one; got {list(self.inputs)}. "
                "Drop repeats."
            )
        check_positive_rising("learning_rates", self.learning_rates)
        _check_decays(self.weight_decays)
        check_at_least("batch", self.batch, 1)
        for name in ("reference_batch", "iterations", "epochs", "warmup_epochs"):
            check_at_least(name, getattr(self, name), 0)
        check_range("momentum", self.momentum, 0, 1)
        check_range("trust_coefficient", self.trust_coefficient, 0, math.inf)
        check_range("held_out", self.held_out, 0, 1)
        self._check_length()
        self._check_search()

    @property
    def rate_factor(self) -> float:
        """What every learning rate is multiplied by."""
        return self.batch / self.reference_batch if self.reference_batch else 1.0

    def _check_length(self) -> None:
        if (self.iterations > 0) == (self.epochs > 0):
            raise OptionError(
                "Exactly one of `iterations` and `epochs` must be positive; got "
                f"{self.iterations} and {self.epochs}. Set the other to 0."
            )
        if self.warmup_epochs and self.warmup_epochs >= self.epochs:
            raise OptionError(
                f"`warmup_epochs` must be fewer than `epochs`; got {self.warmup_epochs} and "
                f"{self.epochs}. Lower it."
            )

    def _check_search(self) -> None:
        if self.search == "grid":
            return
        steps = len(self.weight_decays) - 1
        if len(self.inputs) * len(self.learning_rates) > 1 or not steps:
            raise OptionError(
                "A `bisect` search must have several weight decays, and one learning rate and one "
                f"input; got {steps + 1}, {len(self.learning_rates)} and {len(self.inputs)}. "
                "Use `search: grid`."
            )
        if steps % (N_BISECT_STARTS - 1):
            raise OptionError(
                f"A `bisect` search must have a multiple of {N_BISECT_STARTS - 1} weight decays, "
                f"and one more, so that its starts are evenly spaced; got {steps + 1}. Use 97."
            )


def _check_decays(got: tuple[float, ...]) -> None:
    rises = all(low < high for low, high in itertools.pairwise(got))
    if not got or not rises or not (got[0] >= 0 and math.isfinite(got[-1])):
        raise OptionError(
            "`weight_decays` must be finite numbers from 0 in increasing order, at least one; got "
            f"{list(got)!r}. Sort them, and drop repeats."
        )
