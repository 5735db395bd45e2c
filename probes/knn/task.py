"""The task `knn`: from feature tables to an Outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from featcache.probes.knn.classify import knn_classify
from featcache.probes.knn.neighbours import own_rows
from featcache.probes.knn.options import KnnOptions
from featcache.probes.metrics import mean_per_class, top1
from featcache.probes.tables import labelled_pair
from featcache.result_store import Outcome
from featcache.statistics import wilson_interval

if TYPE_CHECKING:
    from featcache.probes.protocol import Protocol
    from featcache.probes.tasks import TaskInputs


def run_knn(protocol: Protocol, inputs: TaskInputs) -> Outcome:
    """Classify the labelled test rows by their nearest labelled train rows.

    `top1` and `mean_per_class` are those of `primary_k`; `top1@k` is there for each k.

    Raises:
        ShapeError: If a side has no labelled rows.
    """
    options = cast(KnnOptions, protocol.parsed_options())
    train, test, details = labelled_pair(inputs)
    results = knn_classify(
        train.features,
        train.labels,
        test.features,
        k=options.k,
        temperature=options.temperature,
        own_rows=own_rows(train.ids, test.ids) if options.leave_one_out else None,
        device=inputs.device,
    )
    chosen = results[options.primary_k]
    metrics = {f"top1@{k}": top1(test.labels, one.predictions) for k, one in results.items()}
    intervals = {
        name: wilson_interval(round(value * len(test)), len(test))
        for name, value in metrics.items()
    }
    name = f"top1@{options.primary_k}"
    metrics |= {
        "top1": metrics[name],
        "mean_per_class": mean_per_class(test.labels, chosen.predictions),
    }
    clamped = {str(k): one.k for k, one in results.items() if one.k != k}
    return Outcome(
        metrics=metrics,
        primary="top1",
        n=len(test),
        predictions={
            "id": test.ids,
            "label": test.labels,
            "prediction": chosen.predictions,
            "confidence": chosen.confidences,
        },
        intervals={**intervals, "top1": intervals[name]},
        details={**details, "primary_k": options.primary_k, "k_clamped": clamped},
    )
