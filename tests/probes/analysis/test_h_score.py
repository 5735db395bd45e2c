from __future__ import annotations

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf

from featcache.probes.analysis.decomposition import decompose
from featcache.probes.analysis.h_score import h_score, ledoit_wolf, shrunk_h_score


def by_definition(rows, labels, covariance):
    """Σ_c n_c d_cᵀ Σ⁻¹ d_c / N for a covariance that divides by N."""
    inverse, total = np.linalg.pinv(covariance), 0.0
    for c in np.unique(labels):
        apart = rows[labels == c].mean(axis=0) - rows.mean(axis=0)
        total += (labels == c).sum() * apart @ inverse @ apart
    return total / len(rows)


def test_the_h_score_is_the_sum_over_classes(make_clusters):
    rows, labels = make_clusters(90, 8, 4)
    wide = rows.astype(float)
    expected = by_definition(wide, labels, np.cov(wide.T, bias=True))
    assert h_score(decompose(rows, centre=True), labels) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("shape", [(90, 8), (20, 50)])
def test_the_shrunk_h_score_uses_sklearns_ledoit_wolf(make_clusters, shape):
    rows, labels = make_clusters(*shape, 4)
    wide = rows.astype(float)
    model = LedoitWolf().fit(wide)
    found, amount = shrunk_h_score(decompose(rows, centre=True), labels)
    assert amount == pytest.approx(model.shrinkage_, rel=1e-9)
    expected = (1 - amount) * by_definition(wide, labels, model.covariance_)
    assert found == pytest.approx(expected, rel=1e-9)


def test_the_h_score_does_not_change_with_an_affine_map(make_clusters):
    rows, labels = make_clusters(90, 8, 4)
    mixed = rows.astype(float) @ np.random.default_rng(0).normal(size=(8, 8)) * 1e3 - 5
    one, other = (h_score(decompose(x, centre=True), labels) for x in (rows, mixed))
    assert other == pytest.approx(one, rel=1e-9)


def test_the_shrunk_h_score_does_not_change_with_rotation_and_scale(make_clusters):
    rows, labels = make_clusters(90, 8, 4)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))[0]
    turned = rows.astype(float) @ rotation * 1e3 - 5
    one, other = (shrunk_h_score(decompose(x, centre=True), labels) for x in (rows, turned))
    assert other == pytest.approx(one, rel=1e-9)


def test_with_few_rows_the_h_score_is_the_classes_less_one_whatever_they_are():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(20, 50))
    labels = np.arange(20) % 4
    centred = decompose(noise, centre=True)
    assert h_score(centred, labels) == pytest.approx(3, abs=1e-9)
    assert shrunk_h_score(centred, labels)[0] < 1


def test_one_class_equal_rows_and_a_class_of_one_row():
    rows = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float16)
    centred = decompose(rows, centre=True)
    assert h_score(centred, np.full(9, 4)) == pytest.approx(0, abs=1e-12)
    equal = decompose(np.ones((9, 3)), centre=True)
    assert h_score(equal, np.arange(9)) == 0
    assert shrunk_h_score(equal, np.arange(9)) == (0.0, 1.0)
    assert 0 < h_score(centred, np.r_[np.zeros(8, np.int64), 1]) <= 1
    assert ledoit_wolf(decompose(rows[:, :1], centre=True)) == 1


def test_huge_float16_features_do_not_overflow(make_clusters):
    rows, labels = make_clusters(40, 5, 2)
    huge = (rows * 6000).astype(np.float16)
    found, amount = shrunk_h_score(decompose(huge, centre=True), labels)
    expected, _ = shrunk_h_score(decompose(rows, centre=True), labels)
    assert found == pytest.approx(expected, rel=1e-2)
    assert 0 < amount < 1
