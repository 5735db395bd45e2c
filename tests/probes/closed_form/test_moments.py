from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import ortho_group

from featcache.errors import ShapeError
from featcache.probes.closed_form import moments
from featcache.probes.closed_form.moments import class_moments, streamed_moments


def brute(x, y):
    x = x.astype(np.longdouble)
    classes = np.unique(y)
    means = np.array([x[y == c].mean(axis=0) for c in classes])
    rest = x - means[np.searchsorted(classes, y)]
    apart = x - x.mean(axis=0)
    return means, rest.T @ rest, apart.T @ apart, ((rest**2).sum(axis=1) ** 2).sum()


def relative(got, expected):
    return float(np.abs(got - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_moments_are_those_of_brute_force(make_clusters, dtype):
    x, y = make_clusters(90, 7, 4)
    x, y = x.astype(dtype), np.array([0, 3, 4, 9])[y]
    got = class_moments(x, y)
    means, within, total, fourth = brute(x, y)
    np.testing.assert_array_equal(got.classes, [0, 3, 4, 9])
    np.testing.assert_array_equal(got.counts, np.bincount(y)[got.classes])
    np.testing.assert_allclose(got.means, means.astype(float), rtol=1e-12)
    np.testing.assert_allclose(got.mean, x.astype(float).mean(axis=0), rtol=1e-12)
    assert relative(got.within, within) < 1e-13
    assert relative(got.total, total) < 1e-13
    assert relative(got.between, total - within) < 1e-12
    assert got.fourth == pytest.approx(float(fourth), rel=1e-12)


def test_means_far_from_zero_and_far_apart_cost_no_digits(make_clusters):
    x, y = make_clusters(200, 6, 3)
    far = x.astype(np.float64) + 1e6 * y[:, None] + 1e7
    assert relative(class_moments(far, y).within, brute(far, y)[1]) < 1e-8
    plain = brute(x, y)[1]
    assert relative(class_moments(far, y).within, plain) < 1e-8


@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_float32_products_stay_within_a_millionth(make_clusters, monkeypatch, offset):
    x, y = make_clusters(6000, 24, 5)
    x = (x + np.float32(offset)).astype(np.float16)
    exact = class_moments(x, y)
    monkeypatch.setattr(moments, "_FLOAT64_VALUES", 0)
    monkeypatch.setattr(moments, "_PASS_BYTES", 8 * 24 * 2500)
    rounded = class_moments(x, y)
    assert exact.resolution == np.finfo(np.float64).eps
    assert rounded.resolution == np.finfo(np.float32).eps
    assert 0 < relative(rounded.within, exact.within) < 1e-6
    np.testing.assert_allclose(np.diag(rounded.within), np.diag(exact.within), rtol=1e-6)
    np.testing.assert_array_equal(rounded.within, rounded.within.T)


@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_large_float16_values_do_not_overflow(make_clusters, offset):
    x, y = make_clusters(50, 4, 2)
    huge = (x * 4000 + offset).astype(np.float16)
    assert relative(class_moments(huge, y).within, brute(huge, y)[1]) < 1e-12


def test_blocks_of_any_size_give_the_same(make_clusters):
    x, y = make_clusters(60, 5, 3)
    whole = class_moments(x, y)
    cuts = [0, 0, 1, 20, 20, 59, 60]
    pieces = [(x[a:b], y[a:b]) for a, b in itertools.pairwise(cuts)]
    got = streamed_moments(lambda: iter(pieces))
    np.testing.assert_allclose(got.within, whole.within, rtol=1e-12)
    np.testing.assert_allclose(got.means, whole.means, rtol=1e-12)
    assert got.fourth == pytest.approx(whole.fourth, rel=1e-12)


def test_the_order_of_rows_and_the_names_of_classes_change_nothing(make_clusters):
    x, y = make_clusters(60, 5, 3)
    order = np.random.default_rng(0).permutation(60)
    plain, other = class_moments(x, y), class_moments(x[order], 2 - y[order])
    np.testing.assert_allclose(other.within, plain.within, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(other.means[::-1], plain.means, rtol=1e-12)


def test_a_rotation_turns_the_scatter(make_clusters):
    x, y = make_clusters(60, 5, 3)
    turn = ortho_group.rvs(5, random_state=0)
    got = class_moments(x.astype(float) @ turn, y).within
    np.testing.assert_allclose(got, turn.T @ class_moments(x, y).within @ turn, atol=1e-11)


def test_repeated_rows_double_everything(make_clusters):
    x, y = make_clusters(40, 5, 3)
    one, two = class_moments(x, y), class_moments(np.tile(x, (2, 1)), np.tile(y, 2))
    np.testing.assert_allclose(two.within, 2 * one.within, rtol=1e-12, atol=1e-12)
    assert two.fourth == pytest.approx(2 * one.fourth)


def test_classes_of_one_row_have_no_scatter(make_clusters):
    x, _ = make_clusters(6, 5, 2)
    got = class_moments(x, np.arange(6))
    assert not got.within.any()
    assert got.fourth == 0


def test_wrong_blocks_are_refused(make_clusters):
    x, y = make_clusters(20, 5, 2)
    once = iter([(x, y)])
    with pytest.raises(ShapeError, match="got 20 rows, then 0 of the same classes"):
        streamed_moments(lambda: once)
    opened = []

    def grows():
        opened.append(1)
        return [(x, y + 3 * (len(opened) - 1))]

    with pytest.raises(ShapeError, match="must open the same rows at each call"):
        streamed_moments(grows)
    with pytest.raises(ShapeError, match="share their dimensions; got 5, then 4"):
        streamed_moments(lambda: [(x, y), (x[:, :4], y)])
    with pytest.raises(ShapeError, match="at least one row; got none"):
        streamed_moments(lambda: [(x[:0], y[:0])])
    with pytest.raises(ShapeError, match="one label per row"):
        class_moments(x, y[1:])
    with pytest.raises(ShapeError, match="class indices from 0; got -1"):
        class_moments(x, y - 1)
    x[7, 2] = np.inf
    with pytest.raises(ShapeError, match="NaN or infinity, the first is row 7"):
        class_moments(x, y)
