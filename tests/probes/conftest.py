from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from featcache.head_store import StoredHead
from featcache.probes import catalog
from featcache.probes.classification import Distribution
from featcache.probes.protocol import Protocol
from featcache.probes.tasks import TASKS, TaskInputs
from featcache.spec import BackboneIdentity
from featcache.store.table import Table

Make = Callable[..., Table]


@pytest.fixture(autouse=True, scope="package")
def _one_thread() -> Iterator[None]:
    """Products of test data are too small to part: threads would take longer to start than they."""
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


def shares_of(head, rows, n_classes):
    """What tasks make of a head's logits: probabilities, zero for classes that it never saw."""
    found = Distribution.of_logits(head.classes, head.logits(rows))
    full = np.zeros((len(rows), n_classes), dtype=np.float32)
    full[:, found.classes] = np.exp(found.log_probabilities)
    return full


def default_protocol(task: str) -> Protocol:
    """A task's default protocol; gradient descent with fewer steps than anybody would take."""
    protocol = catalog.default_protocol(task)
    if task != "gradient":
        return protocol
    return dataclasses.replace(protocol, options={**protocol.options, "iterations": 150})


def stored_head(kind):
    """A head on the tables' features, for the tasks that start from one."""
    weights = np.random.default_rng(3).normal(size=(12, 4))
    return StoredHead(
        kind="native" if kind == "any" else kind,
        weights=weights / np.linalg.norm(weights, axis=0),
        bias=np.zeros(4),
        class_names=tuple(f"class{c}" for c in range(4)),
        backbone=BackboneIdentity(name="b", architecture="a", weights="w"),
        tap="pooled",
        is_unit_norm=kind == "text",
        scale=10.0,
    )


def captions_of(table, each=2):
    """So many texts near each image."""
    rows = np.repeat(np.arange(len(table)), each)
    noise = np.random.default_rng(6).normal(size=(len(rows), table.features.shape[1]))
    return Table(
        features=table.features[rows] + noise,
        labels=np.full(len(rows), -1),
        ids=np.array([f"{table.ids[row]}#{i % each}" for i, row in enumerate(rows)]),
        class_names=(),
    )


@pytest.fixture
def inputs(make_table, request):
    asked = getattr(request.node, "callspec", None)
    task = asked.params.get("task") if asked else None
    needed = TASKS[task].needs_head if task else ""
    test = make_table(90, seed=2, name="test")
    return TaskInputs(
        head=stored_head(needed) if needed else None,
        train=make_table(160, seed=1, name="train"),
        test=test,
        texts=captions_of(test) if task and TASKS[task].needs_texts else None,
        ood={
            "near": make_table(60, seed=3, world=8, name="near"),
            "far": make_table(50, seed=4, world=9, name="far"),
        },
        seed=5,
    )
