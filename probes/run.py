"""The one way to run a protocol on feature tables, and what is checked before."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from featcache.errors import ProtocolError, ShapeError
from featcache.probes.arrays import row_blocks
from featcache.probes.tasks import TASKS, TaskInputs
from featcache.registry import load_target

if TYPE_CHECKING:
    from featcache.probes.catalog import Runner
    from featcache.probes.protocol import Protocol
    from featcache.result_store import Outcome
    from featcache.store.table import Table


def run_task(protocol: Protocol, inputs: TaskInputs) -> Outcome:
    """Run a protocol on feature tables.

    The order of the rows changes nothing: whatever depends on it uses the order of the ids.

    Args:
        protocol: Method and options; whether it fits the features is for `protocol.check`.
        inputs: The tables that the task needs; others are ignored.

    Returns:
        Metrics, intervals, per-sample predictions and details.

    Raises:
        ShapeError: If a table is missing or has no usable rows, or if tables do not fit.
        ProtocolError: If the protocol is for another number of train rows.
        UnknownNameError: If the protocol's runner cannot be imported.
    """
    facts, asked = TASKS[protocol.task], protocol.requires.train_rows
    if protocol.needs_train and inputs.train is None:
        raise ShapeError(f"Task {facts.name!r} needs train rows; got none. Extract a train split.")
    given = sum(len(table) for table in (inputs.train, inputs.validation) if table is not None)
    if inputs.train is not None and asked not in (0, given):
        raise ProtocolError(
            f"Protocol {protocol.name} must have {asked} train rows, a validation split included; "
            f"got {given}. Take that many, for instance the dataset with ?rows={asked}."
        )
    if facts.needs_ood and not inputs.ood:
        raise ShapeError(
            f"Task {facts.name!r} needs at least one OOD dataset; got none. Extract another one."
        )
    if facts.needs_texts and inputs.texts is None:
        raise ShapeError(f"Task {facts.name!r} needs captions; got none. Embed those of test.")
    _check_head(facts.name, facts.needs_head, inputs)
    if "test" in inputs.ood:
        raise ShapeError("An OOD dataset must not be called 'test'; got one. Rename it.")
    for name, other in (("train", inputs.train), ("validation", inputs.validation)):
        if other is not None:
            _check_classes(name, other, inputs.test)
    tables = {"train": inputs.train, "validation": inputs.validation, **inputs.ood}
    if facts.needs_texts:
        tables["captions"] = inputs.texts
    dim = inputs.test.features.shape[1:]
    for name, table in tables.items():
        if table is not None and table.features.shape[1:] != dim:
            raise ShapeError(
                f"All features must have the same number of dimensions; test has {dim[0]} and "
                f"{name!r} has {table.features.shape[1]}. Use one backbone and tap for all."
            )
    for name, table in {"test": inputs.test, **tables}.items():
        if table is not None:
            _check_rows(name, table, needs_direction=protocol.needs_direction)
    return cast("Runner", load_target(protocol.runner))(protocol, inputs)


def _check_head(task: str, needed: str, inputs: TaskInputs) -> None:
    """Refuse a head that is missing, of another kind or of another width than the features."""
    head, dim = inputs.head, inputs.test.features.shape[1:]
    if needed and (head is None or needed not in ("any", head.kind)):
        kind = "classifier" if needed == "any" else f"{needed!r} classifier"
        got = "none" if head is None else f"one of kind {head.kind!r}"
        raise ShapeError(f"Task {task!r} needs a {kind}; got {got}. Give one with --head.")
    if head is not None and head.weights.shape[:1] != dim:
        raise ShapeError(
            f"A head must read features as wide as it; the head reads {len(head.weights)} "
            f"dimensions and test has {dim[0]}. Use features of its backbone and tap."
        )


def _check_rows(name: str, table: Table, *, needs_direction: bool) -> None:
    """Name the image whose features no method can use."""
    for block in row_blocks(len(table), 4 * table.features.shape[1]):
        rows = table.features[block]
        bad, what = ~np.isfinite(rows).all(axis=1), "finite"
        if needs_direction and not bad.any():
            bad, what = (
                ~rows.any(axis=1),
                "of non-zero norm, which cosine similarity needs",
            )
        if bad.any():
            first = str(table.ids[block.start + int(bad.argmax())])
            raise ShapeError(
                f"Features must be {what}; {int(bad.sum())} rows of {name!r} are not, the first is "
                f"image {first!r}. Look at that image, or extract again with --stored float32."
            )


def _check_classes(name: str, other: Table, test: Table) -> None:
    if other.class_names == test.class_names:
        return
    pairs = zip(other.class_names, test.class_names, strict=False)
    number, differ = next(
        ((i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1]),
        (min(len(other.class_names), len(test.class_names)), ("...", "...")),
    )
    raise ShapeError(
        f"{name.capitalize()} and test must have the same classes in the same order; got "
        f"{len(other.class_names)}"
        f" and {len(test.class_names)}, first different at class {number}: {differ[0]!r} and "
        f"{differ[1]!r}. Give both splits one list of class names."
    )
