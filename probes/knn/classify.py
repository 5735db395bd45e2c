"""Nearest-neighbour classification: one search, votes for every k and temperature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from featcache.errors import OptionError, ShapeError
from featcache.probes.arrays import Features, check_labels, row_blocks
from featcache.probes.knn.flat import BANK_BYTES
from featcache.probes.knn.neighbours import ExactSearch, no_rows
from featcache.probes.knn.space import Metric, Normalize
from featcache.probes.knn.votes import Vote, check_vote, class_votes, vote_weights


class Search(Protocol):
    """A bank that finds nearest rows."""

    n_rows: int
    metric: Metric

    def nearest(
        self, queries: Features, k: int, own_rows: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return scores and rows of the k nearest, shape (M, k), the nearest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnnResult:
    """Predictions of one k and one temperature."""

    k: int
    """Neighbours that voted: the k asked for, or all rows where there are fewer."""
    temperature: float
    predictions: NDArray[np.int64]
    """Shape (M,)."""
    confidences: NDArray[np.float32]
    """Shape (M,), the predicted class's share of the vote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnnResults:
    """Predictions of each k and temperature asked for, and all shares of one of them."""

    by: dict[tuple[int, float], KnnResult]
    """(k asked for, temperature) to its result."""
    shares: NDArray[np.float32]
    """Shape (M, C), of the primary k and temperature; rows sum to 1, or to less for
    `softmax_topmax`."""


def knn_classify(
    train: Features,
    labels: NDArray[np.int64],
    queries: Features,
    *,
    k: Sequence[int],
    temperature: float = 0.07,
    vote: Vote = "exp_sim",
    metric: Metric = "cosine",
    normalize: Normalize = "l2",
    own_rows: NDArray[np.int64] | None = None,
    device: str = "cpu",
    bank_bytes: int = BANK_BYTES,
) -> dict[int, KnnResult]:
    """Classify each query by an exact search of the training rows and a vote at one temperature.

    Args:
        train: Training features, shape (N, D), any float dtype; may be a memory map.
        labels: Shape (N,), class indices from 0.
        queries: Shape (M, D).
        k: Neighbours that vote, each at least 1.
        temperature: Positive; smaller is sharper.
        vote: What a neighbour's vote weighs; see `featcache.probes.knn.votes`.
        metric: `cosine`, `dot` or `euclidean`; see `nearest_rows`.
        normalize: `l2` or `none`; see `nearest_rows`.
        own_rows: Shape (M,), a row of `train` that each query must not find; -1 for none.
        device: Where FAISS searches.
        bank_bytes: Bytes of float32 training rows held at a time.

    Returns:
        A result for each k asked for, as `vote_of_neighbours` gives it.

    Raises:
        OptionError: If a number is out of range, or if the vote cannot use the metric.
        ShapeError: If arrays do not fit together, or if a row is zero or not finite.

    Source: Wu et al. 2018, arXiv:1805.01978, section 3.4; checked against scikit-learn's
        `KNeighborsClassifier` and a brute force of each vote.
    """
    check_labels("labels", train, labels)
    search = ExactSearch(
        train, metric=metric, normalize=normalize, device=device, bank_bytes=bank_bytes
    )
    results = vote_of_neighbours(
        search,
        labels,
        queries,
        k=k,
        temperature=(temperature,),
        vote=vote,
        own_rows=own_rows,
    )
    return {asked: one for (asked, _), one in results.by.items()}


def vote_of_neighbours(
    search: Search,
    labels: NDArray[np.int64],
    queries: Features,
    *,
    k: Sequence[int],
    temperature: Sequence[float] = (0.07,),
    primary: tuple[int, float] | None = None,
    vote: Vote = "exp_sim",
    own_rows: NDArray[np.int64] | None = None,
    n_classes: int | None = None,
) -> KnnResults:
    """Search once for the largest k, and let the neighbours vote for each k and temperature.

    A k above the rows that a query can find uses all of them, and its result says so. Equal
    votes go to the smaller class index; neighbours of equal score are taken by row index. No
    queries give empty predictions.

    Args:
        search: The bank.
        labels: Shape (N,), class indices from 0, of the bank's rows.
        queries: Shape (M, D).
        k: Neighbours that vote, each at least 1.
        temperature: Positive; smaller is sharper.
        primary: The k and temperature whose shares are returned; the first ones if None.
        vote: What a neighbour's vote weighs; see `featcache.probes.knn.votes`.
        own_rows: Shape (M,), a row of the bank that each query must not find; -1 for none.
        n_classes: Columns of the shares; one more than the largest label if None.

    Returns:
        A result for each (k, temperature).

    Raises:
        OptionError: If a k or temperature is out of range, if `primary` is not among them, or if
            the vote cannot use the search's metric.
        ShapeError: If no row is left to find, or if `queries` do not fit the bank.
    """
    check_vote(vote, search.metric)
    pairs = [(one, sharp) for one in k for sharp in temperature]
    if not pairs or min(k) < 1 or not min(temperature) > 0:
        raise OptionError(
            f"`k` must be at least 1 and `temperature` positive; got k = {list(k)!r} and "
            f"temperature = {list(temperature)!r}. Raise the one that is too small."
        )
    primary = primary or pairs[0]
    if primary not in pairs:
        raise OptionError(
            f"`primary` must be one k and one temperature of those given; got {primary!r}. "
            "Add it to them."
        )
    own = no_rows(len(queries)) if own_rows is None else own_rows
    most = search.n_rows - bool((own >= 0).any())
    if most < 1:
        raise ShapeError(
            f"Leave-one-out needs two train rows at least; got {search.n_rows}. Extract more."
        )
    columns = n_classes or int(labels.max()) + 1
    results = {
        pair: KnnResult(
            k=min(pair[0], most),
            temperature=pair[1],
            predictions=np.empty(len(queries), dtype=np.int64),
            confidences=np.empty(len(queries), dtype=np.float32),
        )
        for pair in pairs
    }
    shares = np.empty((len(queries), columns), dtype=np.float32)
    scores, rows = search.nearest(queries, min(max(k), most), own)
    for block in row_blocks(len(queries), 8 * (2 * columns + 5 * rows.shape[1])):
        near = labels[rows[block]]  # (m, max k)
        for sharp in temperature:
            weights = vote_weights(scores[block], vote, sharp)
            for asked in k:
                one = results[asked, sharp]
                part = weights[:, : one.k]
                votes = class_votes(part, near[:, : one.k], columns)
                total = (weights if vote == "softmax_topmax" else part).sum(axis=1)
                one.predictions[block] = votes.argmax(axis=1)
                one.confidences[block] = votes.max(axis=1) / total
                if (asked, sharp) == primary:
                    shares[block] = votes / total[:, None]
    return KnnResults(by=results, shares=shares)
