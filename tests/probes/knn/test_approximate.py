from __future__ import annotations

import faiss
import numpy as np
import pytest

from featcache.errors import OptionError, ShapeError
from featcache.probes.knn import approximate
from featcache.probes.knn.approximate import ApproximateSearch, IndexOptions, recall_vs_flat
from featcache.probes.knn.neighbours import nearest_rows

SMALL = {"nlist": 8, "nprobe": 3, "pq_m": 4, "pq_bits": 4}
KINDS = ["ivf", "hnsw", "pq", "ivfpq"]
SPACES = [("cosine", "l2"), ("dot", "none"), ("euclidean", "l2"), ("euclidean", "none")]


@pytest.fixture
def rows(make_clusters):
    return make_clusters(400, 8, 4, spread=0.5)[0]


@pytest.mark.parametrize(("metric", "normalize"), SPACES)
def test_an_ivf_that_looks_into_all_cells_is_exact(rows, metric, normalize):
    options = IndexOptions(kind="ivf", nlist=8, nprobe=8)
    search = ApproximateSearch(rows, options, metric=metric, normalize=normalize)
    own = np.arange(60)
    scores, found = search.nearest(rows[:60], 9, own)
    expected = nearest_rows(rows, rows[:60], k=9, own_rows=own, metric=metric, normalize=normalize)
    np.testing.assert_array_equal(found, expected[1])
    np.testing.assert_allclose(scores, expected[0], rtol=1e-4, atol=1e-4)
    assert recall_vs_flat(search, rows[:60], [1, 9], np.random.default_rng(0), own) == {1: 1, 9: 1}


@pytest.mark.parametrize("kind", KINDS)
def test_recall_is_the_share_of_the_exact_rows(rows, kind):
    search = ApproximateSearch(rows, IndexOptions(kind=kind, ef_search=1, hnsw_m=2, **SMALL))
    got = recall_vs_flat(search, rows[:50] + 1, [1, 20], np.random.default_rng(0))
    found = search.nearest(rows[:50] + 1, 20)[1]
    exact = nearest_rows(rows, rows[:50] + 1, k=20)[1]
    for k in (1, 20):
        hits = [len(set(a[:k]) & set(b[:k])) / k for a, b in zip(found, exact, strict=True)]
        assert got[k] == pytest.approx(np.mean(hits))
    assert 0 < got[20] <= 1
    assert kind == "hnsw" or got[20] < 1
    more = recall_vs_flat(search, rows[:50] + 1, [900], np.random.default_rng(0))
    assert more[900] == pytest.approx(1)  # 400 of 400


@pytest.mark.parametrize("kind", KINDS)
def test_one_seed_builds_one_index(rows, kind):
    options = IndexOptions(kind=kind, **SMALL)
    threads = faiss.omp_get_max_threads()
    first, second = (ApproximateSearch(rows, options, seed=3) for _ in range(2))
    for a, b in zip(first.nearest(rows, 10), second.nearest(rows, 10), strict=True):
        np.testing.assert_array_equal(a, b)
    assert faiss.omp_get_max_threads() == threads


@pytest.mark.parametrize("kind", ["ivf", "pq", "ivfpq"])
def test_another_seed_builds_another_index(rows, kind):
    options = IndexOptions(kind=kind, **SMALL)
    first, second = (ApproximateSearch(rows, options, seed=seed) for seed in (0, 1))
    assert not np.array_equal(first.nearest(rows, 50)[0], second.nearest(rows, 50)[0])


def test_queries_whose_cells_hold_too_few_rows_are_searched_exactly(rows):
    search = ApproximateSearch(rows, IndexOptions(kind="ivf", nlist=40, nprobe=1))
    scores, found = search.nearest(rows[:20], 300)
    np.testing.assert_array_equal(found, nearest_rows(rows, rows[:20], k=300)[1])
    assert search.n_completed == 20
    recall_vs_flat(search, rows[:20], [300], np.random.default_rng(0))
    assert search.n_completed == 20
    assert np.isfinite(scores).all()


def test_recall_is_measured_on_a_sample(rows, monkeypatch):
    monkeypatch.setattr(approximate, "RECALL_SAMPLE", 7)
    search = ApproximateSearch(rows, IndexOptions(kind="pq", **SMALL))
    seen = []
    plain = search.nearest
    monkeypatch.setattr(
        search, "nearest", lambda queries, k, own: (seen.append(len(queries)), plain(queries, k))[1]
    )
    recall_vs_flat(search, rows, [3], np.random.default_rng(0))
    assert seen == [7]


def test_no_queries_find_nothing(rows):
    search = ApproximateSearch(rows, IndexOptions(kind="hnsw"))
    assert search.nearest(rows[:0], 3)[1].shape == (0, 3)


def test_an_index_that_does_not_fit_the_bank_is_refused(rows):
    with pytest.raises(ShapeError, match="'ivf' must have at least 500 rows .* got 400"):
        ApproximateSearch(rows, IndexOptions(kind="ivf", nlist=500))
    with pytest.raises(ShapeError, match="'pq' must have at least 512 rows"):
        ApproximateSearch(rows, IndexOptions(kind="pq", pq_bits=9))
    with pytest.raises(OptionError, match="`pq_m` must divide the 8 dimensions .* got 3"):
        ApproximateSearch(rows, IndexOptions(kind="pq", pq_m=3, pq_bits=4))
    with pytest.raises(OptionError, match="Did you mean 'hnsw'"):
        IndexOptions(kind="hnws")
    with pytest.raises(OptionError, match="`nprobe` must be at least 1"):
        IndexOptions(nprobe=0)
    search = ApproximateSearch(rows, IndexOptions(kind="hnsw"))
    with pytest.raises(OptionError, match="between 1 and 400 .* got 401"):
        search.nearest(rows[:2], 401)
    with pytest.raises(ShapeError, match="same number of dimensions"):
        search.nearest(rows[:2, :4], 3)
