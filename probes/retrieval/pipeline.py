"""What is done to features before they are ranked: whiten, augment, expand, re-rank."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featcache.digest import Json
from featcache.probes.arrays import Features, row_blocks, unit_rows
from featcache.probes.retrieval.expansion import expand
from featcache.probes.retrieval.options import RetrievalOptions
from featcache.probes.retrieval.reranking import reranked_scorer
from featcache.probes.retrieval.row_lists import RowLists, own_row
from featcache.probes.retrieval.search import Scorer, cosine_scorer
from featcache.probes.retrieval.whitening import fit_whitening
from featcache.probes.tables import by_id, present

if TYPE_CHECKING:
    from featcache.store.table import Table


def build_scorer(
    queries: Table,
    gallery: Table,
    train: Table | None,
    hidden: tuple[RowLists, ...],
    options: RetrievalOptions,
    device: str,
) -> tuple[Scorer, dict[str, Json]]:
    """Apply the steps that the options ask for, in this order, and return a scorer.

    Whitening, scaling to unit norm; each gallery row plus its neighbours; each query plus its
    neighbours in that gallery; k-reciprocal re-ranking. Without any it is the cosine.

    Args:
        queries: Q rows.
        gallery: G rows in the order of their ids; with `gallery: test` the queries are among
            them.
        train: Rows that a whitening may be fitted on.
        hidden: Gallery rows that each query must not find, nor be moved by.
        options: Which steps.
        device: Torch device of the products.

    Returns:
        The scorer, and what it did as plain JSON.

    Raises:
        ShapeError: If a whitening needs train rows and there are none, or if a row is unusable.
        OptionError: If a step's option does not fit the data.
    """
    details: dict[str, Json] = {}
    rows: tuple[Features, Features] = (queries.features, gallery.features)
    if options.whitening.fit != "none":
        rows, details["whitening"] = _whiten(rows, train, options)
    scorer = cosine_scorer(rows[0], rows[1], device)
    if (step := options.database_augmentation).neighbours:
        itself = cosine_scorer(rows[1], rows[1], device)
        own = own_row(gallery.ids, gallery.ids)
        moved = expand(itself, (own,), neighbours=step.neighbours, alpha=step.alpha)
        scorer = cosine_scorer(rows[0], moved, device)
        rows = (rows[0], moved)
    if (step := options.query_expansion).neighbours:
        asked = expand(scorer, hidden, neighbours=step.neighbours, alpha=step.alpha)
        scorer = cosine_scorer(asked, rows[1], device)
        rows = (asked, rows[1])
    if not options.reranking.k1:
        return scorer, details
    return _rerank(rows, queries.ids, gallery.ids, options, device), details


def _whiten(
    rows: tuple[Features, Features], train: Table | None, options: RetrievalOptions
) -> tuple[tuple[Features, Features], dict[str, Json]]:
    chosen = options.whitening
    fitted = rows[1]
    if chosen.fit == "train":
        fitted = by_id(present(train)).features
    whitening = fit_whitening(
        fitted,
        power=chosen.power,
        dimension=chosen.dimension,
        shrinkage=chosen.shrinkage,
        floor=chosen.floor,
    )
    white = (whitening.apply("queries", rows[0]), whitening.apply("gallery", rows[1]))
    return white, {"rows": len(fitted), "dimension": whitening.projection.shape[1]}


def _rerank(
    rows: tuple[Features, Features],
    query_ids: NDArray[np.str_],
    gallery_ids: NDArray[np.str_],
    options: RetrievalOptions,
    device: str,
) -> Scorer:
    import torch

    searched = np.arange(len(gallery_ids))
    if options.gallery == "test":
        every, asked = rows[1], np.searchsorted(gallery_ids, query_ids)
    else:
        every, asked = np.concatenate(rows), np.arange(len(query_ids))
        searched = searched + len(query_ids)
    unit = torch.empty(every.shape, dtype=torch.float64, device=device)
    for block in row_blocks(len(every), 16 * every.shape[1]):
        unit[block] = torch.from_numpy(unit_rows("features", every[block])).to(device)
    chosen = options.reranking
    return reranked_scorer(unit, asked, searched, k1=chosen.k1, k2=chosen.k2, weight=chosen.weight)
