"""The task `retrieval`: from feature tables to an Outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from featcache.digest import Json
from featcache.errors import OptionError
from featcache.probes.retrieval.ground_truth import SETTINGS, read_ground_truth, read_id_lists
from featcache.probes.retrieval.options import RetrievalOptions
from featcache.probes.retrieval.pipeline import build_scorer
from featcache.probes.retrieval.ranking import Ranked, Truth, score_rankings
from featcache.probes.retrieval.row_lists import RowLists, own_row, rows_of_class, rows_of_ids
from featcache.probes.tables import by_id, present
from featcache.result_store import Outcome
from featcache.statistics import Interval, bootstrap_mean_interval, wilson_interval

if TYPE_CHECKING:
    from featcache.probes.protocol import Protocol
    from featcache.probes.tasks import TaskInputs
    from featcache.store.table import Table

_INTERVALS = {
    "mean_average_precision": "average_precision",
    "map@r": "map@r",
    "r_precision": "r_precision",
    "mean_reciprocal_rank": "reciprocal_rank",
}
_MACRO = ("mean_average_precision", "map@r", "r_precision", "mean_reciprocal_rank")
_PREFIX = "transductive."


def run_retrieval(protocol: Protocol, inputs: TaskInputs) -> Outcome:
    """Rank the gallery for each test row that has something relevant to find.

    Relevant is what has the same class or what a ground truth file lists. In the test gallery a
    row skips itself by id. With a file, metrics of the primary setting have plain names and
    those of all settings are `<setting>.<metric>`; with classes `macro.<metric>` is the mean of
    class means. Where a step was transductive every name begins with `transductive.`.

    Raises:
        ShapeError: If the gallery is `train` and there is none, or if no query has a relevant
            item.
        OptionError: If a file cannot be read.
    """
    options = cast(RetrievalOptions, protocol.parsed_options())
    test = gallery = by_id(inputs.test)
    if options.gallery == "train":
        gallery = by_id(present(inputs.train))
    queries, truths, details = _questions(test, gallery, options)
    primary = truths["primary"]
    scorer, steps = build_scorer(
        queries, gallery, inputs.train, primary.hidden, options, inputs.device
    )
    metrics: dict[str, float] = {}
    for name, truth in truths.items():
        found = score_rankings(
            scorer,
            truth,
            n_rows=len(gallery),
            k=options.k,
            ties=options.ties,
            convention=options.convention,
        )
        if name == "primary":
            every = found
        elif found.n_relevant.any():
            means = _means(found, _counted(found, options), options)
            metrics |= {f"{name}.{metric}": value for metric, value in means.items()}
    ranked = _counted(every, options)
    metrics = _means(every, ranked, options) | metrics | _groups(ranked, queries, options)
    prefix = _PREFIX if options.transductive_steps() else ""
    intervals = _intervals(every, ranked, options, np.random.default_rng(inputs.seed))
    return Outcome(
        metrics={prefix + name: value for name, value in metrics.items()},
        primary=f"{prefix}mean_average_precision",
        n=len(ranked.queries),
        predictions=_predictions(ranked, queries),
        intervals={prefix + name: interval for name, interval in intervals.items()},
        details={
            "gallery": options.gallery,
            "gallery_rows": len(gallery),
            "transductive_steps": list(options.transductive_steps()),
            "dropped_queries_without_relevant": len(queries) - len(ranked.queries),
            **details,
            **steps,
        },
    )


def hidden_rows(
    path: str, query_ids: NDArray[np.str_], gallery_ids: NDArray[np.str_]
) -> tuple[RowLists, str]:
    """Return the near duplicates that a file lists for each query, and the file's SHA-256."""
    lists, digest = read_id_lists(path)
    return rows_of_ids([lists.get(str(name), ()) for name in query_ids], gallery_ids), digest


