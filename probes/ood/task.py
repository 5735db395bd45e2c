"""The task `ood`: from feature tables to an Outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from featcache.digest import Json
from featcache.errors import OptionError
from featcache.probes.ood.detectors import Detectors, fit_detectors
from featcache.probes.ood.metrics import POSITIVE, detection_metrics
from featcache.probes.ood.options import OodOptions
from featcache.probes.ood.tuning import tune
from featcache.probes.ood.warnings import assumptions, contaminated
from featcache.probes.tables import labelled, present
from featcache.result_store import Outcome
from featcache.statistics import delong_interval

if TYPE_CHECKING:
    from featcache.probes.protocol import Protocol
    from featcache.probes.tasks import TaskInputs

Scores = Mapping[str, Mapping[str, NDArray[np.float64]]]
"""Table to detector to a score per row."""


def run_ood(protocol: Protocol, inputs: TaskInputs) -> Outcome:
    """Fit the detectors on the labelled train rows; score test against each OOD set.

    `auroc` and the like are those of the primary detector, averaged over the OOD sets; then
    `<detector>.<metric>` the averages, `<detector>.<group>.<metric>` those of a group, and
    `<detector>.<set>.<metric>` the single values. With `fs.` before it the shifted ID sets count as
    ID; with `tuned.` hyper-parameters were chosen on OOD rows.

    Raises:
        ShapeError: If train has no labelled rows, or if a set is empty.
        OptionError: If an option names a dataset that was not given.
    """
    options = cast(OodOptions, protocol.parsed_options())
    _check_sets(options, list(inputs.ood))
    train = labelled(present(inputs.train), "train", in_id_order=True)
    rng = np.random.default_rng(inputs.seed)
    fitted = fit_detectors(
        train.features,
        train.labels,
        options,
        rng,
        given=inputs.head,
        class_names=train.class_names,
        earlier=inputs.earlier,
        device=inputs.device,
    )
    tables = {"test": inputs.test, **dict(sorted(inputs.ood.items()))}
    scores: Scores = {name: fitted.scores(table.features) for name, table in tables.items()}
    others = [name for name in tables if name not in {"test", *options.full_spectrum}]
    others = [name for name in others if name not in options.tuning_sets]
    metrics, intervals = _detection(scores, options, others)
    tuned, chosen = _tuned(fitted, inputs, options, others)
    sizes = [len(table) for table in tables.values()]
    own = fitted.own if fitted.own is not None and fitted.own.is_new else None
    known = contaminated(inputs.pretraining, options.contaminated, others)
    return Outcome(
        metrics={**metrics, **_full_spectrum(scores, options, others), **tuned},
        primary="auroc",
        n=sum(sizes),
        predictions={
            "id": np.concatenate([table.ids for table in tables.values()]),
            "is_ood": np.repeat([name in others for name in tables], sizes),
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
            "contaminated": known,
            **assumptions(fitted, scores["test"], known),
            **chosen,
        },
        head=None if own is None else own.head.kept(train.class_names),
        fit=fitted.fit,
    )


def _check_sets(options: OodOptions, given: Sequence[str]) -> None:
    """Refuse tuning sets that are missing, or that leave nothing to test on."""
    missing = [name for name in options.tuning_sets if name not in given]
    left = [n for n in given if n not in {*options.tuning_sets, *options.full_spectrum}]
    if missing or not left:
        wanted = f"{', '.join(missing)} too" if missing else "another OOD dataset to test on"
        raise OptionError(
            f"The OOD datasets must hold {wanted}; got {', '.join(given)}. Add --ood-dataset."
        )


def _detection(
    scores: Scores, options: OodOptions, others: Sequence[str]
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Return the metrics and intervals of each detector, `test` against each other table."""
    metrics: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    for detector in options.detectors:
        inside = scores["test"][detector]
        outside = {name: scores[name][detector] for name in others}
        found = _averages(inside, outside, options)
        interval = delong_interval(inside, list(outside.values()))
        if detector == options.primary:
            means = {name: value for name, value in found.items() if name in POSITIVE}
            metrics, intervals = {**means, **metrics}, {"auroc": interval, **intervals}
        metrics |= {f"{detector}.{name}": value for name, value in found.items()}
        intervals[f"{detector}.auroc"] = interval
    return metrics, intervals


def _averages(
    inside: NDArray[np.float64], outside: Mapping[str, NDArray[np.float64]], options: OodOptions
) -> dict[str, float]:
    """Return each metric, averaged over the sets, over each group, and of each set."""
    found = {name: detection_metrics(inside, values) for name, values in outside.items()}
    groups = {"": list(outside)}
    for name, members in options.groups.items():
        if kept := [one for one in outside if one in members]:
            groups[f"{name}."] = kept
    result = {
        f"{group}{metric}": float(np.mean([found[one][metric] for one in members]))
        for group, members in groups.items()
        for metric in POSITIVE
    }
    for name, values in found.items():
        result |= {f"{name}.{metric}": value for metric, value in values.items()}
    return result


def _full_spectrum(scores: Scores, options: OodOptions, others: Sequence[str]) -> dict[str, float]:
    """Return each detector's averages with the shifted ID sets on the ID side."""
    shifted = [name for name in options.full_spectrum if name in scores]
    if not shifted:
        return {}
    metrics: dict[str, float] = {}
    for detector in options.detectors:
        inside = np.concatenate([scores[name][detector] for name in ("test", *shifted)])
        outside = {name: scores[name][detector] for name in others}
        found = _averages(inside, outside, options)
        metrics |= {f"fs.{detector}.{name}": value for name, value in found.items()}
    return metrics


def _tuned(
    fitted: Detectors, inputs: TaskInputs, options: OodOptions, others: Sequence[str]
) -> tuple[dict[str, float], dict[str, Json]]:
    """Return the metrics with tuned hyper-parameters, and what was chosen."""
    if options.tune == "none":
        return {}, {}
    aside = [inputs.ood[name].features for name in options.tuning_sets]
    test, chosen = inputs.test, {}
    rng = np.random.default_rng([inputs.seed, 1])
    by_id = np.argsort(test.ids, kind="stable")
    validation = np.sort(rng.permutation(by_id)[: max(1, len(by_id) // 10)])
    rest = np.setdiff1d(by_id, validation)
    metrics: dict[str, float] = {}
    for detector in options.detectors:
        best, tried = tune(fitted, detector, options, test.features[validation], aside)
        chosen[detector] = {"chosen": best, "auroc": tried}
        if tried:
            from dataclasses import replace

            better = fitted.with_options(replace(options, **best), [detector])
            inside = better.scores(test.features[rest])[detector]
            outside = {n: better.scores(inputs.ood[n].features)[detector] for n in others}
            found = _averages(inside, outside, options)
            metrics |= {f"tuned.{detector}.{name}": value for name, value in found.items()}
    return metrics, {"tuning": chosen, "tuning_id_rows": len(validation)}
