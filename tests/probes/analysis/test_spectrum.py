from __future__ import annotations

import numpy as np
import pytest

from featcache.errors import ShapeError
from featcache.probes.analysis.decomposition import decompose
from featcache.probes.analysis.spectrum import (
    alpha_req,
    covariance_effective_rank,
    dead_dimensions,
    participation_ratio,
    rank_me,
)


def entropy_rank(shares):
    return np.exp(-(shares * np.log(shares)).sum())


@pytest.mark.parametrize("shape", [(200, 15), (15, 200)])
def test_rank_me_uses_uncentred_singular_values(shape):
    rows = np.random.default_rng(0).normal(size=shape) + 1
    rows[:, 3] = 0
    values = np.linalg.svd(rows, compute_uv=False)
    expected = entropy_rank(values / values.sum() + 1e-7)
    assert rank_me(decompose(rows, centre=False)) == pytest.approx(expected, rel=1e-9)


def test_effective_rank_and_participation_ratio_use_the_covariance():
    rows = np.random.default_rng(0).normal(size=(200, 15)) * np.arange(1, 16) + 9
    variances = np.linalg.eigvalsh(np.cov(rows.T))
    centred = decompose(rows, centre=True)
    expected = entropy_rank(variances / variances.sum())
    assert covariance_effective_rank(centred) == pytest.approx(expected, rel=1e-9)
    expected = variances.sum() ** 2 / np.square(variances).sum()
    assert participation_ratio(centred) == pytest.approx(expected, rel=1e-9)


def test_rank_me_and_effective_rank_are_two_quantities():
    rows = np.random.default_rng(0).normal(size=(200, 15)) * np.arange(1, 16)
    one = rank_me(decompose(rows, centre=False))
    other = covariance_effective_rank(decompose(rows, centre=True))
    assert one - other > 1
    mean_dominates = decompose(rows + 1e4, centre=False)
    assert rank_me(mean_dominates) < 1.2
    assert covariance_effective_rank(decompose(rows + 1e4, centre=True)) == pytest.approx(other)


@pytest.mark.parametrize(("dim", "last"), [(150, 100), (40, 40)])
def test_alpha_req_is_the_weighted_slope_over_the_stated_range(dim, last):
    rows = np.random.default_rng(0).normal(size=(400, dim)) / np.arange(1, dim + 1) ** 0.6
    variances = np.linalg.eigvalsh(np.cov(rows.T))[::-1][10:last]
    index = np.arange(11, last + 1)
    slope = np.polyfit(np.log(index), np.log(variances), 1, w=1 / np.sqrt(index))[0]
    found, fitted = alpha_req(decompose(rows, centre=True))
    assert fitted == (11, last)
    assert found == pytest.approx(-slope, rel=1e-8)


def test_alpha_req_finds_a_power_law():
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(300, 121)) - 0)[0]
    axes = np.linalg.qr(axes - axes.mean(axis=0))[0][:, :120]  # centred and orthonormal
    rows = axes * np.arange(1, 121) ** -0.75
    assert alpha_req(decompose(rows, centre=True))[0] == pytest.approx(1.5, rel=1e-6)


def test_isotropic_features_have_full_rank_and_one_direction_has_rank_1():
    axes = np.r_[np.eye(8), -np.eye(8)].astype(np.float16)
    assert rank_me(decompose(axes, centre=False)) == pytest.approx(8, rel=1e-5)
    assert covariance_effective_rank(decompose(axes, centre=True)) == pytest.approx(8)
    assert participation_ratio(decompose(axes, centre=True)) == pytest.approx(8)
    line = np.outer(np.arange(10.0), np.ones(5))
    assert covariance_effective_rank(decompose(line, centre=True)) == pytest.approx(1)
    assert rank_me(decompose(line, centre=False)) == pytest.approx(1, abs=1e-4)


def test_rotation_and_scale_change_nothing():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(90, 14)) * np.arange(1, 15) + 2
    turned = rows @ np.linalg.qr(rng.normal(size=(14, 14)))[0] * 0.01
    for method, centre in (
        (rank_me, False),
        (covariance_effective_rank, True),
        (participation_ratio, True),
        (lambda one: alpha_req(one)[0], True),
    ):
        one, other = (method(decompose(x, centre=centre)) for x in (rows, turned))
        assert other == pytest.approx(one, rel=1e-8)


def test_a_dimension_is_dead_if_all_rows_have_one_value():
    rows = np.array([[0, 1, 2, 3], [0, 1, 5, 3.5]], np.float16)
    assert dead_dimensions(rows) == 0.5
    assert dead_dimensions(rows[:1]) == 1


def test_what_has_no_direction_is_refused():
    equal = np.ones((9, 20))
    for method in (covariance_effective_rank, participation_ratio):
        with pytest.raises(ShapeError, match="all rows equal"):
            method(decompose(equal, centre=True))
    with pytest.raises(ShapeError, match="RankMe needs a direction"):
        rank_me(decompose(np.zeros((9, 20)), centre=False))
    with pytest.raises(ShapeError, match="rank 12 at least; got rank 8"):
        alpha_req(decompose(np.random.default_rng(0).normal(size=(9, 20)), centre=True))