def _questions(
    test: Table, gallery: Table, options: RetrievalOptions
) -> tuple[Table, dict[str, Truth], dict[str, Json]]:
    """Return the queries, what is relevant to them in each setting, and counts."""
    details: dict[str, Json] = {}
    given = read_ground_truth(options.ground_truth) if options.ground_truth else None
    if given is None:
        queries = test.take(test.labels >= 0) if (test.labels < 0).any() else test
        details["dropped_unlabelled_queries"] = len(test) - len(queries)
    else:
        queries = test.take(np.isin(test.ids, list(given.lists)))
        details["dropped_rows_without_ground_truth"] = len(test) - len(queries)
        details["ground_truth_sha256"] = given.sha256
        details["queries_without_features"] = len(given.lists) - len(queries)
        if not len(queries):
            raise OptionError(
                f"`ground_truth` must name test rows; got {options.ground_truth!r}, none of "
                f"whose {len(given.lists)} queries is one. Use the ids of the dataset."
            )
    hidden: tuple[RowLists, ...] = ()
    if options.gallery == "test" and options.exclude_self:
        hidden = (own_row(queries.ids, gallery.ids),)
    if options.exclude:
        near, digest = hidden_rows(options.exclude, queries.ids, gallery.ids)
        details["exclude_sha256"] = digest
        details["excluded_pairs"] = int(near.sizes.sum())
        hidden = (*hidden, near)
    if given is None:
        relevant = rows_of_class(queries.labels, gallery.labels)
        return queries, {"primary": Truth(relevant=relevant, hidden=hidden)}, details
    truths = {name: given.truth(name, queries.ids, gallery.ids, hidden) for name in SETTINGS}
    primary = truths[options.setting]
    if primary.n_absent is not None:
        details["relevant_absent_from_gallery"] = int(primary.n_absent.sum())
    return queries, {"primary": primary, **truths}, details


def _counted(every: Ranked, options: RetrievalOptions) -> Ranked:
    """Return the queries that means are taken over."""
    kept = every.with_relevant()
    return every if options.without_relevant == "zero" else kept


def _means(every: Ranked, counted: Ranked, options: RetrievalOptions) -> dict[str, float]:
    """Return the means; BoB divides the sum of reciprocal ranks by all queries."""
    means = counted.means()
    if options.convention == "bob":
        means["mean_reciprocal_rank"] = every.means()["mean_reciprocal_rank"]
    return means


def _groups(ranked: Ranked, queries: Table, options: RetrievalOptions) -> dict[str, float]:
    """Return the means by class, and those of each domain."""
    found: dict[str, float] = {}
    if not options.ground_truth:
        means = ranked.class_means(queries.labels[ranked.queries])
        found |= {f"macro.{name}": means[name] for name in _MACRO}
    names = list(map(str, queries.ids[ranked.queries]))
    if options.domains and all("/" in name for name in names):
        domains = np.array([name.partition("/")[0] for name in names])
        for domain in np.unique(domains):
            value = ranked.columns["average_precision"][domains == domain].mean()
            found[f"domain.{domain}.mean_average_precision"] = float(value)
    return found


def _intervals(
    every: Ranked, ranked: Ranked, options: RetrievalOptions, rng: np.random.Generator
) -> dict[str, Interval]:
    intervals = {}
    for name, column in _INTERVALS.items():
        over_all = options.convention == "bob" and column == "reciprocal_rank"
        values = (every if over_all else ranked).columns[column]
        intervals[name] = bootstrap_mean_interval(values, rng)
    for k in options.k:
        if (name := f"hit_rate@{k}") in ranked.columns:
            hits = ranked.columns[name]
            intervals[name] = wilson_interval(int(hits.sum()), len(hits))
    return intervals


def _predictions(ranked: Ranked, queries: Table) -> dict[str, NDArray[np.generic]]:
    columns: dict[str, NDArray[np.generic]] = {
        "id": queries.ids[ranked.queries],
        "label": queries.labels[ranked.queries],
        "n_relevant": ranked.n_relevant,
    }
    columns |= {name: ranked.columns[name] for name in _INTERVALS.values()}
    if "first_hit" in ranked.columns:
        columns["first_hit"] = ranked.columns["first_hit"].astype(np.int64)
    return columns
