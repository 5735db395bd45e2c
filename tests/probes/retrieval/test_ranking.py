from __future__ import annotations

import numpy as np
import pytest

from featcache.errors import OptionError, ShapeError
from featcache.probes.retrieval import ranking as retrieval
from featcache.probes.retrieval.ranking import rank_gallery


def ids_of(n, prefix="i"):
    return np.array([f"{prefix}{i:04d}" for i in range(n)])


def brute(queries, query_labels, gallery, labels, query_ids, ids, k):
    rows = []
    for q, label, name in zip(queries.astype(float), query_labels, query_ids, strict=True):
        cosine = gallery.astype(float) @ q / np.linalg.norm(gallery.astype(float), axis=1)
        ranking = sorted(range(len(gallery)), key=lambda i: (-round(cosine[i], 9), ids[i]))
        hits = [labels[i] == label >= 0 for i in ranking if ids[i] != name]
        total = sum(hits)
        if total:
            places = [i + 1 for i, hit in enumerate(hits) if hit]
            average = sum((j + 1) / place for j, place in enumerate(places)) / total
            cuts = [sum(hits[:cut]) for cut in k]
            rows.append((total, average, sum(hits[:total]) / total, places[0], *cuts))
    return np.array(rows, dtype=float).T


def columns(ranked):
    return [
        ranked.n_relevant,
        ranked.average_precision,
        ranked.r_precision,
        ranked.first_hit,
        *ranked.hits.values(),
    ]


def test_rankings_are_scored_as_brute_force_does(make_clusters, monkeypatch):
    monkeypatch.setattr(
        retrieval, "row_blocks", lambda n, _: (slice(i, i + 9) for i in range(0, n, 9))
    )
    rows, labels = make_clusters(80, 6, 5, spread=0.4)
    labels[::7] = -1
    labels[5] = 99  # the only one of its class
    names = np.random.default_rng(0).permutation(ids_of(80))
    ranked = rank_gallery(
        rows, labels, rows, labels, query_ids=names, gallery_ids=names, k=[1, 5, 500]
    )
    expected = brute(rows, labels, rows, labels, names, names, [1, 5, 500])
    for got, wanted in zip(columns(ranked), expected, strict=True):
        np.testing.assert_allclose(got, wanted)
    kept = np.flatnonzero((labels >= 0) & (labels != 99))
    np.testing.assert_array_equal(ranked.queries, kept)


def test_the_means_follow_their_definitions():
    gallery = np.array([[1, 0.3], [1, 0.2], [1, 0.1], [0, 1]])
    ranked = rank_gallery(
        np.array([[1.0, 0.0]]),
        np.array([0]),
        gallery,
        np.array([0, 0, 1, 0]),  # ranking: row 2 (miss), 1 (hit), 0 (hit), 3 (hit)
        query_ids=np.array(["q"]),
        gallery_ids=ids_of(4),
        k=[1, 2, 3],
    )
    assert ranked.means() == pytest.approx(
        {
            "mean_average_precision": (1 / 2 + 2 / 3 + 3 / 4) / 3,
            "r_precision": 2 / 3,
            "mean_reciprocal_rank": 1 / 2,
            "hit_rate@1": 0,
            "recall@1": 0,
            "hit_rate@2": 1,
            "recall@2": 1 / 3,
            "hit_rate@3": 1,
            "recall@3": 2 / 3,
        }
    )


def test_the_query_is_excluded_by_id_even_when_a_duplicate_ranks_first():
    rows = np.array([[1.0, 0], [1.0, 0], [0, 1.0], [0.1, 1.0]])
    labels, names = np.array([0, 1, 1, 0]), np.array(["d", "a", "c", "b"])
    ranked = rank_gallery(rows, labels, rows, labels, query_ids=names, gallery_ids=names, k=[1])
    expected = brute(rows, labels, rows, labels, names, names, [1])
    np.testing.assert_allclose(ranked.average_precision, expected[1])
    assert ranked.n_relevant.tolist() == [1, 1, 1, 1]


def test_ties_are_ordered_by_gallery_id():
    gallery, labels = np.ones((3, 4)), np.array([1, 1, 0])

    def first_hit(names):
        return rank_gallery(
            np.ones((1, 4)),
            np.array([0]),
            gallery,
            labels,
            query_ids=np.array(["q"]),
            gallery_ids=np.array(names),
            k=[1],
        ).first_hit[0]

    assert first_hit(["a", "b", "c"]) == 3
    assert first_hit(["c", "b", "a"]) == 1


def test_own_ids_stay_in_another_gallery_if_asked(make_clusters):
    rows, labels = make_clusters(20, 6, 2)
    names = ids_of(20)
    ranked = rank_gallery(
        rows,
        labels,
        rows,
        labels,
        query_ids=names,
        gallery_ids=names,
        k=[1],
        exclude_own_id=False,
    )
    np.testing.assert_array_equal(ranked.first_hit, 1)
    np.testing.assert_array_equal(ranked.n_relevant, 10)


def test_no_queries_or_no_relevant_items_leave_nothing_to_average(make_clusters):
    rows, labels = make_clusters(10, 4, 2)
    names = ids_of(10)
    empty = rank_gallery(
        rows[:0], labels[:0], rows, labels, query_ids=names[:0], gallery_ids=names, k=[1]
    )
    assert len(empty.queries) == 0
    alone = rank_gallery(
        rows, np.arange(10), rows, np.arange(10), query_ids=names, gallery_ids=names, k=[1]
    )
    with pytest.raises(ShapeError, match="at least one|At least one query"):
        alone.means()


def test_wrong_arguments_are_refused(make_clusters):
    rows, labels = make_clusters(10, 4, 2)
    names = ids_of(10)

    def rank(queries=rows, gallery=rows, k=(1,), query_labels=labels):
        return rank_gallery(
            queries, query_labels, gallery, labels, query_ids=names, gallery_ids=names, k=k
        )

    with pytest.raises(OptionError, match="numbers from 1"):
        rank(k=[0])
    with pytest.raises(ShapeError, match="must have one length"):
        rank(query_labels=labels[:-1])
    with pytest.raises(ShapeError, match="same number of dimensions"):
        rank(queries=rows[:, :3])
    zero = rows.copy()
    zero[4] = 0
    with pytest.raises(ShapeError, match="`gallery` must have rows of non-zero norm"):
        rank(gallery=zero)
    with pytest.raises(ShapeError, match="`queries` must have rows of non-zero norm"):
        rank(queries=zero)
