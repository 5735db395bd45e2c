from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp
from sklearn.covariance import EmpiricalCovariance
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from featcache.errors import ShapeError
from featcache.probes.ood.detectors import fit_detectors, logit_scores
from featcache.probes.ood.mahalanobis import fit_mahalanobis
from featcache.probes.ood.options import OodOptions

FLOOR = 2.0**-22


def test_logit_scores_are_those_of_scipy():
    logits = np.random.default_rng(0).normal(size=(50, 7)) * 30
    got = logit_scores(logits, temperature=2.0)
    np.testing.assert_allclose(got["msp"], log_softmax(logits, axis=1).max(axis=1), atol=1e-12)
    np.testing.assert_array_equal(got["maxlogit"], logits.max(axis=1))
    np.testing.assert_allclose(got["energy"], 2 * logsumexp(logits / 2, axis=1))


def test_msp_still_ranks_where_probabilities_saturate():
    got = logit_scores(np.array([[12.0, 0.0], [20.0, 0.0]]))["msp"]
    assert got[1] > got[0]
    assert np.float32(np.exp(got[1])) == 1.0


def test_mahalanobis_is_that_of_scikit_learn(make_clusters):
    x, y = make_clusters(300, 9, 4)
    queries, _ = make_clusters(40, 9, 4, seed=1)
    means = np.stack([x[y == c].astype(np.float64).mean(axis=0) for c in range(4)])
    oracle = EmpiricalCovariance(assume_centered=True).fit(x - means[y])
    expected = np.min([oracle.mahalanobis(queries - mean) for mean in means], axis=0)
    fitted = fit_mahalanobis(x, y, eigenvalue_floor=FLOOR)
    np.testing.assert_allclose(fitted.distances(queries), expected, rtol=1e-9)
    assert fitted.n_floored == 0


def test_mahalanobis_is_finite_with_fewer_rows_than_dimensions_and_dead_ones(make_clusters):
    x, y = make_clusters(30, 50, 3)
    x[:, 4] = 0
    x[:, 5] = x[:, 6]
    fitted = fit_mahalanobis(x, y, eigenvalue_floor=FLOOR)
    assert fitted.n_floored >= 20
    assert np.isfinite(fitted.distances(x)).all()
    far = fitted.distances(x + np.random.default_rng(0).normal(size=x.shape))
    assert far.min() > fitted.distances(x).max()


def test_mahalanobis_without_any_spread_is_the_euclidean_distance():
    x = np.repeat(np.array([[3.0, 0.0], [0.0, 4.0]]), 2, axis=0)
    fitted = fit_mahalanobis(x, np.array([0, 0, 1, 1]), eigenvalue_floor=FLOOR)
    np.testing.assert_allclose(fitted.distances(np.zeros((1, 2))), [9.0])


def test_mahalanobis_survives_means_far_from_zero(make_clusters):
    x, y = make_clusters(300, 9, 4)
    moved = x.astype(np.float64) + 1e4
    np.testing.assert_allclose(
        fit_mahalanobis(moved, y, eigenvalue_floor=FLOOR).distances(moved),
        fit_mahalanobis(x, y, eigenvalue_floor=FLOOR).distances(x),
        rtol=1e-6,
    )


def test_knn_is_the_squared_distance_to_the_kth_row_of_scikit_learn(make_clusters):
    x, y = make_clusters(200, 8, 3)
    queries, _ = make_clusters(50, 8, 3, seed=1, world=9)
    options = OodOptions(detectors=("knn",), k=20, k_class_share=100.0)
    got = fit_detectors(x, y, options, np.random.default_rng(0)).scores(queries)
    distances, _ = NearestNeighbors(n_neighbors=20).fit(normalize(x)).kneighbors(normalize(queries))
    assert list(got) == ["knn"]
    np.testing.assert_allclose(got["knn"], -(distances[:, -1] ** 2), atol=1e-6)


def test_every_detector_scores_its_own_training_world_higher(make_clusters):
    x, y = make_clusters(300, 16, 5, spread=2)
    inside, _ = make_clusters(100, 16, 5, seed=1, spread=2)
    outside, _ = make_clusters(100, 16, 5, seed=2, spread=2, world=8)
    fitted = fit_detectors(x, y, OodOptions(k=20), np.random.default_rng(0))
    assert fitted.details["head"]["source"] == "linear probe on the ID train rows"
    for name, scores in fitted.scores(inside).items():
        assert np.mean(scores) > np.mean(fitted.scores(outside)[name])


@pytest.mark.parametrize(("share", "k"), [(100.0, 30), (0.3, 3), (0.01, 1)])
def test_k_is_clamped_to_the_class_size_and_the_bank_and_recorded(make_clusters, share, k):
    x, y = make_clusters(30, 8, 3)
    options = OodOptions(detectors=("knn",), k=50, k_class_share=share)
    fitted = fit_detectors(x, y, options, np.random.default_rng(0))
    assert fitted.details["knn"] == {"k": k, "k_asked": 50}
    assert fitted.scores(x[:0])["knn"].shape == (0,)


def test_wrong_arrays_are_refused(make_clusters):
    x, y = make_clusters(30, 8, 3)
    with pytest.raises(ShapeError, match="one label per row"):
        fit_detectors(x, y[:-1], OodOptions(), np.random.default_rng(0))
    fitted = fit_detectors(x, y, OodOptions(), np.random.default_rng(0))
    with pytest.raises(ShapeError, match="same number of dimensions"):
        fitted.scores(x[:, :4])
