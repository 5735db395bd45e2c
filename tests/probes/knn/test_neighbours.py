from __future__ import annotations

import tracemalloc
import weakref

import faiss
import numpy as np
import pytest
from scipy.stats import ortho_group
from sklearn.neighbors import NearestNeighbors

from featcache.errors import OptionError, ShapeError
from featcache.probes.knn import flat
from featcache.probes.knn.neighbours import ExactSearch, nearest_rows, own_rows

ROW = 4 * 16
"""Bytes of a prepared row of 16 dimensions."""


def unit(rows):
    wide = rows.astype(np.float64)
    return (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float32)


def brute(bank, queries, k, own=None, *, metric="cosine", normalize="l2"):
    """Score all pairs in float64 with one rounding, and sort by (score descending, row)."""
    bank, queries = (unit(x) if normalize == "l2" else x for x in (bank, queries))
    left, right = queries.astype(np.float64)[:, None], bank.astype(np.float64)[None]
    scores = (
        -np.sqrt(((left - right) ** 2).sum(2)) if metric == "euclidean" else (left * right).sum(2)
    ).astype(np.float32)
    if own is not None:
        scores[np.arange(len(own)), own] = -np.inf
    rows = np.lexsort((np.broadcast_to(np.arange(len(bank)), scores.shape), -scores), axis=1)
    return np.take_along_axis(scores, rows[:, :k], 1), rows[:, :k]


def whole_numbers(n, dim=16, *, high=3, seed=0):
    """Few different rows, none zero: most similarities are tied."""
    rows = np.random.default_rng(seed).integers(-1, high, (n, dim)).astype(np.float16)
    rows[:, 0] = 1
    return rows


