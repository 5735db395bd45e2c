"""From right and wrong answers of several draws to an Outcome."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featcache.digest import Json
from featcache.probes.metrics import mean_per_class
from featcache.result_store import Outcome
from featcache.statistics import hierarchical_interval, mean_interval

if TYPE_CHECKING:
    from featcache.probes.fewshot.draws import Draw
    from featcache.store.table import Table


def average_draws(
    test: Table,
    predictions: Mapping[int, NDArray[np.int64]],
    draws: list[Draw],
    *,
    primary: int,
    details: Mapping[str, Json],
    seed: int,
    metrics: Mapping[str, float] | None = None,
) -> Outcome:
    """Score the predictions of every draw and number of shots.

    `top1` and `mean_per_class` are those of `primary` shots, averaged over draws; `top1@n` is there
    for each n. The interval of `top1` draws anew both the shots (among the draws made) and the
    test rows; that of `top1@n` is Student's over draws alone, left out where there is one draw.

    Args:
        test: M labelled rows.
        predictions: For each number of shots, shape (draws, M).
        draws: What the shots were.
        primary: Number of shots of the primary metric.
        details: How it came about.
        seed: Of the interval.
        metrics: Others.
    """
    rights = {n: found == test.labels for n, found in predictions.items()}
    scores = {n: right.mean(axis=1) for n, right in rights.items()}
    by_id = np.argsort(test.ids, kind="stable")
    classes = [mean_per_class(test.labels, each) for each in predictions[primary]]
    interval = hierarchical_interval(rights[primary][:, by_id], np.random.default_rng(seed))
    return Outcome(
        metrics={
            "top1": float(scores[primary].mean()),
            "mean_per_class": float(np.mean(classes)),
            **{f"top1@{n}": float(each.mean()) for n, each in scores.items()},
            **(metrics or {}),
        },
        primary="top1",
        n=len(test),
        predictions={
            "id": test.ids,
            "label": test.labels,
            "share_right": rights[primary].mean(axis=0),
        },
        intervals={
            "top1": interval,
            **{f"top1@{n}": mean_interval(each) for n, each in scores.items() if len(each) > 1},
        },
        details={
            **details,
            "draws": len(draws),
            "top1_of_each_draw": {str(n): each.tolist() for n, each in scores.items()},
            "shots_digest": {str(n): [one.digests[n] for one in draws] for n in predictions},
            "rows_per_draw": {str(n): len(draws[0].rows[n]) for n in predictions},
        },
    )
