from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA

from featcache.errors import OptionError, ShapeError
from featcache.probes.retrieval.whitening import fit_whitening

PLAIN = {"power": 0.5, "dimension": 0, "shrinkage": 0.0, "floor": 0.0}


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def rows(make_clusters):
    return make_clusters(200, 9, 4)[0].astype(np.float64)


@pytest.mark.parametrize("dimension", [0, 4])
def test_whitening_is_scikit_learns_up_to_sign(rows, dimension):
    pca = PCA(dimension or None, whiten=True).fit(unit(rows[:150]))
    got = fit_whitening(rows[:150], **{**PLAIN, "dimension": dimension}).apply("q", rows[150:])
    expected = pca.transform(unit(rows[150:]))
    np.testing.assert_allclose(np.abs(got), np.abs(expected), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(got @ got.T, expected @ expected.T, atol=1e-6)


def test_power_zero_is_a_rotation_about_the_mean(rows):
    white = fit_whitening(rows, **{**PLAIN, "power": 0.0})
    got, centred = white.apply("q", rows), unit(rows) - unit(rows).mean(axis=0)
    np.testing.assert_allclose(got @ got.T, centred @ centred.T, atol=1e-10)


def test_shrinkage_of_one_leaves_a_scale_and_a_floor_caps_the_gain(rows):
    whole = fit_whitening(rows, **{**PLAIN, "shrinkage": 1.0})
    gains = np.linalg.norm(whole.projection, axis=0)
    np.testing.assert_allclose(gains, gains[0])
    capped = np.linalg.norm(fit_whitening(rows, **{**PLAIN, "floor": 0.25}).projection, axis=0)
    assert capped.max() / capped.min() == pytest.approx(2.0)  # 0.25^-0.5


def test_fewer_rows_than_dimensions_keep_the_axes_that_vary(make_clusters):
    rows = make_clusters(7, 20, 2)[0]
    white = fit_whitening(rows, **PLAIN)
    assert white.projection.shape == (20, 6)
    np.testing.assert_allclose(np.cov(white.apply("q", rows).T), np.eye(6), atol=1e-6)
    with pytest.raises(OptionError, match="`dimension` must be at most 6"):
        fit_whitening(rows, **{**PLAIN, "dimension": 7})


def test_order_scale_and_half_precision_hardly_matter(rows):
    whole = fit_whitening(rows, **PLAIN).apply("q", rows)
    shuffled = np.random.default_rng(0).permutation(200)
    other = fit_whitening(rows[shuffled] * 50, **PLAIN).apply("q", rows)
    np.testing.assert_allclose(whole @ whole.T, other @ other.T, atol=1e-6)
    half = fit_whitening((rows * 3e3).astype(np.float16), **PLAIN).apply("q", rows)
    np.testing.assert_allclose(whole @ whole.T, half @ half.T, atol=0.3)


def test_unusable_rows_are_refused(rows):
    with pytest.raises(ShapeError, match="two different rows at least; got 3 rows"):
        fit_whitening(np.ones((3, 4)), **PLAIN)
    with pytest.raises(ShapeError, match="`q` must have the 9 dimensions"):
        fit_whitening(rows, **PLAIN).apply("q", rows[:, :5])
    zero = rows.copy()
    zero[3] = 0
    with pytest.raises(ShapeError, match="`whitening rows` must have rows of non-zero norm"):
        fit_whitening(zero, **PLAIN)
