"""RSA, mutual neighbours and Procrustes: likeness of two sets of the same rows."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import procrustes
from scipy.spatial.distance import cdist, pdist
from scipy.stats import spearmanr

from featcache.errors import ShapeError
from featcache.probes.analysis.dissimilarity import correlation_distances, rank_pairs, rsa
from featcache.probes.analysis.mutual import mutual_neighbours, neighbour_lists
from featcache.probes.analysis.procrustes import procrustes_similarity


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    first = rng.normal(size=(60, 9)) + 0.5
    return first, np.c_[first[:, :4] ** 2, rng.normal(size=(60, 3))]


def test_rsa_is_spearman_of_correlation_distances(pair):
    expected = spearmanr(*(pdist(rows, "correlation") for rows in pair)).statistic
    assert rsa(*pair) == pytest.approx(expected, abs=1e-12)
    assert rsa(pair[0] * 100, pair[0].astype(np.float16)) == pytest.approx(1, abs=1e-4)


def test_rows_without_correlation_are_refused(pair):
    rows = pair[0].copy()
    rows[7] = 0.3
    with pytest.raises(ShapeError, match="1 rows are constant, the first is row 7"):
        correlation_distances(rows)
    rows[7] = 0
    with pytest.raises(ShapeError, match="the first is row 7"):
        correlation_distances(rows)
    with pytest.raises(ShapeError, match="3 rows and 2 dimensions"):
        correlation_distances(pair[0][:2])
    with pytest.raises(ShapeError, match="all 6 are equal"):
        rank_pairs(np.ones(6))
    with pytest.raises(ShapeError, match="got 60 and 59"):
        rsa(pair[0], pair[1][:59])


def test_mutual_neighbours_are_counted_as_sets(pair):
    lists = [neighbour_lists(rows, k=7) for rows in pair]
    expected = []
    for i in range(60):
        near = []
        for rows in pair:
            distances = cdist(rows[i : i + 1], rows, "cosine")[0]
            distances[i] = np.inf
            near.append(set(np.argsort(distances)[:7].tolist()))
        expected.append(len(near[0] & near[1]) / 7)
    found = mutual_neighbours(*lists)
    assert found.share == pytest.approx(np.mean(expected))
    assert found.chance == pytest.approx(7 / 59)
    assert found.corrected == pytest.approx((found.share - 7 / 59) / (1 - 7 / 59))
    assert 0 < found.corrected < 1


def test_unrelated_sets_share_what_chance_gives():
    rng = np.random.default_rng(0)
    lists = [neighbour_lists(rng.normal(size=(400, 8)), k=20) for _ in range(2)]
    found = mutual_neighbours(*lists)
    assert found.share == pytest.approx(20 / 399, abs=0.01)
    assert found.corrected == pytest.approx(0, abs=0.01)


def test_rotation_and_length_change_no_neighbour(pair):
    rng = np.random.default_rng(1)
    turned = pair[0] @ np.linalg.qr(rng.normal(size=(9, 9)))[0] * rng.uniform(1, 9, (60, 1))
    lists = [neighbour_lists(rows, k=5) for rows in (pair[0], turned)]
    assert mutual_neighbours(*lists).corrected == 1


def test_copies_are_neighbours_by_row_index():
    rows = np.ones((6, 2), np.float16)
    np.testing.assert_array_equal(
        neighbour_lists(rows, k=2), [[1, 2], [0, 2], [0, 1], [0, 1], [0, 1], [0, 1]]
    )


def test_neighbours_that_cannot_be_had_are_refused(pair):
    with pytest.raises(ShapeError, match="got k = 59 and 60 rows"):
        neighbour_lists(pair[0], k=59)
    with pytest.raises(ShapeError, match="non-zero norm"):
        neighbour_lists(np.zeros((5, 2)), k=1)
    lists = neighbour_lists(pair[0], k=3)
    with pytest.raises(ShapeError, match="the same rows and k"):
        mutual_neighbours(lists, lists[:9])


@pytest.mark.parametrize("rows", [60, 5])
def test_procrustes_leaves_what_scipys_leaves(pair, rows):
    first, second = pair[0][:rows], pair[1][:rows]
    padded = np.c_[second, np.zeros((rows, first.shape[1] - second.shape[1]))]
    disparity = procrustes(first, padded)[2]
    found = procrustes_similarity(first, second)
    assert 1 - found**2 == pytest.approx(disparity, abs=1e-9)
    assert procrustes_similarity(second, first) == pytest.approx(found, abs=1e-12)


def test_procrustes_of_a_turned_set_is_1(pair):
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(9, 9)))[0]
    turned = (pair[0] @ rotation * 3 + 7).astype(np.float32)
    assert procrustes_similarity(pair[0], turned) == pytest.approx(1, abs=1e-6)
    with pytest.raises(ShapeError, match="`second` must vary"):
        procrustes_similarity(pair[0], np.full((60, 2), 0.1))
    with pytest.raises(ShapeError, match="got 60 and 59"):
        procrustes_similarity(pair[0], pair[1][:59])
