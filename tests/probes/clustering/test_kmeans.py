from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from featcache.errors import OptionError, ShapeError
from featcache.probes.clustering import kmeans as module
from featcache.probes.clustering.kmeans import kmeans, lloyd, plus_plus_seeds


def tensors(rows):
    got = torch.tensor(rows, dtype=torch.float32)
    return got, got.double().square().sum(dim=1)


def runs(rows, n_clusters, *, seed=0, restarts=5, max_iter=100):
    return list(
        kmeans(
            rows,
            n_clusters=n_clusters,
            restarts=restarts,
            max_iter=max_iter,
            rng=np.random.default_rng(seed),
        )
    )


def inertia_of(rows, clusters):
    groups = [rows[clusters == c] for c in np.unique(clusters)]
    return sum(((g - g.mean(axis=0)) ** 2).sum() for g in groups)


def partition(clusters):
    return {tuple(np.flatnonzero(clusters == c)) for c in np.unique(clusters)}


def test_equal_seeds_end_where_scikit_learn_ends(make_clusters):
    rows, _ = make_clusters(150, 5, 6, spread=0.8)
    rows -= rows.mean(axis=0)
    for seed in range(4):
        seeds = np.random.default_rng(seed).choice(150, size=6, replace=False)
        expected = KMeans(
            6, init=rows[seeds], n_init=1, tol=0, max_iter=200, algorithm="lloyd"
        ).fit(rows)
        got = lloyd(*tensors(rows), torch.tensor(rows[seeds]), 200)
        assert got.is_converged
        assert got.inertia == pytest.approx(expected.inertia_, rel=1e-5)
        np.testing.assert_array_equal(got.clusters, expected.labels_)


def test_the_best_restart_is_as_good_as_scikit_learns(make_clusters):
    rows, _ = make_clusters(200, 8, 10)
    best = min(run.inertia for run in runs(rows, 10, restarts=10))
    assert best <= KMeans(10, n_init=10, random_state=0).fit(rows).inertia_ * 1.01


def test_inertia_is_that_of_the_clusters_and_blocks_change_nothing(make_clusters, monkeypatch):
    rows, _ = make_clusters(90, 6, 4)
    whole = runs(rows, 4)
    for run in whole:
        assert run.inertia == pytest.approx(inertia_of(rows.astype(float), run.clusters), rel=1e-5)
    monkeypatch.setattr(
        module, "row_blocks", lambda n, _: (slice(i, min(i + 7, n)) for i in range(0, n, 7))
    )
    for one, other in zip(whole, runs(rows, 4), strict=True):
        assert partition(one.clusters) == partition(other.clusters)


def test_separated_clusters_are_found_under_rotation_scale_and_offset(make_clusters):
    rows, labels = make_clusters(120, 6, 5, spread=20.0)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
    for moved in (rows, rows @ rotation * 1e-3, rows + 1000, rows.astype(np.float16)):
        best = min(runs(moved, 5, restarts=10), key=lambda run: run.inertia)
        assert partition(best.clusters) == partition(labels)


def test_float16_rows_do_not_overflow(make_clusters):
    rows, labels = make_clusters(60, 6, 3, spread=20.0)
    huge = (rows / np.abs(rows).max() * 6e4).astype(np.float16)
    best = min(runs(huge, 3, restarts=10), key=lambda run: run.inertia)
    assert partition(best.clusters) == partition(labels)
    assert np.isfinite(best.inertia)


def test_duplicates_leave_clusters_empty_instead_of_failing():
    rows = np.repeat(np.eye(3), 4, axis=0)
    for run in runs(rows, 8):
        assert run.inertia == pytest.approx(0, abs=1e-9)
        assert len(np.unique(run.clusters)) >= 3
    (one,) = runs(np.ones((5, 2)), 5, restarts=1)
    assert one.inertia == 0


def test_as_many_clusters_as_rows_and_a_single_one(make_clusters):
    rows, _ = make_clusters(12, 4, 3)
    (every,) = runs(rows, 12, restarts=1)
    assert len(np.unique(every.clusters)) == 12
    (one,) = runs(rows, 1, restarts=1)
    assert one.inertia == pytest.approx(inertia_of(rows.astype(float), np.zeros(12)), rel=1e-5)


def test_seeds_are_spread_and_drawn_by_the_generator_alone(make_clusters):
    rows, labels = make_clusters(100, 6, 5, spread=30.0)
    pair = tensors(rows)
    seeds = plus_plus_seeds(*pair, 5, np.random.default_rng(3))
    assert len(np.unique(labels[seeds])) == 5  # one in each far cluster
    again = plus_plus_seeds(*pair, 5, np.random.default_rng(3))
    np.testing.assert_array_equal(seeds, again)


def test_an_emptied_cluster_takes_the_farthest_row():
    rows = np.array([[0.0], [1.0], [10.0]])
    got = lloyd(*tensors(rows), torch.tensor([[0.5], [500.0]]), 50)
    assert partition(got.clusters) == {(0, 1), (2,)}


def test_a_limit_on_steps_is_told(make_clusters):
    rows, _ = make_clusters(200, 6, 3, spread=0.1)
    (run,) = runs(rows, 20, restarts=1, max_iter=1)
    assert (run.steps, run.is_converged) == (1, False)


def test_wrong_arguments_are_refused(make_clusters):
    rows, _ = make_clusters(10, 4, 2)
    with pytest.raises(OptionError, match=r"between 1 and 10 \(rows\); got 11"):
        runs(rows, 11)
    with pytest.raises(ShapeError, match="at least one of each"):
        runs(rows[:0], 1)
