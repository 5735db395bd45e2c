from __future__ import annotations

import numpy as np
import pytest
import torch

from featcache.errors import OptionError
from featcache.probes.retrieval.reranking import reranked_scorer


def dense(rows, n_queries, k1, k2, weight):
    """Zhong et al.'s distances by sets of rows and full matrices, queries first."""
    n = len(rows)
    squared = np.maximum(2 - 2 * rows @ rows.T, 0)
    scaled = squared / squared.max(axis=1, keepdims=True)
    near = np.argsort(np.round(squared, 9), axis=1, kind="stable")

    def mutual(i, k):
        return {j for j in near[i, : k + 1] if i in near[j, : k + 1]} | {i}

    weights = np.zeros((n, n))
    for i in range(n):
        first = mutual(i, k1)
        members = set(first)
        for j in first:
            half = mutual(j, round(k1 / 2))
            if len(half & first) > 2 / 3 * len(half):
                members |= half
        chosen = sorted(members)
        weights[i, chosen] = np.exp(-scaled[i, chosen])
        weights[i] /= weights[i].sum()
    weights = np.array([weights[near[i, :k2]].mean(axis=0) for i in range(n)])
    low = np.array([[np.minimum(a, b).sum() for b in weights] for a in weights])
    high = np.array([[np.maximum(a, b).sum() for b in weights] for a in weights])
    return ((1 - weight) * (1 - low / high) + weight * scaled)[:n_queries]


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize(("k1", "k2"), [(1, 1), (5, 1), (6, 3), (20, 6), (200, 300)])
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_distances_are_those_of_a_dense_computation(make_clusters, k1, k2, weight):
    rows = unit(make_clusters(70, 6, 4, spread=0.6)[0].astype(np.float64))
    scorer = reranked_scorer(
        torch.tensor(rows), np.arange(10), np.arange(10, 70), k1=k1, k2=k2, weight=weight
    )
    got = torch.cat([scorer(slice(0, 4)), scorer(slice(4, 10))]).numpy()
    expected = dense(rows, 10, min(k1, 69), k2, weight)[:, 10:]
    np.testing.assert_allclose(-got, expected, atol=1e-9)


def test_queries_that_are_gallery_rows_are_no_rows_more(make_clusters):
    rows = unit(make_clusters(40, 6, 3)[0].astype(np.float64))
    every = np.arange(40)
    scorer = reranked_scorer(torch.tensor(rows), every, every, k1=6, k2=2, weight=0.3)
    got = -scorer(slice(0, 40)).numpy()
    np.testing.assert_allclose(got, dense(rows, 40, 6, 2, 0.3), atol=1e-9)
    assert (got.argmin(axis=1) == every).all()


def test_duplicates_and_equal_rows_give_no_nan():
    same = torch.ones(8, 4, dtype=torch.float64) / 2
    scorer = reranked_scorer(same, np.arange(2), np.arange(8), k1=2, k2=3, weight=0.3)
    assert torch.isfinite(scorer(slice(0, 2))).all()


@pytest.mark.parametrize("wrong", [{"k1": 0}, {"k2": 0}, {"weight": 1.1}])
def test_wrong_arguments_are_refused(wrong):
    chosen = {"k1": 2, "k2": 1, "weight": 0.3, **wrong}
    with pytest.raises(OptionError, match="`k1` and `k2` must be at least 1 and `weight` within"):
        reranked_scorer(torch.eye(3).double(), np.arange(3), np.arange(3), **chosen)
