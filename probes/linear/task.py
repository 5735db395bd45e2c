"""The tasks `linear` and `multilabel`: from feature tables to an Outcome."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ShapeError
from featcache.probes.classification import Distribution, classification
from featcache.probes.linear.multilabel import fit_multilabel, targets_of
from featcache.probes.linear.options import LinearOptions, MultilabelOptions
from featcache.probes.linear.probe import fit_and_hold_out
from featcache.probes.metrics import aurocs, average_precisions
from featcache.probes.tables import labelled, labelled_pair, of_classes, present
from featcache.result_store import Outcome
from featcache.statistics import bootstrap_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from featcache.probes.protocol import Protocol
    from featcache.probes.tasks import TaskInputs


def run_linear(protocol: Protocol, inputs: TaskInputs) -> Outcome:
    """Fit the linear probe on the labelled train rows, and score the labelled test rows.

    Raises:
        ShapeError: If a side has no labelled rows.
        OptionError: If a class of the subset does not exist.
    """
    options = cast(LinearOptions, protocol.parsed_options())
    inputs = of_classes(inputs, options.classes)
    train, test, details = labelled_pair(inputs)
    validation = None
    if inputs.validation is not None:
        given = labelled(inputs.validation, "validation", in_id_order=True)
        validation = given.features, given.labels
    fit = fit_and_hold_out(
        train.features,
        train.labels,
        options,
        np.random.default_rng(inputs.seed),
        validation=validation,
        device=inputs.device,
    )
    logits = fit.head.logits(test.features)
    outcome = classification(
        test,
        Distribution.of_logits(fit.head.classes, logits),
        details={**details, **fit.head.details},
        seed=inputs.seed,
        held_out=(fit.held_logits, fit.held_labels, logits),
    )
    return replace(outcome, head=fit.head.kept(train.class_names))


def run_multilabel(protocol: Protocol, inputs: TaskInputs) -> Outcome:
    """Fit one classifier per class on rows of several classes, and score each class's ranking.

    The primary metric is the mean over classes of the average precision. Classes without a test
    row are left out, and counted. `auroc` is the mean over those that also have a test row outside.

    Raises:
        ShapeError: If a side has no labelled rows, or no class has test rows in it and outside.
    """
    options = cast(MultilabelOptions, protocol.parsed_options())
    train = labelled(present(inputs.train), "train", in_id_order=True)
    test = labelled(inputs.test, "test", in_id_order=False)
    names, members = targets_of(train, options.separator)
    rng = np.random.default_rng(inputs.seed)
    head = fit_multilabel(train.features, members, train.labels, options, rng, device=inputs.device)
    _, truth = targets_of(test, options.separator, names)
    scores = head.logits(test.features)
    truth = truth[:, head.classes]
    by_class = average_precisions(truth, scores)
    kept = np.flatnonzero(truth.any(axis=0))
    if not len(kept):
        raise ShapeError(
            f"A class must have test rows in it; none of {len(names)} has. Check that train and "
            "test name their classes alike."
        )
    by_id = np.argsort(test.ids, kind="stable")

    def mean_ap(rows: np.ndarray) -> float:
        found = average_precisions(truth[by_id[rows]], scores[by_id[rows]])
        return float(np.nanmean(found))

    return Outcome(
        metrics={
            "mean_average_precision": float(by_class[kept].mean()),
            **{f"average_precision.{names[head.classes[c]]}": float(by_class[c]) for c in kept},
            **_areas([names[c] for c in head.classes], truth, scores),
        },
        primary="mean_average_precision",
        n=len(test),
        predictions={
            "id": test.ids,
            **{f"score.{names[head.classes[c]]}": scores[:, c] for c in kept},
            **{f"truth.{names[head.classes[c]]}": truth[:, c] for c in kept},
        },
        intervals={"mean_average_precision": bootstrap_interval(mean_ap, len(test), rng)},
        details={
            **head.details,
            "classes": len(names),
            "classes_without_train_rows_of_both_kinds": len(names) - len(head.classes),
            "classes_without_test_rows": int(len(head.classes) - len(kept)),
        },
    )


def _areas(
    names: Sequence[str], truth: NDArray[np.bool_], scores: NDArray[np.floating]
) -> dict[str, float]:
    """Return `auroc`, the mean, and each class's; nothing if no class has rows of both kinds."""
    found = dict(zip(names, aurocs(truth, scores).tolist(), strict=True))
    found = {name: area for name, area in found.items() if not np.isnan(area)}
    mean = {"auroc": float(np.mean(list(found.values())))} if found else {}
    return mean | {f"auroc.{name}": area for name, area in found.items()}
