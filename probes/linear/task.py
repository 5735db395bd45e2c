"""The task `linear`: from feature tables to an Outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from featcache.probes.linear.options import LinearOptions
from featcache.probes.linear.probe import fit_linear
from featcache.probes.metrics import mean_per_class, top1
from featcache.probes.tables import labelled_pair
from featcache.result_store import Outcome
from featcache.statistics import wilson_interval

if TYPE_CHECKING:
    from featcache.probes.protocol import Protocol
    from featcache.probes.tasks import TaskInputs


def run_linear(protocol: Protocol, inputs: TaskInputs) -> Outcome:
    """Fit the linear probe on the labelled train rows, and score the labelled test rows.

    Raises:
        ShapeError: If a side has no labelled rows.
    """
    options = cast(LinearOptions, protocol.parsed_options())
    train, test, details = labelled_pair(inputs)
    rng = np.random.default_rng(inputs.seed)
    head = fit_linear(train.features, train.labels, options, rng, device=inputs.device)
    shares = head.probabilities(test.features, len(test.class_names))
    predictions = shares.argmax(axis=1)
    right = int((predictions == test.labels).sum())
    return Outcome(
        metrics={
            "top1": top1(test.labels, predictions),
            "mean_per_class": mean_per_class(test.labels, predictions),
        },
        primary="top1",
        n=len(test),
        predictions={
            "id": test.ids,
            "label": test.labels,
            "prediction": predictions,
            "confidence": shares.max(axis=1),
        },
        intervals={"top1": wilson_interval(right, len(test))},
        details={**details, **head.details},
    )
