"""The task `retrieval`: from feature tables to an Outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from featcache.errors import ShapeError
from featcache.probes.retrieval.options import RetrievalOptions
from featcache.probes.retrieval.ranking import rank_gallery
from featcache.result_store import Outcome
from featcache.statistics import bootstrap_mean_interval, wilson_interval

if TYPE_CHECKING:
    from featcache.probes.protocol import Protocol
    from featcache.probes.tasks import TaskInputs


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
