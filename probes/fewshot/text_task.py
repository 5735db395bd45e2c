"""The tasks that start from class names: `zeroshot`, `tipadapter` and `lpplusplus`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from featcache.digest import Json
from featcache.errors import ShapeError
from featcache.probes.arrays import Features, unit_rows
from featcache.probes.classification import Distribution, classification
from featcache.probes.fewshot.averages import average_draws
from featcache.probes.fewshot.draws import Draw, draw_shots
from featcache.probes.fewshot.lp_plus_plus import fit_lp_plus_plus
from featcache.probes.fewshot.options import (
    AdapterOptions,
    LpPlusPlusOptions,
    TipAdapterOptions,
    ZeroshotOptions,
)
from featcache.probes.fewshot.tip_adapter import TipAdapter, tune
from featcache.probes.heads.match import match_classes
from featcache.probes.tables import labelled, labelled_pair, of_classes
from featcache.result_store import Outcome

if TYPE_CHECKING:
    from featcache.head_store import StoredHead
    from featcache.probes.protocol import Protocol
    from featcache.probes.tasks import TaskInputs
    from featcache.store.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shots:
    """Shots of one draw and number, and the rows on which options are chosen; unit rows."""

    rows: NDArray[np.float64]
    labels: NDArray[np.int64]
    held: NDArray[np.float64]
    held_labels: NDArray[np.int64]


Predict = Callable[[_Shots], tuple[dict[str, NDArray[np.int64]], dict[str, Json]]]
"""From shots to predictions of the test rows, by name ('' is the main one), and what was chosen."""


def run_zeroshot(protocol: Protocol, inputs: TaskInputs) -> Outcome:
    """Give each labelled test row the class whose text is nearest; no train row is read.

    Raises:
        ShapeError: If there is no text head, if it lacks a class, or if no row has a label.
        OptionError: If a class of the subset does not exist.
    """
    options = cast(ZeroshotOptions, protocol.parsed_options())
    inputs = of_classes(inputs, options.classes)
    test = labelled(inputs.test, "test", in_id_order=False)
    names = [name for name in test.class_names if name in (options.classes or test.class_names)]
    head, text = _text(inputs, names)
    kept = np.flatnonzero(np.isin(test.class_names, names))
    logits = head.scale * (unit_rows("test", test.features) @ text)
    return classification(
        test,
        Distribution.of_logits(kept.astype(np.int64), logits),
        details={
            "head": {"key": head.key, "scale": head.scale, **head.origin},
            "classes": len(kept),
            "dropped_unlabelled_test": len(inputs.test) - len(test),
        },
        seed=inputs.seed,
    )


def run_tipadapter(protocol: Protocol, inputs: TaskInputs) -> Outcome:
    """Add the vote of cached shots to the text classifier; α and β come from held-out train rows.

    `training_free.top1@n` is with the fixed α and β.

    Raises:
        ShapeError: If there is no text head, if it lacks a class, or if a class has too few rows.
    """
    options = cast(TipAdapterOptions, protocol.parsed_options())
    train, test, details = labelled_pair(inputs)
    head, text = _text(inputs, test.class_names)
    queries = unit_rows("test", test.features)
    alphas = np.linspace(options.alpha_range[0], options.alpha_range[1], options.alpha_steps)
    betas = np.linspace(options.beta_range[0], options.beta_range[1], options.beta_steps)

    def predict(shots: _Shots) -> tuple[dict[str, NDArray[np.int64]], dict[str, Json]]:
        adapter = TipAdapter(
            keys=shots.rows, values=np.eye(text.shape[1])[shots.labels], text=head.scale * text
        )
        alpha, beta, held_out = tune(
            adapter, shots.held, shots.held_labels, alphas=alphas.tolist(), betas=betas.tolist()
        )
        tuned = adapter.logits(queries, alpha=alpha, beta=beta)
        fixed = adapter.logits(queries, alpha=options.alpha, beta=options.beta)
        found = {"": tuned.argmax(axis=1), "training_free": fixed.argmax(axis=1)}
        return found, {"alpha": alpha, "beta": beta, "held_out_top1": held_out}

    return _over_draws(train, test, options, predict, {**details, **_of(head)}, inputs.seed)


def run_lpplusplus(protocol: Protocol, inputs: TaskInputs) -> Outcome:
    """Fit LP++ on each draw of shots; the epoch comes from held-out train rows.

    Raises:
        ShapeError: If there is no text head, if it lacks a class, or if a class has too few rows.
    """
    options = cast(LpPlusPlusOptions, protocol.parsed_options())
    train, test, details = labelled_pair(inputs)
    head, text = _text(inputs, test.class_names)
    queries = unit_rows("test", test.features)

    def predict(shots: _Shots) -> tuple[dict[str, NDArray[np.int64]], dict[str, Json]]:
        fitted = fit_lp_plus_plus(
            shots.rows,
            shots.labels,
            text,
            (shots.held, shots.held_labels),
            epochs=options.epochs,
            alpha_every=options.alpha_every,
            momentum=options.momentum,
            device=inputs.device,
        )
        chosen: dict[str, Json] = {"epoch": fitted.epoch, "held_out_top1": fitted.held_out}
        return {"": (queries @ fitted.weights + fitted.bias).argmax(axis=1)}, chosen

    return _over_draws(train, test, options, predict, {**details, **_of(head)}, inputs.seed)


def _over_draws(
    train: Table,
    test: Table,
    options: AdapterOptions,
    predict: Predict,
    details: dict[str, Json],
    seed: int,
) -> Outcome:
    """Draw shots and, after them, the rows on which options are chosen; fit, and average."""
    most = max(options.shots)
    with_held = most + options.held_out_shots
    draws = draw_shots(
        train.labels,
        train.ids,
        train.class_names,
        (*options.shots, with_held),
        n_draws=options.n_draws,
        seed=seed,
        allow_fewer=options.short_classes == "all",
    )
    found: dict[str, dict[int, list[NDArray[np.int64]]]] = {}
    chosen: dict[str, list[Json]] = {str(n): [] for n in options.shots}
    for n in options.shots:
        for one in draws:
            predictions, choice = predict(_shots(train, one, n, most, with_held))
            chosen[str(n)].append(choice)
            for name, each in predictions.items():
                found.setdefault(name, {}).setdefault(n, []).append(each)
    others = {
        f"{name}.top1@{n}": float(np.mean([(one == test.labels).mean() for one in each]))
        for name, by_shots in found.items()
        if name
        for n, each in by_shots.items()
    }
    return average_draws(
        test,
        {n: np.stack(each) for n, each in found[""].items()},
        draws,
        primary=options.primary_shots,
        details={**details, "chosen": chosen, "held_out_shots": options.held_out_shots},
        seed=seed,
        metrics=others,
    )


def _shots(train: Table, draw: Draw, n: int, most: int, with_held: int) -> _Shots:
    held = np.setdiff1d(draw.rows[with_held], draw.rows[most])
    if not len(held):
        raise ShapeError(
            "Options must be chosen on rows that are no shots; got none left. Lower `shots`."
        )

    def part(rows: NDArray[np.intp]) -> NDArray[np.float64]:
        features: Features = train.features[rows]
        return unit_rows("train", features)

    rows = draw.rows[n]
    return _Shots(
        rows=part(rows),
        labels=train.labels[rows],
        held=part(held),
        held_labels=train.labels[held],
    )


def _text(inputs: TaskInputs, names: Sequence[str]) -> tuple[StoredHead, NDArray[np.float64]]:
    """Return the text head, and its unit vectors for the named classes, shape (D, C)."""
    head = inputs.head
    if head is None or head.kind != "text":
        raise ShapeError(
            "This task starts from class names; got no text head. Make one: featcache head text."
        )
    columns = match_classes(names, head.class_names, head.descriptions)
    return head, unit_rows("head", head.weights.T[columns]).T


def _of(head: StoredHead) -> dict[str, Json]:
    return {"head": {"key": head.key, "scale": head.scale, **head.origin}}
