"""The gradient probe: train a grid of heads, choose one on other rows, train it on all rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from featcache.digest import Json
from featcache.errors import OptionError
from featcache.probes.arrays import Features, check_features, check_labels, check_pair
from featcache.probes.gradient.heads import Head
from featcache.probes.gradient.options import GradientOptions
from featcache.probes.gradient.rows import RowReader
from featcache.probes.gradient.schedule import Plan
from featcache.probes.gradient.search import describe, grid, is_at_edge, search, untuned
from featcache.probes.gradient.train import TrainedHeads, train_heads
from featcache.probes.linear.head import LinearHead
from featcache.probes.splits import stratified_split

TEST_WARNING = "The head was chosen on the rows that are reported: its accuracy is optimistic."
"""In the details of a result whose protocol selects on the test rows."""

LabelledFeatures = tuple[Features, NDArray[np.int64]]


def fit_gradient(
    features: Features,
    labels: NDArray[np.int64],
    options: GradientOptions,
    rng: np.random.Generator,
    *,
    rows: NDArray[np.intp] | None = None,
    test: LabelledFeatures | None = None,
    device: str = "cpu",
) -> LinearHead:
    """Train linear heads by gradient descent, and return the one that is best on other rows.

    A grid of one head is trained on all rows, and nothing is chosen. With `selection: held_out`
    a part of each class is held out, the head with the best top-1 accuracy on it wins (the first
    of a tie: inputs as listed, then the smaller learning rate, then the smaller weight decay) and
    is trained again on all rows. Where no row can be held out, the first input is taken with the
    middle learning rate and no weight decay, and the details say so. With `selection: test` the
    grid is trained on all rows, and the head that is best on `test` is returned as it is.

    Args:
        features: Shape (N, D), any float dtype; a memory map is read row by row.
        labels: Class indices from 0, one for each training row; classes may be missing.
        options: The recipe.
        rng: Draws the held-out rows, and a seed for starting weights and batches.
        rows: Numbers of the training rows; None: all N. Their order decides the batches.
        test: Features (M, D) and labels (M,); only `selection: test` looks at them.
        device: Torch device of the training.

    Returns:
        The head, with `details` for the record.

    Raises:
        ShapeError: If arrays do not fit together, are empty or not finite, if a row is zero where
            rows are scaled to unit norm, or if the inputs need the tap `cls4_mean`.
        OptionError: If every head diverged, or if `selection: test` gets no test rows.

    Source: dinov2 `eval/linear.py` (arXiv:2304.07193); mae `main_linprobe.py` (arXiv:2111.06377);
    CLIP_benchmark `linear_probe.py`.
    """
    index = np.arange(len(features)) if rows is None else rows
    check_features("features", features[index[:1]])
    check_labels("labels", np.empty((len(index), 0)), labels)
    seed = int(rng.integers(1 << 31))
    job = _Job.of(features, index, labels, options, seed, device)
    if len(grid(options)) == 1:
        tuned = _Tuned(head=grid(options)[0], selection="none")
    elif options.selection == "held_out":
        tuned = _tune_held_out(job, *stratified_split(labels, options.held_out, rng))
    else:
        tuned = _tune_on_test(job, test)
    trained, number = tuned.final or (job.train([tuned.head]), 0)
    if not trained.is_finite[number]:
        raise OptionError(
            "At least one head must stay finite in training; all diverged, the last with learning "
            f"rate {tuned.head.learning_rate} and weight decay {tuned.head.weight_decay}. Lower "
            "`learning_rates` or `weight_decays`."
        )
    weights, bias = trained.linear(number, features.shape[1])
    return LinearHead(
        classes=job.classes,
        weights=weights,
        bias=bias,
        is_unit_norm=options.prepare == "l2",
        details=_details(job, tuned, trained.losses[:, number]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """The training rows and the recipe."""

    features: Features
    index: NDArray[np.intp]
    classes: NDArray[np.int64]
    codes: NDArray[np.int64]
    """Shape (N,): the place of each row's label in `classes`."""
    options: GradientOptions
    seed: int
    device: str

    @classmethod
    def of(
        cls,
        features: Features,
        index: NDArray[np.intp],
        labels: NDArray[np.int64],
        options: GradientOptions,
        seed: int,
        device: str,
    ) -> _Job:
        """Number the classes that there are."""
        classes, codes = np.unique(labels, return_inverse=True)
        return cls(
            features=features,
            index=index,
            classes=classes,
            codes=codes,
            options=options,
            seed=seed,
            device=device,
        )

    def reader(self, features: Features, rows: NDArray[np.intp]) -> RowReader:
        is_unit_norm = self.options.prepare == "l2"
        return RowReader(features, rows, is_unit_norm=is_unit_norm, device=self.device)

    def train(
        self, heads: Sequence[Head], positions: NDArray[np.intp] | None = None
    ) -> TrainedHeads:
        """Train on the training rows at `positions`, all if None."""
        at = slice(None) if positions is None else positions
        return train_heads(
            self.reader(self.features, self.index[at]),
            self.codes[at],
            len(self.classes),
            heads,
            self.options,
            self.seed,
            device=self.device,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tuned:
    """The head that was chosen, and all that were tried."""

    head: Head
    selection: str
    tried: Mapping[Head, float] = field(default_factory=dict)
    losses: Mapping[Head, float] = field(default_factory=dict)
    """Of each head that was tried, in the last tenth of its training."""
    n_rows: int = 0
    """Rows on which it was chosen."""
    final: tuple[TrainedHeads, int] | None = None
    """The chosen head as it was trained, if on all rows."""


def _tune_held_out(job: _Job, rest: NDArray[np.intp], held: NDArray[np.intp]) -> _Tuned:
    if not len(held):
        return _Tuned(head=untuned(job.options), selection="none: no row can be held out")
    scored, losses = job.reader(job.features, job.index[held]), dict[Head, float]()

    def attempt(heads: Sequence[Head]) -> list[float]:
        trained = job.train(heads, rest)
        losses.update(zip(heads, trained.losses[-1].tolist(), strict=True))
        return [float(share) for share in trained.top1(scored, job.codes[held])]

    head, tried = search(job.options, attempt)
    return _Tuned(head=head, selection="held_out", tried=tried, losses=losses, n_rows=len(held))


def _tune_on_test(job: _Job, test: LabelledFeatures | None) -> _Tuned:
    if test is None:
        raise OptionError(
            "`selection: test` needs the test rows; got none. Pass them, or use `held_out`."
        )
    check_pair("features", job.features, "test", test[0])
    check_labels("test labels", *test)
    place = np.searchsorted(job.classes, test[1]).clip(max=len(job.classes) - 1)
    codes = np.where(job.classes[place] == test[1], place, -1)
    scored, losses = job.reader(test[0], np.arange(len(codes))), dict[Head, float]()
    kept: dict[Head, tuple[TrainedHeads, int]] = {}

    def attempt(heads: Sequence[Head]) -> list[float]:
        trained = job.train(heads)
        losses.update(zip(heads, trained.losses[-1].tolist(), strict=True))
        kept.update({head: (trained, number) for number, head in enumerate(heads)})
        return [float(share) for share in trained.top1(scored, codes)]

    head, tried = search(job.options, attempt)
    return _Tuned(
        head=head,
        selection="test",
        tried=tried,
        losses=losses,
        n_rows=len(codes),
        final=kept[head],
    )


def _details(job: _Job, tuned: _Tuned, losses: NDArray[np.float64]) -> dict[str, Json]:
    options, plan = job.options, Plan.of(job.options, len(job.index))
    details: dict[str, Json] = {
        "selection": tuned.selection,
        "selection_rows": tuned.n_rows,
        "selected_on_test": tuned.selection == "test",
        "chosen": describe(tuned.head),
        "at_grid_edge": bool(tuned.tried) and is_at_edge(tuned.head, options),
        "heads": [
            describe(head, top1=share, train_loss=_plain(tuned.losses[head]))
            for head, share in tuned.tried.items()
        ],
        "train_loss": [_plain(loss) for loss in losses],
        "learning_rate_factor": options.rate_factor,
        "iterations": plan.n_steps,
        "batch": plan.batch,
        "classes_in_train": len(job.classes),
        "torch_seed": job.seed,
    }
    return {"warnings": [TEST_WARNING] if tuned.selection == "test" else [], **details}


def _plain(loss: float) -> float | None:
    """Return a loss as JSON has it: None where a head diverged."""
    return float(loss) if math.isfinite(loss) else None
