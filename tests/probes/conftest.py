from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from featcache.store.table import Table

Make = Callable[..., Table]


@pytest.fixture(autouse=True, scope="package")
def _one_thread() -> Iterator[None]:
    """Tiny products on a busy machine wait for their threads longer than they compute."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(before)


def clusters(
    n: int, dim: int, n_classes: int, *, seed: int = 0, spread: float = 1.0, world: int = 7
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Gaussian classes whose means depend on `world` alone, so that splits share them."""
    means = np.random.default_rng(world).normal(size=(n_classes, dim))
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % n_classes
    rng.shuffle(labels)
    rows = means[labels] * spread + rng.normal(size=(n, dim)) + 0.5
    return rows.astype(np.float32), labels.astype(np.int64)


@pytest.fixture
def make_table() -> Make:
    def make(
        n: int, *, dim: int = 12, n_classes: int = 4, seed: int = 0, world: int = 7, name: str = "r"
    ) -> Table:
        rows, labels = clusters(n, dim, n_classes, seed=seed, world=world)
        ids = np.random.default_rng(seed).permutation(n)
        return Table(
            features=rows,
            labels=labels,
            ids=np.array([f"{name}{i:05d}" for i in ids]),
            class_names=tuple(f"class{c}" for c in range(n_classes)),
        )

    return make


@pytest.fixture
def make_clusters() -> Callable[..., tuple[NDArray[np.float32], NDArray[np.int64]]]:
    return clusters
