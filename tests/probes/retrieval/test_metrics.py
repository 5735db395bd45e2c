"""Rankings against three other libraries and against their definitions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import pytrec_eval
import torch
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN
from sklearn.metrics import average_precision_score

from featcache.errors import OptionError
from featcache.probes.retrieval.ranking import Truth, rank_gallery, score_rankings
from featcache.probes.retrieval.row_lists import no_rows, rows_of_ids


def ids_of(n, prefix="i"):
    return np.array([f"{prefix}{i:04d}" for i in range(n)])


def score(scores, relevant, *, k=(1, 2, 3), junk=None, hidden=(), absent=None, **options):
    """Score one query given similarities and the columns that are relevant."""
    names = ids_of(len(scores))
    row = torch.tensor(np.array([scores], dtype=np.float64))
    truth = Truth(
        relevant=rows_of_ids([[names[i] for i in relevant]], names),
        junk=rows_of_ids([[names[i] for i in junk]], names) if junk else None,
        hidden=tuple(rows_of_ids([[names[i] for i in one]], names) for one in hidden),
        n_absent=None if absent is None else np.array([absent]),
    )
    ranked = score_rankings(
        lambda block: row[block].clone(), truth, n_rows=len(scores), k=k, **options
    )
    return {name: column[0] for name, column in ranked.columns.items()}


@pytest.fixture
def rows(make_clusters):
    features, labels = make_clusters(120, 6, 7, spread=0.5)
    return features.astype(np.float64), labels


def test_pytorch_metric_learning_agrees_with_the_query_left_out(rows):
    features, labels = rows
    names = ids_of(len(labels))
    got = rank_gallery(
        features, labels, features, labels, query_ids=names, gallery_ids=names, k=[1]
    ).means()
    calculator = AccuracyCalculator(
        include=(
            "precision_at_1",
            "mean_average_precision_at_r",
            "r_precision",
            "mean_average_precision",
            "mean_reciprocal_rank",
        ),
        k=len(labels) - 1,
        knn_func=CustomKNN(CosineSimilarity()),
    )
    expected = calculator.get_accuracy(torch.tensor(features), torch.tensor(labels))
    assert got["precision@1"] == pytest.approx(expected["precision_at_1"], abs=1e-9)
    assert got["map@r"] == pytest.approx(expected["mean_average_precision_at_r"], abs=1e-6)
    for name in ("r_precision", "mean_average_precision", "mean_reciprocal_rank"):
        assert got[name] == pytest.approx(expected[name], abs=1e-6)


def test_trec_eval_agrees_on_all_cuts(rows):
    features, labels = rows
    queries, gallery = features[:30], features[30:]
    names, asked = ids_of(90), ids_of(30, "q")
    ranked = rank_gallery(
        queries,
        labels[:30],
        gallery,
        labels[30:],
        query_ids=asked,
        gallery_ids=names,
        k=[1, 5, 10, 200],
    )
    unit = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in (queries, gallery)]
    run = {
        str(q): dict(zip(map(str, names), map(float, row), strict=True))
        for q, row in zip(asked, unit[0] @ unit[1].T, strict=True)
    }
    truth = {
        str(q): {str(n): 1 for n, other in zip(names, labels[30:], strict=True) if other == label}
        for q, label in zip(asked, labels[:30], strict=True)
    }
    measures = {"map", "recip_rank", "ndcg_cut.1,5,10", "P.1,5,10,200", "recall.1,5,10", "Rprec"}
    found = pytrec_eval.RelevanceEvaluator(truth, measures).evaluate(run)
    pairs = {"average_precision": "map", "reciprocal_rank": "recip_rank", "r_precision": "Rprec"}
    pairs |= {f"ndcg@{k}": f"ndcg_cut_{k}" for k in (1, 5, 10)}
    pairs |= {f"recall@{k}": f"recall_{k}" for k in (1, 5, 10)}
    pairs |= {f"precision@{k}": f"P_{k}" for k in (1, 5, 10, 200)}
    for ours, theirs in pairs.items():
        expected = [found[str(q)][theirs] for q in asked]
        np.testing.assert_allclose(ranked.columns[ours], expected, atol=1e-9, err_msg=ours)


def test_scikit_learn_agrees_on_average_precision_with_negative_scores():
    rng = np.random.default_rng(0)
    for _ in range(20):
        scores = -rng.random(30) - 0.1  # all below zero: where torchmetrics finds nothing
        relevant = rng.choice(30, size=8, replace=False)
        expected = average_precision_score(np.isin(np.arange(30), relevant), scores)
        assert score(scores, relevant)["average_precision"] == pytest.approx(expected)


def test_the_definitions_by_hand():
    got = score([4.0, 3.0, 2.0, 1.0, 0.0], [1, 2, 4])  # ranks 2, 3, 5
    thirds = (1 / 2 + 2 / 3) / 3
    assert got["average_precision"] == pytest.approx((1 / 2 + 2 / 3 + 3 / 5) / 3)
    assert got["map@r"] == pytest.approx(thirds)
    assert got["r_precision"] == pytest.approx(2 / 3)
    assert got["reciprocal_rank"] == 0.5
    assert got["first_hit"] == 2
    assert got["map@2/r"] == pytest.approx(1 / 2 / 3)
    assert got["map@2/min"] == pytest.approx(1 / 2 / 2)
    assert got["map@2/hits"] == pytest.approx(1 / 2)
    assert (got["map@1/hits"], got["hit_rate@1"], got["hit_rate@2"]) == (0, 0, 1)
    assert (got["precision@3"], got["recall@2"]) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    ideal = 1 + 1 / np.log2(3)
    assert got["ndcg@2"] == pytest.approx(1 / np.log2(3) / ideal)


def test_a_truncated_map_divides_as_its_name_says():
    # 0.833, 0.417 and 0.556: hits at ranks 1 and 3 of the first 3, R = 4
    got = score([9.0, 8.0, 7.0, 1.0, 1.5, 0.0], [0, 2, 4, 5])
    assert got["map@3/hits"] == pytest.approx((1 + 2 / 3) / 2)
    assert got["map@3/r"] == pytest.approx((1 + 2 / 3) / 4)
    assert got["map@3/min"] == pytest.approx((1 + 2 / 3) / 3)


def test_one_relevant_item_at_rank_two_gives_a_quarter_by_trapezoids():
    assert score([2.0, 1.0], [1])["average_precision"] == 0.5
    assert score([2.0, 1.0], [1], convention="revisited")["average_precision"] == 0.25
    assert score([2.0, 1.0], [0], convention="revisited")["average_precision"] == 1.0
    got = score([5.0, 4.0, 3.0, 2.0], [1, 3], convention="revisited")  # ranks 2 and 4
    assert got["average_precision"] == pytest.approx((0.25 + (1 / 3 + 1 / 2) / 2) / 2)


def revisited(ranking, good, junk, kappas):
    """Radenović et al.'s definition over a ranking, best first."""
    kept = [i for i in ranking if i not in junk]
    places = [kept.index(i) for i in good if i in kept]
    average = 0.0
    for j, place in enumerate(sorted(places)):
        before = j / place if place else 1.0
        average += (before + (j + 1) / (place + 1)) / 2 / len(good)
    cuts = {}
    for kappa in kappas:
        depth = min(max(places) + 1, kappa)
        cuts[kappa] = sum(place < depth for place in places) / depth
    return average, cuts


