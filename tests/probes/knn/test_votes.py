from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from sklearn.neighbors import KNeighborsClassifier

from featcache.errors import OptionError, ShapeError
from featcache.probes.knn.neighbours import nearest_rows
from featcache.probes.knn.votes import class_votes, multilabel_shares, vote_weights


def test_equal_votes_go_to_the_smaller_class_index():
    votes = class_votes(np.ones((1, 4)), np.array([[2, 1, 2, 1]]), 3)
    np.testing.assert_array_equal(votes, [[0, 2, 2]])
    assert votes.argmax() == 1


@pytest.mark.parametrize("vote", ["exp_sim", "softmax_topmax"])
def test_a_tiny_temperature_does_not_overflow(vote):
    weights = vote_weights(np.array([[0.9, 0.1], [-0.2, -0.3]]), vote, 1e-6)
    np.testing.assert_array_equal(weights, [[1, 0], [1, 0]])
    large = vote_weights(np.array([[1e30, 1e30, 1e10]], np.float32), vote, 0.07)
    np.testing.assert_array_equal(large, [[1, 1, 0]])


def test_weights_are_those_of_the_formulas():
    scores = np.array([[-0.1, -0.5]])
    np.testing.assert_allclose(vote_weights(scores, "inv_dist", 0.07), [[1 / 0.17, 1 / 0.57]])
    np.testing.assert_array_equal(vote_weights(scores, "uniform", 0.07), [[1, 1]])
    ratio = vote_weights(scores, "exp_sim", 0.2)
    np.testing.assert_allclose(ratio[0, 1] / ratio[0, 0], np.exp(-0.5 / 0.2) / np.exp(-0.1 / 0.2))


@pytest.mark.parametrize("vote", ["exp_sim", "softmax_topmax", "inv_dist", "uniform"])
def test_no_queries_have_no_weights(vote):
    assert vote_weights(np.empty((0, 5), np.float32), vote, 0.07).shape == (0, 5)
    assert class_votes(np.empty((0, 5)), np.empty((0, 5), np.int64), 3).shape == (0, 3)


def test_multilabel_shares_are_those_of_scikit_learn(make_clusters):
    bank, _ = make_clusters(200, 12, 4)
    queries, _ = make_clusters(30, 12, 4, seed=1)
    labels = (bank[:, :5] + np.random.default_rng(0).normal(size=(200, 5))) > 0.5
    scores, rows = nearest_rows(bank, queries, k=9, metric="euclidean", normalize="none")
    oracle = KNeighborsClassifier(9, weights=lambda d: 1 / (d + 0.07)).fit(bank, labels)
    expected = np.stack([share[:, 1] for share in oracle.predict_proba(queries)], axis=1)
    shares = multilabel_shares(vote_weights(scores, "inv_dist", 0.07), rows, labels)
    np.testing.assert_allclose(shares, expected, rtol=1e-5)
    assert shares.dtype == np.float32
    truth = queries[:, :5] > 0.5
    assert average_precision_score(truth, shares) == pytest.approx(
        average_precision_score(truth, expected)
    )


def test_multilabel_shares_of_one_label_each_are_the_shares_of_the_classes():
    rng = np.random.default_rng(0)
    rows, labels = rng.integers(0, 50, (7, 6)), rng.integers(0, 4, 50)
    weights = rng.random((7, 6))
    expected = class_votes(weights, labels[rows], 4) / weights.sum(axis=1, keepdims=True)
    shares = multilabel_shares(weights, rows, np.eye(4, dtype=bool)[labels])
    np.testing.assert_allclose(shares, expected, rtol=1e-6)


def test_rows_without_labels_and_no_queries_have_no_shares():
    rows = np.array([[0, 1]])
    assert multilabel_shares(np.ones((1, 2)), rows, np.zeros((2, 3), bool)).tolist() == [[0, 0, 0]]
    empty = np.empty((0, 2))
    assert multilabel_shares(empty, empty.astype(int), np.zeros((2, 3), bool)).shape == (0, 3)


def test_labels_of_other_rows_are_refused():
    with pytest.raises(ShapeError, match=r"a line for each row; got shapes \(1, 2\), \(1, 2\) and"):
        multilabel_shares(np.ones((1, 2)), np.array([[0, 9]]), np.zeros((2, 3), bool))


def test_a_vote_that_the_metric_cannot_serve_is_refused(make_clusters):
    from featcache.probes.knn.classify import knn_classify

    train, labels = make_clusters(30, 8, 3)
    for vote, metric in (("inv_dist", "cosine"), ("exp_sim", "euclidean")):
        with pytest.raises(OptionError, match=f"for the vote '{vote}'; got '{metric}'"):
            knn_classify(train, labels, train, k=[5], vote=vote, metric=metric)
    with pytest.raises(OptionError, match="Did you mean 'uniform'"):
        knn_classify(train, labels, train, k=[5], vote="uniforn")