@pytest.mark.parametrize("n_queries", [1, 30])
@pytest.mark.parametrize(
    ("metric", "normalize"),
    [("cosine", "l2"), ("dot", "l2"), ("dot", "none"), ("euclidean", "l2"), ("euclidean", "none")],
)
@pytest.mark.parametrize("bank_bytes", [1 << 30, 70 * ROW])
def test_rows_are_those_of_a_brute_force_in_every_space(
    metric, normalize, bank_bytes, n_queries, make_clusters
):
    bank, _ = make_clusters(300, 16, 5, spread=0.4)
    queries, _ = make_clusters(n_queries, 16, 5, spread=0.4, seed=1)
    expected = brute(bank, queries, 40, metric=metric, normalize=normalize)
    got = nearest_rows(
        bank, queries, k=40, metric=metric, normalize=normalize, bank_bytes=bank_bytes
    )
    np.testing.assert_array_equal(got[1], expected[1])
    np.testing.assert_allclose(got[0], expected[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("high", [2, 3])
@pytest.mark.parametrize("bank_bytes", [1 << 30, 90 * ROW, 7 * ROW])
@pytest.mark.parametrize("k", [1, 5, 60, 400])
def test_tied_whole_numbers_are_taken_by_row_index(high, bank_bytes, k):
    bank = whole_numbers(400, high=high)[np.random.default_rng(3).integers(0, 60, 400)]
    queries = np.concatenate([bank[:20], whole_numbers(10, high=high, seed=5)])
    expected = brute(bank, queries, k)
    got = nearest_rows(bank, queries, k=k, bank_bytes=bank_bytes)
    np.testing.assert_array_equal(got[1], expected[1])


@pytest.mark.parametrize("bank_bytes", [1 << 30, 90 * ROW])
@pytest.mark.parametrize(("metric", "normalize"), [("dot", "none"), ("euclidean", "none")])
def test_tied_whole_numbers_are_taken_by_row_index_in_raw_spaces(metric, normalize, bank_bytes):
    bank = whole_numbers(400, dim=6) + np.float16(20)
    queries = whole_numbers(30, dim=6, seed=5) + np.float16(20)
    expected = brute(bank, queries, 25, metric=metric, normalize=normalize)
    got = nearest_rows(
        bank, queries, k=25, metric=metric, normalize=normalize, bank_bytes=bank_bytes
    )
    np.testing.assert_array_equal(got[1], expected[1])
    np.testing.assert_array_equal(got[0], expected[0])


@pytest.mark.parametrize("bank_bytes", [1 << 30, 50 * 4 * 100])
def test_more_ties_of_different_rows_than_proposals_are_searched_again(bank_bytes):
    """All 100 unit vectors but one are orthogonal to each query: 99 ties of different rows."""
    bank = np.eye(100, dtype=np.float16)[np.random.default_rng(0).permutation(100)]
    expected = brute(bank, bank[:9], 5)
    got = nearest_rows(bank, bank[:9], k=5, bank_bytes=bank_bytes)
    np.testing.assert_array_equal(got[1], expected[1])
    np.testing.assert_array_equal(got[0], expected[0])


@pytest.mark.parametrize("bank_bytes", [1 << 30, 70 * 4 * 96])
@pytest.mark.parametrize("k", [1, 5])
def test_more_near_ties_than_proposals_are_searched_again(bank_bytes, k):
    """300 rows point one way up to float32 rounding: FAISS's order of them is noise."""
    rng = np.random.default_rng(0)
    way = unit(rng.normal(size=(1, 96)))
    bank = (way * rng.uniform(1, 2, size=(300, 1))).astype(np.float32)
    bank[:20] = way + 3 * unit(rng.normal(size=(20, 96)))  # each far from all others
    queries = bank[:20] + way
    got = nearest_rows(bank, queries, k=k, bank_bytes=bank_bytes)
    np.testing.assert_array_equal(got[1], brute(bank, queries, k)[1])
    own = np.arange(20)
    got = nearest_rows(bank, bank[:20], k=k, own_rows=own, bank_bytes=bank_bytes)
    np.testing.assert_array_equal(got[1], brute(bank, bank[:20], k, own)[1])


def test_float32_errors_of_faiss_do_not_decide(make_clusters):
    """Rows that differ by less than float32 products can tell keep their true order."""
    rng = np.random.default_rng(0)
    query = rng.normal(size=(1, 64)).astype(np.float32)
    step = rng.normal(size=64)
    shift = rng.permutation(np.arange(1, 201))[:, None] * 2e-4
    bank = (query + step * shift).astype(np.float32)
    expected = brute(bank, np.repeat(query, 25, axis=0), 50)
    got = nearest_rows(bank, np.repeat(query, 25, axis=0), k=50)
    np.testing.assert_array_equal(got[1], expected[1])


@pytest.mark.parametrize("kind", ["clusters", "whole numbers", "duplicates"])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_a_memory_map_in_blocks_gives_the_rows_of_the_whole_bank(
    tmp_path, make_clusters, kind, metric
):
    bank = make_clusters(500, 16, 5)[0].astype(np.float16)
    if kind == "whole numbers":
        bank = whole_numbers(500)
    if kind == "duplicates":
        bank = bank[np.random.default_rng(1).integers(0, 40, 500)]
    queries = bank[::7]
    own = np.arange(0, 500, 7)
    stored = np.memmap(tmp_path / "bank", bank.dtype, "w+", shape=bank.shape)
    stored[:] = bank
    stored.flush()
    mapped = np.memmap(tmp_path / "bank", bank.dtype, "r", shape=bank.shape)
    scores, rows = nearest_rows(bank, queries, k=30, own_rows=own, metric=metric)
    for block_rows in (499, 250, 33):
        got = nearest_rows(
            mapped, queries, k=30, own_rows=own, metric=metric, bank_bytes=ROW * block_rows
        )
        np.testing.assert_array_equal(got[1], rows)
        np.testing.assert_allclose(got[0], scores, atol=2e-6)
    np.testing.assert_array_equal(rows, brute(bank, queries, 30, own, metric=metric)[1])
    np.testing.assert_array_equal(mapped, bank)


def test_queries_in_blocks_find_what_they_find_together(monkeypatch):
    bank, queries = whole_numbers(200), whole_numbers(50, seed=1)
    expected = nearest_rows(bank, queries, k=9)
    for name in ("_QUERY_BYTES",):
        monkeypatch.setattr(flat, name, 4000)
    for name in ("_LIST_BYTES", "_SETTLE_BYTES", "_PAIR_BYTES"):
        monkeypatch.setattr(f"featcache.probes.knn.neighbours.{name}", 5000)
    got = nearest_rows(bank, queries, k=9, bank_bytes=60 * ROW)
    np.testing.assert_array_equal(got[1], expected[1])


def test_blocks_bound_the_memory(tmp_path):
    rows = np.random.default_rng(0).standard_normal((40_000, 64), np.float32).astype(np.float16)
    rows.tofile(tmp_path / "bank")
    mapped = np.memmap(tmp_path / "bank", np.float16, "r", shape=rows.shape)

    def peak(bank_bytes):
        tracemalloc.start()
        nearest_rows(mapped, rows[:10], k=5, bank_bytes=bank_bytes)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    nearest_rows(rows[:100], rows[:10], k=5)  # imports are no part of it
    assert peak(1 << 30) > 40_000 * 64 * 4
    assert peak(1 << 20) < 8 << 20


def test_one_block_at_a_time_is_in_memory(monkeypatch):
    alive, most = weakref.WeakSet(), []

    class Counted(flat._Block):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            alive.add(self)
            most.append(len(alive))

    monkeypatch.setattr(flat, "_Block", Counted)
    bank = whole_numbers(100)
    nearest_rows(bank, bank[:5], k=3, bank_bytes=20 * ROW)
    assert most == [1] * 5


@pytest.mark.parametrize("k", [1, 50])
def test_rows_and_scores_are_those_of_an_index_flat(make_clusters, k):
    bank, queries = make_clusters(500, 32, 4)[0], make_clusters(60, 32, 4, seed=1)[0]
    for metric, index in (("cosine", faiss.IndexFlatIP(32)), ("euclidean", faiss.IndexFlatL2(32))):
        index.add(unit(bank))
        expected, places = index.search(unit(queries), k)
        if metric == "euclidean":
            expected = -np.sqrt(np.maximum(expected, 0))
        scores, rows = nearest_rows(bank, queries, k=k, metric=metric)
        np.testing.assert_array_equal(rows, places)
        np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_distances_are_those_of_scikit_learn_far_from_the_origin(make_clusters):
    bank = make_clusters(200, 16, 4)[0].astype(np.float64) + 3000
    queries = make_clusters(20, 16, 4, seed=1)[0].astype(np.float64) + 3000
    queries[0] = bank[0]
    oracle = NearestNeighbors(n_neighbors=10, algorithm="kd_tree").fit(bank)
    expected, places = oracle.kneighbors(queries)
    scores, rows = nearest_rows(bank, queries, k=10, metric="euclidean", normalize="none")
    np.testing.assert_array_equal(rows, places)
    np.testing.assert_allclose(-scores, expected, rtol=1e-5)
    assert scores[0, 0] == 0


def test_scores_of_features_with_a_common_mean_are_not_rounded():
    rng = np.random.default_rng(0)
    bank = (5 + 0.02 * rng.standard_normal((2000, 32))).astype(np.float16)
    queries = (5 + 0.02 * rng.standard_normal((20, 32))).astype(np.float16)
    scores, rows = nearest_rows(bank, queries, k=10)
    assert scores.min() > 0.999  # float16 has one step of 0.0005 above
    np.testing.assert_array_equal(rows, brute(bank, queries, 10)[1])


@pytest.mark.parametrize("k", [1, 7])
def test_the_own_row_is_left_out_among_duplicates(k):
    bank = np.repeat(whole_numbers(12), 3, axis=0)[np.random.default_rng(0).permutation(36)]
    own = np.arange(36)
    own[::5] = -1
    got = nearest_rows(bank, bank, k=k, own_rows=own)[1]
    blocks = nearest_rows(bank, bank, k=k, own_rows=own, bank_bytes=5 * ROW)[1]
    expected = brute(bank, bank, k + 1)[1]
    for line, mine, wanted in zip(got, own, expected, strict=True):
        np.testing.assert_array_equal(line, wanted[wanted != mine][:k])
    np.testing.assert_array_equal(blocks, got)


def test_leave_one_out_among_equal_rows_finds_the_others():
    bank = np.ones((5, 3), dtype=np.float32)
    _, rows = nearest_rows(bank, bank, k=4, own_rows=np.arange(5))
    np.testing.assert_array_equal(rows, [[j for j in range(5) if j != i] for i in range(5)])


def test_own_rows_are_minus_one_where_the_id_is_absent():
    got = own_rows(np.array(["b", "a"]), np.array(["a", "c", "b", "0"]))
    np.testing.assert_array_equal(got, [1, -1, 0, -1])
    np.testing.assert_array_equal(own_rows(np.array([], str), np.array(["a"])), [-1])


def test_a_permutation_of_the_bank_permutes_the_rows(make_clusters):
    bank, queries = make_clusters(300, 16, 3)[0], make_clusters(20, 16, 3, seed=1)[0]
    order = np.random.default_rng(0).permutation(300)
    for metric, normalize in (("cosine", "l2"), ("euclidean", "none")):
        first = nearest_rows(bank, queries, k=20, metric=metric, normalize=normalize)[1]
        second = nearest_rows(bank[order], queries, k=20, metric=metric, normalize=normalize)[1]
        np.testing.assert_array_equal(order[second], first)


def test_a_rotation_and_a_scale_change_no_rows(make_clusters):
    bank, queries = make_clusters(300, 16, 3)[0], make_clusters(20, 16, 3, seed=1)[0]
    rotation = ortho_group.rvs(16, random_state=0) * 37
    for metric, normalize in (("cosine", "l2"), ("euclidean", "none"), ("dot", "none")):
        first = nearest_rows(bank, queries, k=20, metric=metric, normalize=normalize)[1]
        second = nearest_rows(
            bank @ rotation, queries @ rotation, k=20, metric=metric, normalize=normalize
        )[1]
        np.testing.assert_array_equal(second, first)


def test_negative_cosines_are_ranked():
    bank = -np.abs(np.random.default_rng(0).normal(size=(50, 8))).astype(np.float32)
    scores, rows = nearest_rows(bank, -bank[:10], k=50)
    assert scores.max() < 0
    np.testing.assert_array_equal(rows, brute(bank, -bank[:10], 50)[1])


def test_float16_rows_with_overflowing_norms_keep_their_direction():
    bank = np.diag([60000.0, 60000.0, 1e-7]).astype(np.float16) + np.float16(0)
    bank[0, 1] = 60000
    _, rows = nearest_rows(bank, np.eye(3, dtype=np.float16), k=1)
    np.testing.assert_array_equal(rows[:, 0], [0, 1, 2])
    big = np.full((3, 4), 60000, np.float16) * np.array([[1], [0.5], [-1]], np.float16)
    scores, rows = nearest_rows(big, big[:1], k=3, metric="dot", normalize="none")
    np.testing.assert_array_equal(rows, [[0, 1, 2]])
    np.testing.assert_allclose(scores[0], [1.44e10, 7.2e9, -1.44e10], rtol=1e-3)


def test_rows_in_column_order_and_odd_dimensions_are_fine():
    bank, queries = whole_numbers(60, dim=7), whole_numbers(9, dim=7, seed=1)
    expected = brute(bank, queries, 8)[1]
    got = nearest_rows(np.asfortranarray(bank), np.asfortranarray(queries), k=8)[1]
    np.testing.assert_array_equal(got, expected)


def test_no_queries_find_nothing(make_clusters):
    bank, _ = make_clusters(30, 8, 3)
    scores, rows = nearest_rows(bank, bank[:0], k=5)
    assert scores.shape == rows.shape == (0, 5)
    assert nearest_rows(bank, bank[:0], k=5, bank_bytes=256)[1].shape == (0, 5)


def test_one_bank_serves_many_searches(make_clusters):
    bank, _ = make_clusters(90, 8, 3)
    for bank_bytes in (1 << 20, 640):
        search = ExactSearch(bank, bank_bytes=bank_bytes)
        for queries in (bank[:5], bank[40:]):
            np.testing.assert_array_equal(
                search.nearest(queries, 4)[1], nearest_rows(bank, queries, k=4)[1]
            )


def test_wrong_arguments_are_refused(make_clusters):
    bank, _ = make_clusters(30, 8, 3)
    with pytest.raises(OptionError, match="between 1 and 30 .* got 31"):
        nearest_rows(bank, bank, k=31)
    with pytest.raises(OptionError, match="between 1 and 29 .* got 30"):
        nearest_rows(bank, bank, k=30, own_rows=np.arange(30))
    with pytest.raises(ShapeError, match=r"same number of dimensions; got shapes \(30, 8\)"):
        nearest_rows(bank, bank[:, :4], k=1)
    with pytest.raises(OptionError, match="'cosine', which is the product of unit rows"):
        nearest_rows(bank, bank, k=1, normalize="none")
    with pytest.raises(OptionError, match="`metric` must be one of cosine, dot, euclidean"):
        nearest_rows(bank, bank, k=1, metric="cos")
    with pytest.raises(ShapeError, match="at most 1e\\+15 in size"):
        nearest_rows(bank * 1e16, bank, k=1, metric="dot", normalize="none")


@pytest.mark.parametrize("bank_bytes", [1 << 20, 640])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_rows_without_a_direction_are_refused(make_clusters, bank_bytes, metric):
    bank, _ = make_clusters(30, 8, 3)
    bank[[3, 8]] = 0
    with pytest.raises(ShapeError, match="`bank` must have rows of non-zero norm.*2 rows are zero"):
        nearest_rows(bank, bank[:1], k=1, metric=metric, bank_bytes=bank_bytes)
    with pytest.raises(ShapeError, match="`queries` must have rows of non-zero norm"):
        nearest_rows(bank[:3], bank[3:4], k=1, metric=metric, bank_bytes=bank_bytes)
    assert nearest_rows(bank, bank[3:4], k=2, metric="dot", normalize="none")[1].tolist() == [
        [0, 1]
    ]
    bank[5] = np.nan
    with pytest.raises(ShapeError, match="`bank` must be finite"):
        nearest_rows(bank, bank[:1], k=1, metric="dot", normalize="none", bank_bytes=bank_bytes)
