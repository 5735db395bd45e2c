"""From feature tables to an Outcome: thin, one function per task; the methods are elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from featcache.digest import Json
from featcache.errors import ShapeError
from featcache.probes.knn import knn_classify
from featcache.probes.linear import fit_linear
from featcache.probes.metrics import POSITIVE, detection_metrics, mean_per_class, top1
from featcache.probes.neighbours import own_rows
from featcache.probes.ood import fit_detectors
from featcache.probes.options import KnnOptions, LinearOptions, OodOptions, RetrievalOptions
from featcache.probes.retrieval import rank_gallery
from featcache.result_store import Outcome
from featcache.statistics import bootstrap_mean_interval, delong_interval, wilson_interval

if TYPE_CHECKING:
    from featcache.probes.protocol import Protocol
    from featcache.probes.tasks import TaskInputs
    from featcache.store.table import Table


def run_linear(protocol: Protocol, inputs: TaskInputs) -> Outcome:
    """Fit the linear probe on the labelled train rows, and score the labelled test rows.

    Raises:
        ShapeError: If a side has no labelled rows.
    """
    options = cast(LinearOptions, protocol.parsed_options())
    train, test, details = _labelled_pair(inputs)
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


def run_knn(protocol: Protocol, inputs: TaskInputs) -> Outcome:
    """Classify the labelled test rows by their nearest labelled train rows.

    `top1` and `mean_per_class` are those of `primary_k`; `top1@k` is there for each k.

    Raises:
        ShapeError: If a side has no labelled rows.
    """
    options = cast(KnnOptions, protocol.parsed_options())
    train, test, details = _labelled_pair(inputs)
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


def run_retrieval(protocol: Protocol, inputs: TaskInputs) -> Outcome:
    """Rank the gallery for each labelled test row; in the test gallery it skips itself by id.

    Raises:
        ShapeError: If the gallery is `train` and there is none, or if no query has a relevant
            item.
    """
    options = cast(RetrievalOptions, protocol.parsed_options())
    test, is_own = inputs.test, options.gallery == "test"
    gallery = test if is_own else inputs.train
    if gallery is None:
        raise ShapeError("`gallery: train` needs train rows; got none. Extract a train split.")
    ranked = rank_gallery(
        test.features,
        test.labels,
        gallery.features,
        gallery.labels,
        query_ids=test.ids,
        gallery_ids=gallery.ids,
        k=options.k,
        exclude_own_id=is_own,
        device=inputs.device,
    )
    metrics, ids = ranked.means(), test.ids[ranked.queries]
    by_id, rng = np.argsort(ids), np.random.default_rng(inputs.seed)
    intervals = {
        name: bootstrap_mean_interval(values[by_id], rng)
        for name, values in (
            ("mean_average_precision", ranked.average_precision),
            ("r_precision", ranked.r_precision),
            ("mean_reciprocal_rank", ranked.reciprocal_rank),
        )
    }
    for k, hits in ranked.hits.items():
        intervals[f"hit_rate@{k}"] = wilson_interval(int((hits > 0).sum()), len(hits))
    n_unlabelled = int((test.labels < 0).sum())
    return Outcome(
        metrics=metrics,
        primary="mean_average_precision",
        n=len(ids),
        predictions={
            "id": ids,
            "label": test.labels[ranked.queries],
            "n_relevant": ranked.n_relevant,
            "average_precision": ranked.average_precision,
            "r_precision": ranked.r_precision,
            "reciprocal_rank": ranked.reciprocal_rank,
            "first_hit": ranked.first_hit,
        },
        intervals=intervals,
        details={
            "gallery": options.gallery,
            "gallery_rows": len(gallery),
            "dropped_unlabelled_queries": n_unlabelled,
            "dropped_queries_without_relevant": len(test) - n_unlabelled - len(ids),
        },
    )


def run_ood(protocol: Protocol, inputs: TaskInputs) -> Outcome:
    """Fit the detectors on the labelled train rows; score test against each OOD set.

    `auroc` and the like are those of the primary detector, averaged over the OOD sets; then
    `<detector>.<metric>` the averages and `<detector>.<set>.<metric>` the single values.

    Raises:
        ShapeError: If train has no labelled rows, or if a set is empty.
    """
    options = cast(OodOptions, protocol.parsed_options())
    train = _labelled(_present(inputs.train), "train", by_id=True)
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
            "dropped_unlabelled_train": len(_present(inputs.train)) - len(train),
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


def _labelled_pair(inputs: TaskInputs) -> tuple[Table, Table, dict[str, Json]]:
    """Return the labelled train rows by id, the labelled test rows as they come, and counts."""
    source = _present(inputs.train)
    train = _labelled(source, "train", by_id=True)
    test = _labelled(inputs.test, "test", by_id=False)
    is_new: NDArray[np.bool_] = ~np.isin(test.labels, train.labels)
    details: dict[str, Json] = {
        "dropped_unlabelled_train": len(source) - len(train),
        "dropped_unlabelled_test": len(inputs.test) - len(test),
        "test_classes_absent_from_train": len(np.unique(test.labels[is_new])),
        "test_rows_of_absent_classes": int(is_new.sum()),
    }
    return train, test, details


def _labelled(table: Table, name: str, *, by_id: bool) -> Table:
    rows = np.flatnonzero(table.labels >= 0)
    if not len(rows):
        raise ShapeError(
            f"`{name}` must have labelled rows; got {len(table)} rows and no label. "
            "Use a dataset with classes."
        )
    if by_id:
        rows = rows[np.argsort(table.ids[rows], kind="stable")]
    elif len(rows) == len(table):
        return table
    return table.take(rows)


def _present(table: Table | None) -> Table:
    if table is None:
        raise ShapeError("This task needs train rows; got none. Extract a train split.")
    return table
