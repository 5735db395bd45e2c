from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ortho_group
from sklearn.metrics.pairwise import cosine_similarity, euclidean_distances
from sklearn.neighbors import NearestCentroid

from featcache.errors import OptionError, ShapeError
from featcache.probes.closed_form.centroid import fit_centroids
from featcache.probes.closed_form.options import CentroidOptions


@pytest.mark.parametrize("centre", [False, True])
def test_distances_and_predictions_are_those_of_scikit_learn(make_clusters, centre):
    x, y = make_clusters(90, 8, 4, spread=0.4)
    queries, _ = make_clusters(50, 8, 4, spread=0.4, seed=1)
    x, queries = x.astype(np.float64), queries.astype(np.float64)
    oracle = NearestCentroid().fit(x, y)
    fitted = fit_centroids(x, y, metric="euclidean", centre=centre)
    scores = fitted.scores(queries)
    np.testing.assert_allclose(-scores, euclidean_distances(queries, oracle.centroids_), rtol=1e-9)
    np.testing.assert_array_equal(scores.argmax(axis=1), oracle.predict(queries))


@pytest.mark.parametrize("centre", [False, True])
def test_cosines_are_those_of_brute_force(make_clusters, centre):
    x, y = make_clusters(90, 8, 4, spread=0.4)
    queries, _ = make_clusters(50, 8, 4, spread=0.4, seed=1)
    wide = x.astype(np.float64)
    origin = wide.mean(axis=0) if centre else np.zeros(8)
    means = np.array([(wide[y == c] - origin).mean(axis=0) for c in range(4)])
    got = fit_centroids(x, y, metric="cosine", centre=centre).scores(queries)
    np.testing.assert_allclose(got, cosine_similarity(queries - origin, means), atol=1e-12)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("centre", [False, True])
def test_order_names_repeats_and_rotation_change_nothing(make_clusters, metric, centre):
    x, y = make_clusters(60, 8, 3, spread=0.4)
    plain = fit_centroids(x, y, metric=metric, centre=centre).scores(x)
    order, names = np.random.default_rng(0).permutation(60), np.array([2, 0, 1])
    other = fit_centroids(x[order], names[y][order], metric=metric, centre=centre)
    np.testing.assert_allclose(other.scores(x)[:, names], plain, atol=1e-11)
    twice = fit_centroids(np.tile(x, (2, 1)), np.tile(y, 2), metric=metric, centre=centre)
    np.testing.assert_allclose(twice.scores(x), plain, atol=1e-11)
    turned = x.astype(np.float64) @ ortho_group.rvs(8, random_state=0)
    got = fit_centroids(turned, y, metric=metric, centre=centre).scores(turned)
    np.testing.assert_allclose(got, plain, atol=1e-11)


def test_an_offset_changes_cosines_only_without_a_centre(make_clusters):
    x, y = make_clusters(60, 8, 3, spread=0.4)
    moved = x.astype(np.float64) + 50
    centred, raw = (
        [fit_centroids(one, y, metric="cosine", centre=c).scores(one) for one in (x, moved)]
        for c in (True, False)
    )
    np.testing.assert_allclose(centred[1], centred[0], atol=1e-10)
    assert raw[1].min() > 0.99 > raw[0].min()


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_equal_scores_go_to_the_smaller_class_index(metric):
    x = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    fitted = fit_centroids(x, np.array([6, 3, 2]), metric=metric, centre=False)
    predictions = fitted.classes[fitted.scores(np.array([[1.0, 1.0], [1.0, 0]])).argmax(axis=1)]
    np.testing.assert_array_equal(predictions, [2, 2])


def test_what_lies_on_the_centre_has_cosine_zero():
    x = np.array([[1.0, 2.0], [3.0, 2.0], [2.0, 2.0]])
    fitted = fit_centroids(x, np.array([0, 1, 2]), metric="cosine", centre=True)
    scores = fitted.scores(np.array([[2.0, 2.0], [9.0, 2.0]]))
    np.testing.assert_array_equal(scores, [[0, 0, 0], [-1, 1, 0]])


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("centre", [False, True])
def test_one_class_of_one_row_is_always_predicted(make_clusters, metric, centre):
    x, _ = make_clusters(10, 8, 3)
    for n in (1, 10):
        fitted = fit_centroids(x[:n], np.full(n, 5), metric=metric, centre=centre)
        np.testing.assert_array_equal(fitted.classes, [5])
        assert np.isfinite(fitted.scores(x)).all()


def test_float16_rows_do_not_overflow(make_clusters):
    x, y = make_clusters(60, 8, 3, spread=0.4)
    huge = (x * 8000).astype(np.float16)
    for metric, scale in (("cosine", 1), ("euclidean", 8000)):
        got = fit_centroids(huge, y, metric=metric, centre=True).scores(huge)
        expected = fit_centroids(x, y, metric=metric, centre=True).scores(x) * scale
        assert np.abs(got - expected).max() < 2e-3 * scale


def test_no_queries_give_no_scores(make_clusters):
    x, y = make_clusters(20, 8, 3)
    fitted = fit_centroids(x, y, metric="cosine", centre=True)
    assert fitted.scores(x[:0]).shape == (0, 3)


def test_wrong_arguments_are_refused(make_clusters):
    x, y = make_clusters(20, 8, 3)
    fitted = fit_centroids(x, y, metric="cosine", centre=False)
    with pytest.raises(ShapeError, match="same number of dimensions"):
        fitted.scores(x[:, :5])
    with pytest.raises(ShapeError, match="1 rows are zero, the first is row 1"):
        fitted.scores(np.array([np.ones(8), np.zeros(8)]))
    with pytest.raises(ShapeError, match="one label per row"):
        fit_centroids(x, y[1:], metric="cosine", centre=True)
    with pytest.raises(OptionError, match="Did you mean 'euclidean'"):
        CentroidOptions(metric="euclidian")
    x[2, 2] = np.inf
    with pytest.raises(ShapeError, match="the first is row 2"):
        fit_centroids(x, y, metric="cosine", centre=True)