def test_the_revisited_convention_is_that_of_a_list_without_junk():
    rng = np.random.default_rng(1)
    for _ in range(40):
        scores = rng.permutation(12).astype(float)
        order = rng.permutation(12)
        good, junk = order[: rng.integers(1, 5)], order[5 : 5 + rng.integers(0, 4)]
        ranking = list(np.argsort(-scores))
        average, cuts = revisited(ranking, list(good), list(junk), (1, 5, 10))
        got = score(scores, good, junk=list(junk), k=(1, 5, 10), convention="revisited")
        assert got["average_precision"] == pytest.approx(average)
        for kappa, value in cuts.items():
            assert got[f"precision@{kappa}"] == pytest.approx(value)
        bob = score(scores, good, junk=list(junk), k=(1,), convention="bob")
        first = min(ranking.index(i) for i in good) + 1
        assert bob["reciprocal_rank"] == pytest.approx(1 / first)  # before junk is taken out
        assert bob["average_precision"] == pytest.approx(average)


def test_precision_of_few_relevant_items_divides_by_the_last_of_them():
    assert score([3.0, 2.0, 1.0], [0], k=(3,), convention="revisited")["precision@3"] == 1.0
    assert score([3.0, 2.0, 1.0], [0], k=(3,))["precision@3"] == pytest.approx(1 / 3)


