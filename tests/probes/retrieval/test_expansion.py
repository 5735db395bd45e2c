from __future__ import annotations

import numpy as np
import pytest

from featcache.errors import OptionError
from featcache.probes.retrieval import search
from featcache.probes.retrieval.expansion import expand
from featcache.probes.retrieval.row_lists import RowLists, own_row, rows_of_ids
from featcache.probes.retrieval.search import cosine_scorer


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def dense(queries, gallery, n, alpha, hidden=()):
    moved = []
    for number, query in enumerate(unit(queries)):
        similarity = unit(gallery) @ query
        order = [i for i in np.argsort(-similarity, kind="stable") if (number, i) not in hidden]
        added = sum(max(similarity[i], 0) ** alpha * unit(gallery)[i] for i in order[:n])
        moved.append(query + added)
    return unit(np.array(moved))


@pytest.mark.parametrize(("n", "alpha"), [(1, 0.0), (4, 3.0), (4, 2.5), (500, 1.0)])
def test_a_query_moves_to_its_neighbours_by_powers_of_similarity(make_clusters, n, alpha):
    rows = make_clusters(60, 5, 3)[0].astype(np.float64) - 0.5  # negative similarities too
    hidden = {(0, 3), (0, 4), (7, 1)}
    names = np.array([f"g{i:02d}" for i in range(50)])
    lists = rows_of_ids([[names[i] for q, i in hidden if q == row] for row in range(10)], names)
    got = expand(cosine_scorer(rows[:10], rows[10:], "cpu"), (lists,), neighbours=n, alpha=alpha)
    expected = dense(rows[:10], rows[10:], min(n, 50), alpha, hidden)
    if alpha:  # 0^0 would count negative neighbours in the dense sum
        np.testing.assert_allclose(got, expected, atol=1e-10)
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1)


def test_negative_neighbours_add_nothing():
    query, gallery = np.array([[1.0, 0.0]]), np.array([[-1.0, 0.1], [-1.0, -0.2]])
    for alpha in (0.0, 2.5, 3.0):
        got = expand(cosine_scorer(query, gallery, "cpu"), (), neighbours=2, alpha=alpha)
        np.testing.assert_allclose(got, query)


def test_a_row_with_nothing_to_find_stays_and_ties_go_by_row(monkeypatch):
    monkeypatch.setattr(search, "_BLOCK_BYTES", 1)
    names = np.array(["a", "b", "c"])
    gallery = np.array([[1.0, 0.0], [0.6, 0.8], [0.6, -0.8]])
    scorer = cosine_scorer(gallery, gallery, "cpu")
    own = own_row(names, names)
    got = expand(scorer, (own,), neighbours=1, alpha=1.0)
    np.testing.assert_allclose(got[0], unit(np.array([[1 + 0.36, 0.48]]))[0])  # b before c
    every = RowLists(pool=np.arange(3), starts=np.zeros(3, np.intp), sizes=np.full(3, 3, np.intp))
    np.testing.assert_allclose(expand(scorer, (every,), neighbours=1, alpha=1.0), gallery)


def test_wrong_arguments_are_refused():
    scorer = cosine_scorer(np.ones((1, 2)), np.ones((2, 2)), "cpu")
    with pytest.raises(OptionError, match="`neighbours` must be at least 1"):
        expand(scorer, (), neighbours=0, alpha=1.0)
    with pytest.raises(OptionError, match="`alpha` at least 0"):
        expand(scorer, (), neighbours=1, alpha=-1.0)
