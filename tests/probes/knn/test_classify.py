from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import normalize

from featcache.errors import OptionError, ShapeError
from featcache.probes.knn import neighbours
from featcache.probes.knn.classify import knn_classify, vote
from featcache.probes.knn.neighbours import nearest_rows, own_rows


def brute(train, labels, queries, k, temperature, own=None):
    cosine = normalize(queries.astype(np.float64)) @ normalize(train.astype(np.float64)).T
    if own is not None:
        cosine[np.arange(len(own)), own] = -np.inf
    near = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
    weights = np.exp(np.take_along_axis(cosine, near, 1) / temperature)
    votes = [
        np.bincount(labels[n], w, labels.max() + 1) for n, w in zip(near, weights, strict=True)
    ]
    return np.array(votes) / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("n_queries", [1, 7, 250])
def test_one_search_serves_every_k_as_brute_force_does(make_clusters, n_queries):
    train, labels = make_clusters(300, 8, 5, spread=0.4)
    queries, _ = make_clusters(n_queries, 8, 5, spread=0.4, seed=1)
    results = knn_classify(train, labels, queries, k=[1, 10, 200], temperature=0.07)
    for k, result in results.items():
        expected = brute(train, labels, queries, k, 0.07)
        np.testing.assert_array_equal(result.predictions, expected.argmax(axis=1))
        np.testing.assert_allclose(result.confidences, expected.max(axis=1), rtol=1e-4)


def test_a_huge_temperature_is_the_uniform_vote_of_scikit_learn(make_clusters):
    train, labels = make_clusters(300, 8, 5, spread=0.4)
    queries, _ = make_clusters(100, 8, 5, spread=0.4, seed=1)
    oracle = KNeighborsClassifier(15, metric="cosine").fit(train, labels)
    shares = oracle.predict_proba(queries)
    is_clear = np.diff(np.sort(shares, axis=1)[:, -2:], axis=1)[:, 0] > 0
    got = knn_classify(train, labels, queries, k=[15], temperature=1e9)[15]
    np.testing.assert_array_equal(got.predictions[is_clear], oracle.predict(queries)[is_clear])
    np.testing.assert_allclose(got.confidences, shares.max(axis=1), rtol=1e-6)


def test_a_k_above_the_rows_uses_all_and_says_so(make_clusters):
    train, labels = make_clusters(30, 8, 3)
    result = knn_classify(train, labels, train[:4], k=[20, 200], temperature=0.07)
    assert (result[20].k, result[200].k) == (20, 30)
    expected = brute(train, labels, train[:4], 30, 0.07)
    np.testing.assert_array_equal(result[200].predictions, expected.argmax(axis=1))


def test_equal_votes_go_to_the_smaller_class_index():
    shares = vote(np.ones((1, 4)), np.array([[2, 1, 2, 1]]), temperature=0.07, n_classes=3)
    np.testing.assert_allclose(shares, [[0, 0.5, 0.5]])
    assert shares.argmax() == 1


def test_a_tiny_temperature_does_not_overflow():
    shares = vote(np.array([[0.9, 0.1]]), np.array([[0, 1]]), temperature=1e-6, n_classes=2)
    np.testing.assert_array_equal(shares, [[1, 0]])


def test_leave_one_out_excludes_the_query_by_id(make_clusters):
    train, labels = make_clusters(60, 6, 3, spread=0.3)
    ids = np.array([f"{i:02d}" for i in range(60)])
    shuffled = np.random.default_rng(0).permutation(60)
    own = own_rows(ids[shuffled], ids)
    result = knn_classify(
        train[shuffled], labels[shuffled], train, k=[5], temperature=0.07, own_rows=own
    )[5]
    expected = brute(train, labels, train, 5, 0.07, own=np.arange(60))
    np.testing.assert_array_equal(result.predictions, expected.argmax(axis=1))


def test_own_rows_are_minus_one_where_the_id_is_absent():
    got = own_rows(np.array(["b", "a"]), np.array(["a", "c", "b", "0"]))
    np.testing.assert_array_equal(got, [1, -1, 0, -1])


@pytest.mark.parametrize("k", [1, 3, 11, 12])
def test_equal_neighbours_are_taken_by_row_index(k):
    bank = np.repeat(np.eye(4, dtype=np.float32), 3, axis=0)[[0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]]
    queries = np.eye(4, dtype=np.float32)
    _, rows = nearest_rows(bank, queries, k=k)
    for line, query in zip(rows, range(4), strict=True):
        same = np.flatnonzero(bank[:, query] == 1)
        other = np.flatnonzero(bank[:, query] == 0)
        np.testing.assert_array_equal(line, np.concatenate([same, other])[:k])


def test_duplicates_that_tie_at_k_are_taken_by_row_index_in_blocks(monkeypatch, make_clusters):
    monkeypatch.setattr(
        neighbours, "row_blocks", lambda n, _: (slice(i, i + 7) for i in range(0, n, 7))
    )
    rows, _ = make_clusters(10, 16, 2)
    _, found = nearest_rows(np.tile(rows, (5, 1)), rows, k=3)
    np.testing.assert_array_equal(found, np.arange(10)[:, None] + [0, 10, 20])


def test_leave_one_out_among_duplicates_finds_the_others():
    bank = np.ones((5, 3), dtype=np.float32)
    _, rows = nearest_rows(bank, bank, k=4, own_rows=np.arange(5))
    np.testing.assert_array_equal(rows, [[j for j in range(5) if j != i] for i in range(5)])


def test_float16_rows_with_overflowing_norms_keep_their_direction():
    bank = np.diag([60000.0, 60000.0, 1e-7]).astype(np.float16) + np.float16(0)
    bank[0, 1] = 60000
    _, rows = nearest_rows(bank, np.eye(3, dtype=np.float16), k=1)
    np.testing.assert_array_equal(rows[:, 0], [0, 1, 2])


def test_no_queries_give_no_predictions(make_clusters):
    train, labels = make_clusters(30, 8, 3)
    assert len(knn_classify(train, labels, train[:0], k=[5], temperature=0.07)[5].predictions) == 0


def test_wrong_arguments_are_refused(make_clusters):
    train, labels = make_clusters(30, 8, 3)
    with pytest.raises(OptionError, match="`k` must be at least 1"):
        knn_classify(train, labels, train, k=[0], temperature=0.07)
    with pytest.raises(OptionError, match="`temperature` positive"):
        knn_classify(train, labels, train, k=[5], temperature=0.0)
    with pytest.raises(OptionError, match="between 1 and 30 .* got 31"):
        nearest_rows(train, train, k=31)
    with pytest.raises(OptionError, match="between 1 and 29 .* got 30"):
        nearest_rows(train, train, k=30, own_rows=np.arange(30))
    with pytest.raises(ShapeError, match=r"same number of dimensions; got shapes \(30, 8\)"):
        nearest_rows(train, train[:, :4], k=1)
    train[[3, 8]] = 0
    with pytest.raises(ShapeError, match="2 rows are zero, the first is row 3"):
        nearest_rows(train, train[:1], k=1)
