from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import normalize

from featcache.errors import OptionError, ShapeError
from featcache.probes.knn import classify, neighbours
from featcache.probes.knn.classify import knn_classify, vote_of_neighbours
from featcache.probes.knn.neighbours import ExactSearch, own_rows

VOTES = {
    "exp_sim": "cosine",
    "softmax_topmax": "cosine",
    "inv_dist": "euclidean",
    "uniform": "cosine",
}


def weigh(cosine, vote, temperature):
    """The weights of sorted neighbours."""
    if vote == "uniform":
        return np.ones_like(cosine)
    if vote == "inv_dist":
        return 1 / (np.sqrt(np.maximum(2 - 2 * cosine, 0)) + temperature)
    return np.exp(cosine / temperature)


def brute(train, labels, queries, k, temperature, own=None, *, vote="exp_sim", k_max=None):
    cosine = normalize(queries.astype(np.float64)) @ normalize(train.astype(np.float64)).T
    if own is not None:
        cosine[np.arange(len(own)), own] = -np.inf
    near = np.argsort(-cosine, axis=1, kind="stable")[:, : k_max or k]
    weights = weigh(np.take_along_axis(cosine, near, 1), vote, temperature)
    total = weights[:, : k_max or k].sum(axis=1, keepdims=True)
    votes = [
        np.bincount(labels[n[:k]], w[:k], labels.max() + 1)
        for n, w in zip(near, weights, strict=True)
    ]
    return np.array(votes) / total


@pytest.mark.parametrize("n_queries", [1, 7, 250])
def test_one_search_serves_every_k_as_brute_force_does(make_clusters, n_queries):
    train, labels = make_clusters(300, 8, 5, spread=0.4)
    queries, _ = make_clusters(n_queries, 8, 5, spread=0.4, seed=1)
    results = knn_classify(train, labels, queries, k=[1, 10, 200], temperature=0.07)
    for k, result in results.items():
        expected = brute(train, labels, queries, k, 0.07)
        np.testing.assert_array_equal(result.predictions, expected.argmax(axis=1))
        np.testing.assert_allclose(result.confidences, expected.max(axis=1), rtol=1e-4)


@pytest.mark.parametrize("vote", VOTES)
def test_every_vote_at_every_k_and_temperature_is_that_of_a_brute_force(make_clusters, vote):
    train, labels = make_clusters(300, 8, 5, spread=0.4)
    queries, _ = make_clusters(60, 8, 5, spread=0.4, seed=1)
    search = ExactSearch(train, metric=VOTES[vote])
    ks, sharpness = [3, 10, 120], [0.05, 0.5]
    results = vote_of_neighbours(
        search, labels, queries, k=ks, temperature=sharpness, primary=(10, 0.5), vote=vote
    )
    assert list(results.by) == [(k, t) for k in ks for t in sharpness]
    k_max = 120 if vote == "softmax_topmax" else None
    for (k, temperature), one in results.by.items():
        expected = brute(train, labels, queries, k, temperature, vote=vote, k_max=k_max)
        is_clear = np.diff(np.sort(expected, axis=1)[:, -2:], axis=1)[:, 0] > 1e-9
        np.testing.assert_array_equal(one.predictions[is_clear], expected.argmax(axis=1)[is_clear])
        np.testing.assert_allclose(one.confidences, expected.max(axis=1), rtol=1e-4)
        assert (one.k, one.temperature) == (k, temperature)
    expected = brute(train, labels, queries, 10, 0.5, vote=vote, k_max=k_max)
    np.testing.assert_allclose(results.shares, expected, rtol=1e-4, atol=1e-7)
    assert results.shares.dtype == np.float32


def test_all_ks_and_temperatures_share_one_search(make_clusters, monkeypatch):
    train, labels = make_clusters(50, 8, 3)
    asked = []
    plain = ExactSearch.nearest

    def counting(self, queries, k, own=None):
        asked.append(k)
        return plain(self, queries, k, own)

    monkeypatch.setattr(ExactSearch, "nearest", counting)
    vote_of_neighbours(ExactSearch(train), labels, train, k=[1, 30, 5], temperature=[0.07, 0.1])
    assert asked == [30]


def test_dino_and_dinov2_predict_alike_for_every_k(make_clusters):
    train, labels = make_clusters(400, 8, 6, spread=0.3)
    queries, _ = make_clusters(150, 8, 6, spread=0.3, seed=1)
    ks = [10, 20, 100, 200]
    first = knn_classify(train, labels, queries, k=ks)
    second = knn_classify(train, labels, queries, k=ks, vote="softmax_topmax")
    for k in ks:
        np.testing.assert_array_equal(first[k].predictions, second[k].predictions)
        assert (second[k].confidences <= first[k].confidences + 1e-6).all()
    np.testing.assert_allclose(first[200].confidences, second[200].confidences, rtol=1e-6)
    assert (second[10].confidences < first[10].confidences).all()


def test_a_huge_temperature_is_the_uniform_vote_of_scikit_learn(make_clusters):
    train, labels = make_clusters(300, 8, 5, spread=0.4)
    queries, _ = make_clusters(100, 8, 5, spread=0.4, seed=1)
    oracle = KNeighborsClassifier(15, metric="cosine").fit(train, labels)
    shares = oracle.predict_proba(queries)
    hot = knn_classify(train, labels, queries, k=[15], temperature=1e9)[15]
    uniform = knn_classify(train, labels, queries, k=[15], vote="uniform")[15]
    for got in (hot, uniform):
        np.testing.assert_allclose(got.confidences, shares.max(axis=1), rtol=1e-6)
    np.testing.assert_array_equal(uniform.predictions, oracle.predict(queries))


