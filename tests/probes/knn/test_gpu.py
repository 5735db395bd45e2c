from __future__ import annotations

import faiss
import numpy as np
import pytest
import torch

from featcache.probes.knn.neighbours import ExactSearch, nearest_rows


def whole_numbers(n, *, high=3, seed=0):
    """Few different rows, none zero: most similarities are tied."""
    rows = np.random.default_rng(seed).integers(-1, high, (n, 16)).astype(np.float16)
    rows[:, 0] = 1
    return rows


def on_the_cpu(bank, queries, k):
    return nearest_rows(bank, queries, k=k)[1]


class FakeGpuIndex:
    """FAISS's GPU index on the CPU: what it was asked for."""

    made: list[tuple[int, int]]

    def __init__(self, resources, dim, metric, config):
        self.index = faiss.IndexFlat(dim, metric)
        FakeGpuIndex.made.append((config.device, dim))

    def add(self, rows):
        self.index.add(rows)

    def search(self, queries, k):
        assert k <= 2048
        return self.index.search(queries, k)


@pytest.fixture
def two_gpus(monkeypatch):
    FakeGpuIndex.made = []
    for name, value in {
        "get_num_gpus": lambda: 2,
        "GpuIndexFlat": FakeGpuIndex,
        "GpuIndexFlatConfig": type("Config", (), {}),
        "StandardGpuResources": object,
    }.items():
        monkeypatch.setattr(faiss, name, value, raising=False)


def test_the_gpu_named_by_the_device_searches(two_gpus):
    bank, queries = whole_numbers(200), whole_numbers(9, seed=1)
    search = ExactSearch(bank, device="cuda:1")
    np.testing.assert_array_equal(search.nearest(queries, 5)[1], on_the_cpu(bank, queries, 5))
    assert FakeGpuIndex.made == [(1, 16)]
    assert search.notes == []
    ExactSearch(bank, device="cuda")
    assert FakeGpuIndex.made[-1] == (0, 16)


@pytest.mark.parametrize("k", [2040, 2048, 2100])
def test_more_neighbours_than_a_gpu_lists_are_searched_on_the_cpu(two_gpus, k):
    bank = np.random.default_rng(0).normal(size=(2500, 4)).astype(np.float32)
    search = ExactSearch(bank, device="cuda:0")
    got = search.nearest(bank[:5], k)[1]
    np.testing.assert_array_equal(got, on_the_cpu(bank, bank[:5], k))
    assert len(search.notes) == (k >= 2048)
    assert all("more than FAISS lists on a GPU" in note for note in search.notes)


def test_a_gpu_that_faiss_does_not_find_is_noted(monkeypatch):
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1, raising=False)
    bank = whole_numbers(20)
    search = ExactSearch(bank, device="cuda:1")
    assert search.notes == ["FAISS finds no GPU for 'cuda:1'; the CPU searched"]
    assert search.nearest(bank, 1)[1].shape == (20, 1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean"])
@pytest.mark.parametrize("bank_bytes", [1 << 30, 3000 * 64])
def test_a_gpu_finds_the_rows_that_the_cpu_finds(metric, bank_bytes):
    normalize = "l2" if metric == "cosine" else "none"
    bank, queries = whole_numbers(9000), whole_numbers(300, seed=1)
    cpu, gpu = (
        nearest_rows(
            bank,
            queries,
            k=200,
            metric=metric,
            normalize=normalize,
            device=device,
            bank_bytes=bank_bytes,
        )
        for device in ("cpu", "cuda")
    )
    np.testing.assert_array_equal(gpu[1], cpu[1])
    np.testing.assert_allclose(gpu[0], cpu[0], rtol=1e-5, atol=1e-5)
