from __future__ import annotations

import numpy as np
import pytest
import torch

from featcache.errors import OptionError, ShapeError
from featcache.probes.retrieval import search
from featcache.probes.retrieval.copies import (
    NormalisedScorer,
    background_offsets,
    copy_metrics,
    find_copies,
    micro_ap_resamples,
)
from featcache.probes.retrieval.ranking import Truth
from featcache.probes.retrieval.row_lists import RowLists, rows_of_ids
from featcache.probes.retrieval.search import cosine_scorer


def lists_of(columns, n_rows):
    names = np.array([f"r{i:03d}" for i in range(n_rows)])
    return rows_of_ids([[names[i] for i in one] for one in columns], names)


def find(scores, matches, *, most=10**6, hidden=None, absent=None):
    scores = np.asarray(scores, dtype=np.float64)
    truth = Truth(
        relevant=lists_of(matches, scores.shape[1]),
        hidden=() if hidden is None else (lists_of(hidden, scores.shape[1]),),
        n_absent=None if absent is None else np.array(absent),
    )
    return find_copies(
        lambda block: torch.tensor(scores[block]), truth, n_rows=scores.shape[1], most=most
    )


def brute(scores, matches, most):
    """DISC21's definition: one sorted list, wrong pairs first, cut at `most`."""
    pairs = [
        (-score, row in matches[query], query)
        for query, line in enumerate(scores)
        for row, score in enumerate(line)
    ]
    total, hits, area, at_90 = sum(map(len, matches)), 0, 0.0, 0.0
    for place, (_, is_match, _) in enumerate(sorted(pairs)[:most], start=1):
        hits += is_match
        area += is_match * hits / place / total
        if hits / place >= 0.9:
            at_90 = max(at_90, hits / total)
    return area, at_90


@pytest.mark.parametrize("most", [3, 17, 50, 10**6])
@pytest.mark.parametrize("steps", [3, 1000])
def test_micro_ap_is_that_of_one_sorted_list(most, steps, monkeypatch):
    monkeypatch.setattr(search, "_BLOCK_BYTES", 1)  # a query a block: pruned many times
    rng = np.random.default_rng(most + steps)
    scores = np.round(rng.random((15, 12)) * steps) / steps - 0.5  # many ties with 3 steps
    matches = [list(rng.choice(12, size=rng.integers(0, 3), replace=False)) for _ in range(15)]
    for query, rows in enumerate(matches):
        scores[query, rows] += 0.3
    scores = np.round(scores, 6)  # what differs by rounding alone is a tie to us
    got = copy_metrics(find(scores, matches, most=most))
    area, at_90 = brute(scores, matches, most)
    assert got["micro_ap"] == pytest.approx(area)
    assert got["recall@p90"] == pytest.approx(at_90)


def test_micro_ap_by_hand():
    scores = [[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]]  # right: (0, 0) first and (2, 1) third
    got = copy_metrics(find(scores, [[0], [], [1]]))
    assert got == {
        "micro_ap": pytest.approx((1 + 2 / 3) / 2),
        "recall@p90": 0.5,
        "recall@rank1": 1.0,
        "recall@rank10": 1.0,
    }


def test_one_score_for_all_pairs_gains_nothing():
    got = copy_metrics(find(np.ones((4, 5)), [[0], [1], [2], [3]]))
    assert got["micro_ap"] == pytest.approx(sum(i / (16 + i) for i in range(1, 5)) / 4)
    assert got["recall@rank1"] == 0
    assert got["recall@rank10"] == 1
    assert copy_metrics(find(np.ones((4, 5)), [[0], [1], [2], [3]], most=16))["micro_ap"] == 0


def test_a_match_below_the_cut_or_absent_is_never_found():
    scores = [[0.9, 0.1], [0.2, 0.8]]
    cut = copy_metrics(find(scores, [[0], [0]], most=2))
    assert (cut["micro_ap"], cut["recall@rank10"]) == (0.5, 0.5)
    absent = copy_metrics(find(scores, [[0], []], absent=[0, 3]))
    assert absent["micro_ap"] == 0.25


def test_hidden_pairs_are_in_no_list():
    copies = find([[0.9, 0.5], [0.4, 0.6]], [[0, 1], [1]], hidden=[[0], []])
    assert len(copies.pairs.query) == 3
    assert copies.n_matches.tolist() == [1, 1]
    assert copy_metrics(copies)["micro_ap"] == 1.0
    assert copies.best_row.tolist() == [1, 1]


def test_queries_and_references_may_come_in_any_order():
    rng = np.random.default_rng(0)
    scores = rng.random((10, 9))
    matches = [[int(rng.integers(9))] if i % 2 else [] for i in range(10)]
    expected = copy_metrics(find(scores, matches, most=40))
    rows, columns = rng.permutation(10), rng.permutation(9)
    moved = [[int(np.flatnonzero(columns == m)[0]) for m in matches[q]] for q in rows]
    assert copy_metrics(find(scores[rows][:, columns], moved, most=40)) == pytest.approx(expected)


def test_resampled_queries_scatter_around_the_value():
    rng = np.random.default_rng(3)
    scores = rng.random((40, 30))
    matches = [[i] if i < 20 else [] for i in range(40)]
    for i in range(20):
        scores[i, i] += 0.4 * rng.random()
    copies = find(scores, matches)
    drawn = list(micro_ap_resamples(copies, rng, 300))
    value = copy_metrics(copies)["micro_ap"]
    low, high = np.percentile(drawn, [2.5, 97.5])
    assert low < value < high
    every = np.arange(40)

    class Once:
        def integers(self, n, size):
            return every

    assert next(micro_ap_resamples(copies, Once(), 1)) == pytest.approx(value)


def test_offsets_are_means_of_the_nearest_background_rows(make_clusters):
    rows, _ = make_clusters(30, 6, 3)
    unit = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float64)
    cosine = unit[:8] @ unit[8:].T
    expected = 0.7 * np.sort(cosine, axis=1)[:, -3:].mean(axis=1)
    scorer = cosine_scorer(rows[:8], rows[8:], "cpu")
    offsets = background_offsets(scorer, neighbours=3, beta=0.7)
    np.testing.assert_allclose(offsets, expected, atol=1e-6)
    normalised = NormalisedScorer(scorer=scorer, offsets=offsets)(slice(2, 5))
    np.testing.assert_allclose(normalised, cosine[2:5] - expected[2:5, None], atol=1e-6)
    with pytest.raises(OptionError, match="`neighbours` must be at least 1"):
        background_offsets(scorer, neighbours=0, beta=1.0)


def test_nothing_to_find_is_refused():
    with pytest.raises(ShapeError, match="At least one query must have a true match"):
        find([[0.1, 0.2]], [[]])
    with pytest.raises(OptionError, match="`most` must be at least 1"):
        find([[0.1, 0.2]], [[0]], most=0)


def test_lists_of_ids_skip_what_is_absent_and_repeated():
    lists = rows_of_ids([["c", "a", "a", "zz"], [], ["0"]], np.array(["a", "b", "c"]))
    assert isinstance(lists, RowLists)
    query, row = lists.flat(slice(0, 3))
    assert (query.tolist(), row.tolist()) == ([0, 0], [0, 2])
    assert lists.sizes.tolist() == [2, 0, 0]
