"""The task `head`: from a feature table and a stored head to an Outcome."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from featcache.digest import Json
from featcache.errors import ShapeError
from featcache.probes.heads.match import match_classes
from featcache.probes.heads.options import HeadOptions
from featcache.probes.heads.scores import head_scores
from featcache.probes.linear.head import LinearHead
from featcache.probes.tables import labelled
from featcache.result_store import Outcome
from featcache.statistics import wilson_interval

if TYPE_CHECKING:
    from featcache.head_store import StoredHead
    from featcache.probes.protocol import Protocol
    from featcache.probes.tasks import TaskInputs


def run_head(protocol: Protocol, inputs: TaskInputs) -> Outcome:
    """Score the labelled test rows by a head that was fitted elsewhere.

    With `mask: dataset` only classes of the test dataset can be predicted. `top1_unmasked` lets the
    head choose among all of its classes. A prediction from the number of the dataset's classes on
    is another class of the head, in the head's order. A class that was in the list of classes the
    head was fitted for, but without a train row, is never predicted; its rows count as wrong.

    Raises:
        ShapeError: If there is no head, if it lacks a class of the dataset, or if no row has a
            label.
    """
    from featcache.probes.classification import Distribution, classification, decisions

    options = cast(HeadOptions, protocol.parsed_options())
    if (stored := inputs.head) is None:
        raise ShapeError("Task 'head' needs a classifier; got none. Give one with --head.")
    test = labelled(inputs.test, "test", in_id_order=False)
    mapping = options.mapping()
    kept = _fitted_classes(test.class_names, stored, mapping)
    names = [test.class_names[c] for c in kept]
    columns = match_classes(names, stored.class_names, stored.descriptions, mapping)
    head, is_masked = LinearHead.of_stored(stored), options.mask == "dataset"
    logits, best = head_scores(test.features, head, columns, is_masked=is_masked)
    n_others = len(stored.class_names) - len(kept)
    classes = np.concatenate([kept, len(test.class_names) + np.arange(n_others)])
    best = classes[best]
    is_right = best == test.labels
    details: dict[str, Json] = {
        "head": {
            "kind": stored.kind,
            "key": stored.key,
            "classes": len(stored.class_names),
            "is_unit_norm": stored.is_unit_norm,
            "scale": stored.scale,
        },
        "mask": options.mask,
        "classes_mapped": len(mapping),
        "dropped_unlabelled_test": len(inputs.test) - len(test),
        "predicted_outside_dataset": int((best >= len(test.class_names)).sum()),
        "classes_without_train_rows": len(test.class_names) - len(kept),
        "rows_of_classes_without_train_rows": int((~np.isin(test.labels, kept)).sum()),
    }
    if stored.origin.get("task") == "ridge":  # scores of a regression are no logits
        best_inside = classes[logits.argmax(axis=1)]
        score = logits.max(axis=1)
        outcome = decisions(test, best_inside, score, details=details, seed=inputs.seed)
    else:
        found = Distribution.of_logits(classes[: logits.shape[1]], logits)
        outcome = classification(test, found, details=details, seed=inputs.seed)
    interval = wilson_interval(int(is_right.sum()), len(test))
    return dataclasses.replace(
        outcome,
        metrics={**outcome.metrics, "top1_unmasked": float(is_right.mean())},
        predictions={**outcome.predictions, "is_right_unmasked": is_right},
        intervals={**outcome.intervals, "top1_unmasked": interval},
    )


def _fitted_classes(
    names: Sequence[str], head: StoredHead, mapping: Mapping[str, str]
) -> NDArray[np.int64]:
    """Return which classes the head may know: all but those it was fitted for without a row."""
    absent = set(head.origin.get("absent", ())) - mapping.keys()
    kept = [c for c, name in enumerate(names) if name not in absent]
    return np.array(kept or range(len(names)), dtype=np.int64)
