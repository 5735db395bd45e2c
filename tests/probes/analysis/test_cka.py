from __future__ import annotations

import itertools

import numpy as np
import pytest

from featcache.errors import OptionError, ShapeError
from featcache.probes.analysis.cka import biased_linear_cka, hsic, linear_cka, minibatch_cka


def u_statistic(first, second):
    """HSIC as a mean over ordered quadruples of distinct rows (Song et al. 2012)."""
    k, l = first @ first.T, second @ second.T  # noqa: E741
    found = [
        k[i, j] * (l[i, j] + l[q, r] - 2 * l[i, q])
        for i, j, q, r in itertools.permutations(range(len(k)), 4)
    ]
    return np.mean(found)


def song(k, l):  # noqa: E741
    """Equation 5 of Song et al. 2012, on Gram matrices."""
    n = len(k)
    k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))  # noqa: E741
    total = np.trace(k @ l) + k.sum() * l.sum() / ((n - 1) * (n - 2))
    return (total - 2 / (n - 2) * (k @ l).sum()) / (n * (n - 3))


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    first = rng.normal(size=(60, 9)) + 3
    return first, np.c_[first[:, :4] ** 2, rng.normal(size=(60, 3))]


def test_hsic_is_the_u_statistic_over_quadruples():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(8, 3)), rng.normal(size=(8, 5))
    first, second = first - first.mean(axis=0), second - second.mean(axis=0)
    assert hsic(first, second) == pytest.approx(u_statistic(first, second), abs=1e-12)


@pytest.mark.parametrize("rows", [60, 6])
def test_cka_needs_no_gram_matrices_and_no_centring(pair, rows):
    first, second = pair[0][:rows], pair[1][:rows]
    k, l = first @ first.T, second @ second.T  # noqa: E741
    expected = song(k, l) / np.sqrt(song(k, k) * song(l, l))
    assert linear_cka(first, second) == pytest.approx(expected, rel=1e-9)


def test_independent_sets_have_cka_0_and_biased_cka_near_1():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(200, 2000)), rng.normal(size=(200, 2000))
    assert biased_linear_cka(first, second) == pytest.approx(0.91, abs=0.01)
    assert linear_cka(first, second) == pytest.approx(0, abs=0.02)


def test_biased_cka_is_a_ratio_of_norms(pair):
    first, second = (x - x.mean(axis=0) for x in pair)
    norm = np.linalg.norm
    expected = norm(first.T @ second) ** 2 / norm(first.T @ first) / norm(second.T @ second)
    assert biased_linear_cka(*pair) == pytest.approx(expected, rel=1e-12)


def test_rotation_scale_and_shift_change_nothing(pair):
    first, second = pair
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(9, 9)))[0]
    turned = first @ rotation * 1e-3 + 5
    assert linear_cka(turned, second) == pytest.approx(linear_cka(first, second), rel=1e-9)
    assert linear_cka(turned, first) == pytest.approx(1, rel=1e-9)
    assert linear_cka(second, first) == pytest.approx(linear_cka(first, second), rel=1e-12)


def test_minibatch_cka_sums_before_it_divides(pair):
    rng = np.random.default_rng(5)
    order = np.random.default_rng(5).permutation(60)
    sums = np.zeros(3)
    for number in range(3):
        part = order[number * 17 : number * 17 + 17]
        k, l = (x[part] @ x[part].T for x in pair)  # noqa: E741
        sums += [song(k, l), song(k, k), song(l, l)]
    found, n_batches = minibatch_cka(*pair, rng, batch_rows=17)
    assert n_batches == 3
    assert found == pytest.approx(sums[0] / np.sqrt(sums[1] * sums[2]), rel=1e-9)


def test_one_batch_is_full_cka(pair):
    found, n_batches = minibatch_cka(*pair, np.random.default_rng(0), batch_rows=256)
    assert n_batches == 1
    assert found == pytest.approx(linear_cka(*pair), rel=1e-9)


def test_huge_float16_features_do_not_overflow(pair):
    huge = (pair[0] * 8000).astype(np.float16)
    assert linear_cka(huge, pair[0]) == pytest.approx(1, abs=1e-4)


def test_what_cannot_be_compared_is_refused(pair):
    with pytest.raises(ShapeError, match="the same rows of both sets, 4 at least; got 60 and 59"):
        linear_cka(pair[0], pair[1][:59])
    with pytest.raises(ShapeError, match="4 at least; got 3 and 3"):
        linear_cka(pair[0][:3], pair[1][:3])
    for method in (linear_cka, biased_linear_cka):
        with pytest.raises(ShapeError, match="must vary from row to row"):
            method(pair[0], np.full((60, 2), 0.1))
    with pytest.raises(ShapeError, match="`second` must be finite"):
        linear_cka(pair[0], np.full((60, 2), np.nan))
    with pytest.raises(OptionError, match="`batch_rows` must be at least 4"):
        minibatch_cka(*pair, np.random.default_rng(0), batch_rows=3)
