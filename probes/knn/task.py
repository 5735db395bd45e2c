"""The task `knn`: from feature tables to an Outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from featcache.digest import Json
from featcache.errors import ShapeError
from featcache.probes.knn.approximate import PQ_WARNING, ApproximateSearch, recall_vs_flat
from featcache.probes.knn.classify import KnnResults, vote_of_neighbours
from featcache.probes.knn.neighbours import ExactSearch, own_rows
from featcache.probes.knn.options import KnnOptions
from featcache.probes.metrics import mean_per_class, top1
from featcache.probes.tables import labelled_pair
from featcache.result_store import Outcome
from featcache.statistics import Interval, wilson_interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featcache.probes.protocol import Protocol
    from featcache.probes.tasks import TaskInputs
    from featcache.store.table import Table


def run_knn(protocol: Protocol, inputs: TaskInputs) -> Outcome:
    """Classify the labelled test rows by their nearest labelled train rows.

    `top1` and `mean_per_class` are those of `primary_k` and `primary_temperature`, which are
    fixed beforehand. `top1@k` and `mean_per_class@k` are there for each k, and `top1@k,T=t` for
    each further temperature. An approximate index adds `recall_vs_flat@k`.

    Raises:
        OptionError: If an approximate index cannot be built for these features.
        ShapeError: If a side has no labelled rows, or if the exclusions leave no train row.
    """
    options = cast(KnnOptions, protocol.parsed_options())
    train, test, details = labelled_pair(inputs)
    train, n_excluded = _without(train, options.exclude_ids.splitlines())
    own = own_rows(train.ids, test.ids) if options.exclude_self == "id" else None
    search = _search(train, options, inputs)
    primary = (options.primary_k, options.primary_temperature)
    results = vote_of_neighbours(
        search,
        train.labels,
        test.features,
        k=options.k,
        temperature=options.temperature,
        primary=primary,
        vote=options.vote,  # type: ignore[arg-type]  # a name from YAML, checked by the options
        own_rows=own,
        n_classes=len(train.class_names),
    )
    metrics, intervals = _scores(results, test.labels, options)
    details = {
        **details,
        "primary_k": options.primary_k,
        "primary_temperature": options.primary_temperature,
        "k_clamped": {str(k): one.k for (k, _), one in results.by.items() if one.k != k},
        "excluded_train_rows": n_excluded,
        "queries_without_their_own_row": 0 if own is None else int((own >= 0).sum()),
    }
    if isinstance(search, ApproximateSearch):
        n_completed = search.n_completed
        rng = np.random.default_rng(inputs.seed)
        recalls = recall_vs_flat(search, test.features, options.k, rng, own)
        metrics |= {f"recall_vs_flat@{k}": value for k, value in recalls.items()}
        details["index"] = _index_details(options, recalls, n_completed)
        details["warnings"] = [PQ_WARNING] if options.index in ("pq", "ivfpq") else []
    else:
        details["search_notes"] = list(search.notes)
    chosen = results.by[primary]
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
        intervals=intervals,
        details=details,
    )


def _search(
    train: Table, options: KnnOptions, inputs: TaskInputs
) -> ExactSearch | ApproximateSearch:
    if options.index == "flat":
        return ExactSearch(
            train.features,
            metric=options.metric,  # type: ignore[arg-type]  # checked by the options
            normalize=options.normalize,  # type: ignore[arg-type]  # the same
            device=inputs.device,
        )
    return ApproximateSearch(
        train.features,
        options.index_options(),
        metric=options.metric,  # type: ignore[arg-type]  # the same
        normalize=options.normalize,  # type: ignore[arg-type]  # the same
        seed=inputs.seed,
    )


def _scores(
    results: KnnResults, labels: NDArray[np.int64], options: KnnOptions
) -> tuple[dict[str, float], dict[str, Interval]]:
    metrics: dict[str, float] = {}
    intervals: dict[str, Interval] = {}
    for (k, temperature), one in results.by.items():
        is_primary = temperature == options.primary_temperature
        suffix = f"@{k}" if is_primary else f"@{k},T={temperature:g}"
        score = top1(labels, one.predictions)
        interval = wilson_interval(round(score * len(labels)), len(labels))
        endings = (suffix, "") if is_primary and k == options.primary_k else (suffix,)
        for ending in endings:
            metrics[f"top1{ending}"], intervals[f"top1{ending}"] = score, interval
            metrics[f"mean_per_class{ending}"] = mean_per_class(labels, one.predictions)
    return metrics, intervals


def _without(train: Table, ids: list[str]) -> tuple[Table, int]:
    """Return the train rows whose id is not listed, and how many were."""
    keep: NDArray[np.bool_] = ~np.isin(train.ids, [one for one in ids if one])
    if not keep.any():
        raise ShapeError(
            f"`exclude_ids` must leave train rows; it lists all {len(train)}. Shorten the list."
        )
    return (train if keep.all() else train.take(np.flatnonzero(keep))), int((~keep).sum())


def _index_details(
    options: KnnOptions, recalls: dict[int, float], n_completed: int
) -> dict[str, Json]:
    found: dict[str, Json] = {
        "kind": options.index,
        "recall_vs_flat": {str(k): value for k, value in recalls.items()},
        "queries_searched_exactly": n_completed,
    }
    return found
