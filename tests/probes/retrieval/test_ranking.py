from __future__ import annotations

import numpy as np
import pytest

from featcache.errors import OptionError, ShapeError
from featcache.probes.retrieval import search
from featcache.probes.retrieval.ranking import Ranked, rank_gallery


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


def columns(ranked, k):
    names = ("average_precision", "r_precision", "first_hit")
    hits = [ranked.columns[f"recall@{cut}"] * ranked.n_relevant for cut in k]
    return [ranked.n_relevant, *(ranked.columns[name] for name in names), *hits]


def test_rankings_are_scored_as_brute_force_does(make_clusters, monkeypatch):
    monkeypatch.setattr(search, "_BLOCK_BYTES", 9 * 40 * 80)  # nine queries a block
    rows, labels = make_clusters(80, 6, 5, spread=0.4)
    labels[::7] = -1
    labels[5] = 99  # the only one of its class
    names = np.random.default_rng(0).permutation(ids_of(80))
    ranked = rank_gallery(
        rows, labels, rows, labels, query_ids=names, gallery_ids=names, k=[1, 5, 500]
    )
    expected = brute(rows, labels, rows, labels, names, names, [1, 5, 500])
    for got, wanted in zip(columns(ranked, [1, 5, 500]), expected, strict=True):
        np.testing.assert_allclose(got, wanted)
    kept = np.flatnonzero((labels >= 0) & (labels != 99))
    np.testing.assert_array_equal(ranked.queries, kept)


def test_means_are_over_queries_and_class_means_over_classes():
    ranked = Ranked(
        queries=np.arange(4),
        n_relevant=np.ones(4, np.int64),
        columns={"average_precision": np.array([1, 0.5, 0.0, 0.25]), "first_hit": np.ones(4)},
    )
    assert ranked.means() == {"mean_average_precision": 0.4375}
    labels = np.array([5, 5, 9, 5])
    assert ranked.class_means(labels) == {
        "mean_average_precision": pytest.approx((1.75 / 3 + 0) / 2)
    }


def test_the_query_is_excluded_by_id_even_when_a_duplicate_ranks_first():
    rows = np.array([[1.0, 0], [1.0, 0], [0, 1.0], [0.1, 1.0]])
    labels, names = np.array([0, 1, 1, 0]), np.array(["d", "a", "c", "b"])
    ranked = rank_gallery(rows, labels, rows, labels, query_ids=names, gallery_ids=names, k=[1])
    expected = brute(rows, labels, rows, labels, names, names, [1])
    np.testing.assert_allclose(ranked.columns["average_precision"], expected[1])
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
        ).columns["first_hit"][0]

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
    np.testing.assert_array_equal(ranked.columns["first_hit"], 1)
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
    with pytest.raises(ShapeError, match="A mean needs at least one query"):
        alone.means()
    with pytest.raises(ShapeError, match="At least one query must have a relevant item"):
        alone.with_relevant()


def test_near_ties_keep_their_order_under_rotation_scale_and_blocks(make_clusters, monkeypatch):
    rows, labels = make_clusters(60, 8, 3)
    rows = np.repeat(rows.astype(np.float64), 2, axis=0)  # each row twice: exact ties
    labels, names = np.repeat(labels, 2), ids_of(120)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))[0] * 1e3

    def rank(features):
        return rank_gallery(
            features, labels, features, labels, query_ids=names, gallery_ids=names, k=[1, 3]
        ).columns

    whole = rank(rows)
    monkeypatch.setattr(search, "_BLOCK_BYTES", 1)  # one query a block: another kernel
    for other in (rank(rows), rank(rows @ rotation)):
        for name, column in whole.items():
            np.testing.assert_allclose(other[name], column, atol=1e-12, err_msg=name)


def test_one_gallery_item_and_one_class_are_fine(make_clusters):
    rows, _ = make_clusters(5, 4, 2)
    labels = np.zeros(5, np.int64)
    one = rank_gallery(
        rows, labels, rows[:1], labels[:1], query_ids=ids_of(5, "q"), gallery_ids=ids_of(1), k=[9]
    )
    assert one.means()["mean_average_precision"] == 1
    assert one.means()["precision@9"] == pytest.approx(1 / 9)
    same = rank_gallery(
        rows, labels, rows, labels, query_ids=ids_of(5), gallery_ids=ids_of(5), k=[1]
    )
    assert same.means()["mean_average_precision"] == 1


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
