"""TransRate, GBC, PARC, SFDA and N-LEEP against brute force, and what they do not change with."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import eigh
from scipy.spatial.distance import pdist
from scipy.special import softmax
from scipy.stats import spearmanr
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import StandardScaler

from featcache.errors import OptionError, ShapeError
from featcache.probes.analysis.bhattacharyya import gaussian_overlap
from featcache.probes.analysis.coding_rate import trans_rate
from featcache.probes.analysis.decomposition import decompose
from featcache.probes.analysis.dissimilarity import parc
from featcache.probes.analysis.fisher import sfda
from featcache.probes.analysis.mixture import n_leep


def rate(rows, epsilon):
    gram = np.eye(rows.shape[1]) + rows.T @ rows / (len(rows) * epsilon)
    return 0.5 * np.log(np.linalg.det(gram))


@pytest.fixture
def data(make_clusters):
    rows, labels = make_clusters(90, 6, 3, spread=0.7)
    labels[:20] = 0  # unequal classes
    return rows.astype(float), labels


SCORES = {
    "trans_rate": lambda x, y: trans_rate(x, y, epsilon=1e-4),
    "gbc_diagonal": lambda x, y: gaussian_overlap(x, y, covariance="diagonal"),
    "gbc_spherical": lambda x, y: gaussian_overlap(x, y, covariance="spherical"),
    "parc": lambda x, y: parc(decompose(x, centre=True), y, dims=4),
    "sfda": lambda x, y: sfda(decompose(x, centre=True), y)[0],
}


def test_trans_rate_weighs_classes_by_their_rows(data):
    rows, labels = data
    z = rows - rows.mean(axis=0)
    z /= np.sqrt(np.square(z).sum(axis=1).mean())
    expected = rate(z, 1e-4)
    for c in range(3):
        expected -= (labels == c).mean() * rate(z[labels == c], 1e-4)
    assert trans_rate(rows, labels, epsilon=1e-4) == pytest.approx(expected, rel=1e-10)


def test_trans_rate_is_the_same_from_either_gram_matrix():
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(8, 20)), np.arange(8) % 2
    z = rows - rows.mean(axis=0)
    z /= np.sqrt(np.square(z).sum(axis=1).mean())
    expected = rate(z, 0.1) - (rate(z[::2], 0.1) + rate(z[1::2], 0.1)) / 2
    assert trans_rate(rows, labels, epsilon=0.1) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("covariance", ["diagonal", "spherical"])
def test_gbc_sums_ordered_pairs_of_gaussians(data, covariance):
    rows, labels = data
    expected = 0.0
    for i in range(3):
        for j in range(3):
            a, b = rows[labels == i], rows[labels == j]
            va, vb = a.var(axis=0), b.var(axis=0)
            if covariance == "spherical":
                va, vb = np.full(6, va.mean()), np.full(6, vb.mean())
            v = (va + vb) / 2
            distance = (np.square(a.mean(axis=0) - b.mean(axis=0)) / v).sum() / 8
            distance += np.log(v / np.sqrt(va * vb)).sum() / 2
            expected -= np.exp(-distance) if i != j else 0
    assert gaussian_overlap(rows, labels, covariance=covariance) == pytest.approx(expected)


def test_gbc_floors_variances_so_that_its_scale_matters(data):
    rows, labels = data
    one = gaussian_overlap(rows, labels, covariance="diagonal")
    assert gaussian_overlap(rows * 100, labels, covariance="diagonal") == pytest.approx(one)
    tiny = gaussian_overlap(rows * 1e-4, labels, covariance="diagonal")
    assert tiny == pytest.approx(-6, abs=1e-3)  # all variances are the floor, all classes alike


def test_gbc_of_classes_of_one_row_far_apart_is_0():
    rows = np.array([[0.0, 0.0], [9.0, 9.0]], np.float16)
    assert gaussian_overlap(rows, np.array([0, 1]), covariance="diagonal") == pytest.approx(0)


def test_parc_is_spearman_of_two_distance_vectors(data):
    rows, labels = data
    reduced = StandardScaler().fit_transform(PCA(4, svd_solver="full").fit_transform(rows))
    of_labels = 1 - np.corrcoef(np.eye(3)[labels])[np.triu_indices(90, 1)].round(9)
    expected = 100 * spearmanr(pdist(reduced, "correlation"), of_labels).statistic
    assert SCORES["parc"](rows, labels) == pytest.approx(expected, abs=1e-9)


def sfda_as_published(rows, labels):
    """TencentARC/SFDA in a few lines: eigenvectors of the pencil, ConfMix, again."""
    counts = np.bincount(labels)

    def classify(x, shrinkage):
        means = np.stack([x[labels == c].mean(axis=0) for c in range(len(counts))])
        within = np.cov((x - means[labels]).T, bias=True)
        if shrinkage is None:
            shrinkage = max(np.exp(-5 * np.linalg.eigvalsh(within)[-1]), 1e-10)
        unit = np.trace(within) / len(within) * np.eye(len(within))
        shrunk = (1 - shrinkage) * within + shrinkage * unit
        vectors = eigh(np.cov(x.T, bias=True) - shrunk, shrunk)[1]
        weights = means @ vectors @ vectors.T
        bias = -0.5 * np.diag(means @ weights.T) + np.log(counts / len(x))
        return softmax(x @ weights.T + bias, axis=1), means, shrinkage

    first, means, shrinkage = classify(rows, None)
    own = softmax(first, axis=1)[np.arange(len(rows)), labels][:, None]
    others = (means.sum(axis=0) - means) / (len(means) - 1)
    final, _, _ = classify(own * rows + (1 - own) * others[labels], shrinkage)
    return final[np.arange(len(rows)), labels].mean()


@pytest.mark.parametrize(("scale", "rows"), [(1.0, 90), (0.1, 90), (1.0, 5)])
def test_sfda_is_the_published_classifier(data, scale, rows):
    rows, labels = data[0][-rows:] * scale, data[1][-rows:]
    labels = np.unique(labels, return_inverse=True)[1]
    found, shrinkage = sfda(decompose(rows, centre=True), labels)
    assert found == pytest.approx(sfda_as_published(rows, labels), abs=1e-9)
    assert 1e-10 < shrinkage < 1


def test_sfda_depends_on_the_scale_of_the_features(data):
    rows, labels = data
    assert abs(SCORES["sfda"](rows, labels) - SCORES["sfda"](rows * 0.1, labels)) > 1e-3


def test_sfda_does_not_change_its_input(data):
    rows, labels = data
    before = rows.copy()
    centred = decompose(rows, centre=True)
    one = sfda(centred, labels)
    assert sfda(centred, labels) == one
    np.testing.assert_array_equal(rows, before)


def test_n_leep_is_leep_of_a_mixture_on_principal_components(data):
    rows, labels = data
    found, _ = n_leep(
        decompose(rows, centre=True),
        labels,
        np.random.default_rng(3),
        components_per_class=2,
        variance=0.8,
    )
    reduced = PCA(0.8, svd_solver="full").fit_transform(rows)
    seed = int(np.random.default_rng(3).integers(2**31))
    theta = GaussianMixture(6, random_state=seed).fit(reduced).predict_proba(reduced)
    conditional = np.stack([theta[labels == c].sum(axis=0) for c in range(3)]) / theta.sum(axis=0)
    expected = np.log((theta * conditional[labels]).sum(axis=1)).mean()
    assert found == pytest.approx(expected, abs=1e-6)


def test_n_leep_refuses_too_few_rows_and_too_much_work(data):
    centred = decompose(data[0], centre=True)
    rng = np.random.default_rng(0)
    with pytest.raises(ShapeError, match="2 rows for each of 60 components; got 90"):
        n_leep(centred, data[1], rng, components_per_class=20, variance=0.8)
    with pytest.raises(ShapeError, match=r"at most 1e\+01 operations; it would take"):
        n_leep(centred, data[1], rng, components_per_class=1, variance=0.8, operations=10)


@pytest.mark.parametrize("name", SCORES)
def test_the_order_of_rows_and_the_numbers_of_classes_change_nothing(data, name):
    rows, labels = data
    score, order = SCORES[name], np.random.default_rng(0).permutation(90)
    one = score(rows, labels)
    assert score(rows[order], labels[order]) == pytest.approx(one, rel=1e-8)
    assert score(rows, 11 - 2 * labels) == pytest.approx(one, rel=1e-8)


@pytest.mark.parametrize("name", SCORES)
def test_a_shift_changes_nothing(data, name):
    rows, labels = data
    assert SCORES[name](rows + 7, labels) == pytest.approx(SCORES[name](rows, labels), rel=1e-7)


@pytest.mark.parametrize("name", ["trans_rate", "gbc_spherical", "sfda"])
def test_a_rotation_changes_nothing(data, name):
    rows, labels = data
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
    one = SCORES[name](rows, labels)
    assert SCORES[name](rows @ rotation, labels) == pytest.approx(one, rel=1e-8)


def test_a_rotation_changes_diagonal_gbc(data):
    rows, labels = data[0] * np.arange(1, 7), data[1]
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
    one = SCORES["gbc_diagonal"](rows, labels)
    assert abs(SCORES["gbc_diagonal"](rows @ rotation, labels) - one) > 1e-3


def test_trans_rate_does_not_change_with_scale_and_does_with_other_maps(data):
    rows, labels = data
    one = SCORES["trans_rate"](rows, labels)
    assert SCORES["trans_rate"](rows * 1e-3, labels) == pytest.approx(one, rel=1e-9)
    assert abs(SCORES["trans_rate"](rows * np.arange(1, 7), labels) - one) > 1e-4


@pytest.mark.parametrize("name", SCORES)
def test_separated_classes_score_higher(make_clusters, name):
    found = []
    for spread in (0.2, 3.0):
        rows, labels = make_clusters(90, 6, 3, spread=spread)
        found.append(SCORES[name](rows, labels))
    assert found[0] < found[1]


@pytest.mark.parametrize("name", SCORES)
def test_float16_and_constant_columns_are_fine(data, name):
    rows, labels = data
    given = np.c_[rows, np.full(90, 500.0)].astype(np.float16)
    expected = SCORES[name](given.astype(float), labels)
    assert SCORES[name](given, labels) == expected
    assert np.isfinite(expected)


@pytest.mark.parametrize("name", ["gbc_diagonal", "parc", "sfda"])
def test_one_class_is_refused(data, name):
    with pytest.raises(ShapeError, match="two classes at least"):
        SCORES[name](data[0], np.zeros(90, np.int64))


def test_trans_rate_of_one_class_or_equal_rows_is_0(data):
    assert SCORES["trans_rate"](data[0], np.full(90, 3)) == pytest.approx(0, abs=1e-12)
    assert SCORES["trans_rate"](np.ones((90, 4)), data[1]) == 0


@pytest.mark.parametrize("name", SCORES)
def test_a_class_of_one_row_and_fewer_rows_than_dimensions_are_fine(name):
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(9, 30)), np.array([0, 0, 0, 0, 1, 1, 1, 1, 2])
    assert np.isfinite(SCORES[name](rows, labels))


def test_rows_that_are_their_class_mean_have_no_sfda():
    rows = np.array([[0.0, 1.0], [0.0, 1.0], [2.0, 1.0]])
    with pytest.raises(ShapeError, match="Rows must differ within a class"):
        sfda(decompose(rows, centre=True), np.array([0, 0, 1]))


def test_epsilon_must_be_positive(data):
    with pytest.raises(OptionError, match="`epsilon` must be positive"):
        trans_rate(*data, epsilon=0.0)
