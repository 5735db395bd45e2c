"""The task `copydetection`: from feature tables to an Outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from featcache.digest import Json
from featcache.errors import ShapeError
from featcache.probes.arrays import Features
from featcache.probes.retrieval.copies import (
    Copies,
    NormalisedScorer,
    background_offsets,
    copy_metrics,
    find_copies,
    micro_ap_resamples,
)
from featcache.probes.retrieval.copy_options import CopyOptions
from featcache.probes.retrieval.ground_truth import read_id_lists
from featcache.probes.retrieval.ranking import Truth
from featcache.probes.retrieval.row_lists import RowLists, rows_of_class, rows_of_ids
from featcache.probes.retrieval.search import Scorer, cosine_scorer
from featcache.probes.retrieval.task import hidden_rows
from featcache.probes.retrieval.whitening import fit_whitening
from featcache.probes.tables import by_id, present
from featcache.result_store import Outcome

if TYPE_CHECKING:
    from featcache.probes.protocol import Protocol
    from featcache.probes.tasks import TaskInputs
    from featcache.store.table import Table

_RESAMPLES = 1000  # as `bootstrap_mean_interval`


def run_copydetection(protocol: Protocol, inputs: TaskInputs) -> Outcome:
    """List the test rows' most similar train rows in one ranking over all queries.

    The interval resamples queries. Where a whitening saw the references every name begins with
    `transductive.`.

    Raises:
        ShapeError: If there are no references or no background, or if no query has a match.
        OptionError: If a file cannot be read.
    """
    options = cast(CopyOptions, protocol.parsed_options())
    queries, references = by_id(inputs.test), by_id(present(inputs.train))
    truth, details = _truth(queries, references, options)
    scorer, steps = _scorer(queries, references, options, inputs)
    copies = find_copies(scorer, truth, n_rows=len(references), most=options.candidates)
    drawn = list(micro_ap_resamples(copies, np.random.default_rng(inputs.seed), _RESAMPLES))
    metrics = copy_metrics(copies)
    low, high = np.percentile(drawn or [metrics["micro_ap"]], [2.5, 97.5])
    prefix = "transductive." if options.whitening.fit == "gallery" else ""
    return Outcome(
        metrics={prefix + name: value for name, value in metrics.items()},
        primary=f"{prefix}micro_ap",
        n=len(queries),
        predictions=_predictions(copies, truth, queries),
        intervals={f"{prefix}micro_ap": (float(low), float(high))},
        details={
            "references": len(references),
            "true_matches": int(copies.n_matches.sum()),
            "queries_without_match": int((copies.n_matches == 0).sum()),
            "listed_pairs": len(copies.pairs.query),
            **details,
            **steps,
        },
    )


def _truth(
    queries: Table, references: Table, options: CopyOptions
) -> tuple[Truth, dict[str, Json]]:
    details: dict[str, Json] = {}
    hidden: tuple[RowLists, ...] = ()
    if options.exclude:
        near, details["exclude_sha256"] = hidden_rows(options.exclude, queries.ids, references.ids)
        hidden = (near,)
    if not options.ground_truth:
        relevant = rows_of_class(queries.labels, references.labels)
        return Truth(relevant=relevant, hidden=hidden), details
    lists, details["ground_truth_sha256"] = read_id_lists(options.ground_truth)
    named = [lists.get(str(name), ()) for name in queries.ids]
    relevant = rows_of_ids(named, references.ids)
    absent = np.array([len(set(names)) for names in named], np.int64) - relevant.sizes
    details["matches_absent_from_references"] = int(absent.sum())
    details["ground_truth_queries_without_features"] = len(set(lists) - set(map(str, queries.ids)))
    return Truth(relevant=relevant, hidden=hidden, n_absent=absent), details


def _scorer(
    queries: Table, references: Table, options: CopyOptions, inputs: TaskInputs
) -> tuple[Scorer, dict[str, Json]]:
    """Whiten and normalise as the options ask."""
    details: dict[str, Json] = {}
    background = _background(inputs) if options.background == "other" else None
    asked, searched = queries.features, references.features
    chosen = options.whitening
    if chosen.fit != "none":
        fitted = searched if chosen.fit == "gallery" or background is None else background
        whitening = fit_whitening(
            fitted,
            power=chosen.power,
            dimension=chosen.dimension,
            shrinkage=chosen.shrinkage,
            floor=chosen.floor,
        )
        asked = whitening.apply("queries", asked)
        searched = whitening.apply("references", searched)
        details["whitening"] = {
            "rows": len(fitted),
            "dimension": whitening.projection.shape[1],
        }
        if background is not None:
            background = whitening.apply("background", background)
    scorer = cosine_scorer(asked, searched, inputs.device)
    if background is None or not options.normalisation.neighbours:
        return scorer, details
    details["background_rows"] = len(background)
    offsets = background_offsets(
        cosine_scorer(asked, background, inputs.device),
        neighbours=options.normalisation.neighbours,
        beta=options.normalisation.beta,
    )
    return NormalisedScorer(scorer=scorer, offsets=offsets), details


def _background(inputs: TaskInputs) -> Features:
    """Return the rows of the other datasets, by the name of the dataset and the id."""
    if not inputs.ood:
        raise ShapeError(
            "`background: other` needs rows of another dataset; got none. Pass one with images "
            "that are no copies."
        )
    return np.concatenate([by_id(table).features for _, table in sorted(inputs.ood.items())])


def _predictions(copies: Copies, truth: Truth, queries: Table) -> dict[str, NDArray[np.generic]]:
    """Return per query its true matches, its best pair and the rank of its best true match."""
    is_right = np.zeros(len(queries), np.bool_)
    query, row = truth.relevant.flat(slice(0, len(queries)))
    is_right[query[row == copies.best_row[query]]] = True
    rank = np.full(len(queries), np.iinfo(np.int64).max)
    is_listed = copies.match_rank > 0
    np.minimum.at(rank, copies.match_query[is_listed], copies.match_rank[is_listed])
    return {
        "id": queries.ids,
        "n_matches": copies.n_matches,
        "best_score": copies.best_level / 2.0**30,
        "best_is_match": is_right,
        "match_rank": np.where(rank == np.iinfo(np.int64).max, 0, rank),
    }