@pytest.mark.parametrize(
    ("vote", "metric", "normal", "weights"),
    [
        ("uniform", "euclidean", "none", "uniform"),
        ("inv_dist", "euclidean", "none", lambda d: 1 / (d + 0.3)),
        ("exp_sim", "cosine", "l2", lambda d: np.exp((1 - d) / 0.3)),
    ],
)
def test_predictions_are_those_of_scikit_learn(make_clusters, vote, metric, normal, weights):
    train, labels = make_clusters(300, 8, 5, spread=0.4)
    queries, _ = make_clusters(100, 8, 5, spread=0.4, seed=1)
    oracle = KNeighborsClassifier(11, metric=metric, weights=weights).fit(train, labels)
    got = knn_classify(
        train,
        labels,
        queries,
        k=[11],
        temperature=0.3,
        vote=vote,
        metric=metric,
        normalize=normal,
    )[11]
    np.testing.assert_array_equal(got.predictions, oracle.predict(queries))
    shares = oracle.predict_proba(queries).max(axis=1)
    np.testing.assert_allclose(got.confidences, shares, rtol=1e-4)


def test_a_k_above_the_rows_uses_all_and_says_so(make_clusters):
    train, labels = make_clusters(30, 8, 3)
    result = knn_classify(train, labels, train[:4], k=[20, 200], temperature=0.07)
    assert (result[20].k, result[200].k) == (20, 30)
    expected = brute(train, labels, train[:4], 30, 0.07)
    np.testing.assert_array_equal(result[200].predictions, expected.argmax(axis=1))


def test_k_above_the_counts_of_a_class_and_a_single_class_are_fine(make_clusters):
    train, _ = make_clusters(40, 8, 2)
    labels = np.r_[np.zeros(37, np.int64), 5, 5, 5]
    rare = knn_classify(train, labels, train[37:], k=[4], temperature=0.001)[4]
    np.testing.assert_array_equal(rare.predictions, [5, 5, 5])
    single = knn_classify(train, np.full(40, 3), train[:1], k=[10], temperature=0.07)[10]
    assert (single.predictions[0], single.confidences[0]) == (3, 1)


def test_copies_of_a_row_under_two_labels_vote_equally_and_the_smaller_class_wins():
    row = np.random.default_rng(0).normal(size=(1, 33)).astype(np.float32)
    train = np.repeat(row, 8, axis=0) * np.arange(1, 9)[:, None].astype(np.float32)
    labels = np.array([3, 1, 3, 1, 3, 1, 3, 1])
    for vote, metric in VOTES.items():
        got = knn_classify(train, labels, row + 1, k=[8, 3], vote=vote, metric=metric)
        assert got[8].predictions[0] == 1
        assert got[3].predictions[0] == 3


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


def test_a_permutation_of_the_classes_permutes_the_shares(make_clusters):
    train, labels = make_clusters(90, 6, 4, spread=0.3)
    order = np.array([2, 0, 3, 1])
    search = ExactSearch(train)
    first = vote_of_neighbours(search, labels, train, k=[9])
    second = vote_of_neighbours(search, order[labels], train, k=[9])
    np.testing.assert_array_equal(second.shares[:, order], first.shares)


def test_queries_in_blocks_are_classified_as_together(make_clusters, monkeypatch):
    train, labels = make_clusters(90, 6, 4, spread=0.3)
    expected = vote_of_neighbours(ExactSearch(train), labels, train, k=[9, 30])
    monkeypatch.setattr(
        classify, "row_blocks", lambda n, _: (slice(i, min(i + 7, n)) for i in range(0, n, 7))
    )
    got = vote_of_neighbours(ExactSearch(train), labels, train, k=[9, 30])
    np.testing.assert_array_equal(got.shares, expected.shares)
    for pair in got.by:
        np.testing.assert_array_equal(got.by[pair].predictions, expected.by[pair].predictions)


def test_float16_features_are_classified_as_their_float32_values(make_clusters):
    train, labels = make_clusters(200, 16, 4, spread=0.4)
    train = train.astype(np.float16)
    half = knn_classify(train, labels, train, k=[10])[10]
    full = knn_classify(train.astype(np.float32), labels, train.astype(np.float64), k=[10])[10]
    np.testing.assert_array_equal(half.predictions, full.predictions)
    np.testing.assert_array_equal(half.confidences, full.confidences)


def test_no_queries_give_no_predictions(make_clusters):
    train, labels = make_clusters(30, 8, 3)
    search = ExactSearch(train)
    results = vote_of_neighbours(search, labels, train[:0], k=[5], own_rows=neighbours.no_rows(0))
    assert len(results.by[5, 0.07].predictions) == 0
    assert results.shares.shape == (0, 3)


def test_wrong_arguments_are_refused(make_clusters):
    train, labels = make_clusters(30, 8, 3)
    with pytest.raises(OptionError, match="`k` must be at least 1"):
        knn_classify(train, labels, train, k=[0], temperature=0.07)
    with pytest.raises(OptionError, match="`temperature` positive"):
        knn_classify(train, labels, train, k=[5], temperature=0.0)
    with pytest.raises(OptionError, match=r"`primary` must be one k .* got \(6, 0.07\)"):
        vote_of_neighbours(ExactSearch(train), labels, train, k=[5], primary=(6, 0.07))
    with pytest.raises(ShapeError, match="`labels` must hold one label per row"):
        knn_classify(train, labels[:5], train, k=[5])
    with pytest.raises(ShapeError, match="needs two train rows at least; got 1"):
        knn_classify(train[:1], labels[:1], train[:1], k=[1], own_rows=np.array([0]))
    train[[3, 8]] = 0
    with pytest.raises(ShapeError, match="2 rows are zero, the first is row 3"):
        knn_classify(train, labels, train[:1], k=[5])
