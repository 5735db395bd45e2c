"""The task `ood`: from feature tables to an Outcome."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from featcache.probes.ood.detectors import fit_detectors
from featcache.probes.ood.metrics import POSITIVE, detection_metrics
from featcache.probes.ood.options import OodOptions
from featcache.probes.tables import labelled, present
from featcache.result_store import Outcome
from featcache.statistics import delong_interval

if TYPE_CHECKING:
    from featcache.probes.protocol import Protocol
    from featcache.probes.tasks import TaskInputs


def run_ood(protocol: Protocol, inputs: TaskInputs) -> Outcome:
    """Fit the detectors on the labelled train rows; score test against each OOD set.

    `auroc` and the like are those of the primary detector, averaged over the OOD sets; then
    `<detector>.<metric>` the averages and `<detector>.<set>.<metric>` the single values.

    Raises:
        ShapeError: If train has no labelled rows, or if a set is empty.
    """
    options = cast(OodOptions, protocol.parsed_options())
    train = labelled(present(inputs.train), "train", by_id=True)
    rng = np.random.default_rng(inputs.seed)
    fitted = fit_detectors(train.features, train.labels, options, rng, device=inputs.device)
    tables = {"test": inputs.test, **dict(sorted(inputs.ood.items()))}
    scores = {name: fitted.scores(table.features) for name, table in tables.items()}
    metrics, intervals = _detection(scores, options)
    sizes = [len(table) for table in tables.values()]
    return Outcome(
        metrics=metrics,
        primary="auroc",
        n=sum(sizes),
        predictions={
            "id": np.concatenate([table.ids for table in tables.values()]),
            "is_ood": np.arange(sum(sizes)) >= sizes[0],
            "dataset": np.repeat(list(tables), sizes),
            **{
                detector: np.concatenate([scores[name][detector] for name in tables])
                for detector in options.detectors
            },
        },
        intervals=intervals,
        details={
            **fitted.details,
            "positive": dict(POSITIVE),
            "primary_detector": options.primary,
            "rows": dict(zip(tables, sizes, strict=True)),
            "dropped_unlabelled_train": len(present(inputs.train)) - len(train),
        },
    )


def _detection(
    scores: Mapping[str, Mapping[str, NDArray[np.float64]]], options: OodOptions
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Return the metrics and intervals of each detector, `test` against each other table."""
    inside, others = scores["test"], [name for name in scores if name != "test"]
    metrics: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    for detector in options.detectors:
        found = {
            name: detection_metrics(inside[detector], scores[name][detector]) for name in others
        }
        means = {
            metric: float(np.mean([values[metric] for values in found.values()]))
            for metric in POSITIVE
        }
        interval = delong_interval(inside[detector], [scores[name][detector] for name in others])
        if detector == options.primary:
            metrics, intervals = {**means, **metrics}, {"auroc": interval, **intervals}
        metrics |= {f"{detector}.{metric}": value for metric, value in means.items()}
        intervals[f"{detector}.auroc"] = interval
        for name, values in found.items():
            metrics |= {f"{detector}.{name}.{metric}": value for metric, value in values.items()}
    return metrics, intervals