def test_items_that_the_gallery_lacks_are_never_found():
    got = score([2.0, 1.0], [0], absent=1)
    assert (got["average_precision"], got["recall@2"]) == (0.5, 0.5)
    nothing = score([2.0, 1.0], [], absent=2)
    assert set(nothing.values()) == {0.0}


def test_hidden_items_are_as_if_they_were_not_there():
    hidden = score([5.0, 4.0, 3.0, 2.0, 1.0], [1, 3], hidden=([0, 1], [2]))
    assert hidden["average_precision"] == 1.0  # row 3 is first of what is left, and alone
    assert hidden["recall@1"] == 1.0


def brute_expectation(scores, relevant, k):
    """Average over all orders that the ties allow."""
    scores = np.asarray(scores)
    orders = [
        order
        for order in itertools.permutations(range(len(scores)))
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))
    ]
    found = [score(-np.argsort(order).astype(float), relevant, k=k) for order in orders]
    return {name: np.mean([one[name] for one in found]) for name in found[0]}


@pytest.mark.parametrize(
    ("scores", "relevant"),
    [
        ([1, 1, 1, 1, 1], [0, 3]),
        ([1, 1, 1, 1, 1], [0, 1, 2, 3, 4]),
        ([3, 2, 2, 2, 1, 1], [1, 5]),
        ([3, 2, 2, 2, 1, 1], [2, 3, 4]),
        ([2, 2, 1, 1, 1], [0, 2, 3]),
        ([-1, -1, -2, -2, -2, -3], [1, 4, 5]),
        ([5, 4, 3, 2], [1, 3]),
    ],
)
def test_average_ties_are_the_mean_over_all_orders(scores, relevant):
    got = score(scores, relevant, k=(1, 2, 3, 9), ties="average")
    expected = brute_expectation(scores, relevant, (1, 2, 3, 9))
    assert got.keys() == {n for n in expected if "hit" not in n}
    for name, value in got.items():
        assert value == pytest.approx(expected[name]), name


def test_ties_go_by_id_or_against_the_relevant():
    scores, relevant = [1.0, 1.0, 1.0, 0.0, 0.0], [0, 1, 4]
    assert score(scores, relevant)["average_precision"] == pytest.approx((1 + 1 + 3 / 5) / 3)
    worst = score(scores, relevant, ties="pessimistic")
    assert worst["average_precision"] == pytest.approx((1 / 2 + 2 / 3 + 3 / 5) / 3)
    assert worst["first_hit"] == 2
    all_tied = score([0.0] * 6, [0, 1], ties="pessimistic")
    assert all_tied["average_precision"] == pytest.approx((1 / 5 + 2 / 6) / 2)


def test_nothing_relevant_and_nothing_to_rank_give_zeros():
    assert set(score([1.0, 2.0], []).values()) == {0.0}
    assert set(score([1.0, 2.0], [], ties="average").values()) == {0.0}
    assert set(score([1.0, 2.0], [0], hidden=([0, 1],), convention="bob").values()) == {0.0}


def test_wrong_arguments_are_refused():
    with pytest.raises(OptionError, match="`k` must hold numbers from 1"):
        score([1.0], [0], k=(0,))
    with pytest.raises(OptionError, match="`ties: average` needs `convention: standard`"):
        score([1.0], [0], ties="average", convention="revisited")


def test_no_queries_give_no_columns():
    truth = Truth(relevant=no_rows(0))
    ranked = score_rankings(lambda block: None, truth, n_rows=3, k=[1])
    assert len(ranked.queries) == len(ranked.n_relevant) == 0
