from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from featcache.errors import ShapeError
from featcache.head_store import StoredHead
from featcache.probes.catalog import default_protocol
from featcache.probes.fewshot.lp_plus_plus import fit_lp_plus_plus
from featcache.probes.fewshot.tip_adapter import TipAdapter, tune
from featcache.probes.run import run_task
from featcache.probes.tasks import TaskInputs
from featcache.spec import BackboneIdentity


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.fixture
def inputs(make_table):
    train = make_table(160, seed=1, name="train")
    test = make_table(90, seed=2, name="test")
    means = np.stack([train.features[train.labels == c].mean(axis=0) for c in range(4)])
    noise = np.random.default_rng(0).normal(size=means.shape)
    head = StoredHead(
        kind="text",
        weights=unit(means + 2 * noise)[[2, 0, 3, 1]].T,
        bias=np.zeros(4),
        class_names=("class2", "class0", "class3", "class1"),
        backbone=BackboneIdentity(name="b", architecture="a", weights=""),
        tap="projection",
        is_unit_norm=True,
        scale=20.0,
    )
    return TaskInputs(train=train, test=test, head=head, seed=5)


def of(task, **options):
    protocol = default_protocol(task)
    return replace(protocol, options={**protocol.options, **options})


SMALL = {"shots": [1, 4], "primary_shots": 4, "n_draws": 2}


def test_zero_shot_is_the_nearest_text_by_class_name(inputs):
    outcome = run_task(default_protocol("zeroshot"), inputs)
    text = inputs.head.weights[:, [1, 3, 0, 2]]
    cosines = unit(inputs.test.features.astype(np.float64)) @ text
    np.testing.assert_array_equal(outcome.predictions["prediction"], cosines.argmax(axis=1))
    shares = torch.softmax(torch.tensor(20 * cosines), dim=1).numpy()
    np.testing.assert_allclose(outcome.predictions["confidence"], shares.max(axis=1), rtol=1e-5)
    assert outcome.metrics["top1"] > 0.4


def test_zero_shot_among_a_subset_leaves_other_rows_out(inputs):
    outcome = run_task(of("zeroshot", classes=["class1", "class3"]), inputs)
    kept = np.isin(inputs.test.labels, [1, 3])
    assert outcome.n == kept.sum()
    assert set(outcome.predictions["prediction"]) <= {1, 3}


def test_the_cache_model_is_the_published_formula():
    rng = np.random.default_rng(0)
    keys, rows = unit(rng.normal(size=(6, 5))), unit(rng.normal(size=(3, 5)))
    text, labels = rng.normal(size=(5, 2)), np.array([0, 1, 0, 1, 1, 0])
    adapter = TipAdapter(keys=keys, values=np.eye(2)[labels], text=text)
    got = adapter.logits(rows, alpha=1.3, beta=2.0)
    for row, line in zip(rows, got, strict=True):
        for c in range(2):
            votes = sum(np.exp(-2.0 * (1 - row @ key)) for key in keys[labels == c])
            assert line[c] == pytest.approx(row @ text[:, c] + 1.3 * votes)


def test_tuning_takes_the_best_pair_nearest_to_the_text():
    rng = np.random.default_rng(0)
    keys, rows = unit(rng.normal(size=(8, 4))), unit(rng.normal(size=(40, 4)))
    labels = rng.integers(0, 2, 40)
    adapter = TipAdapter(
        keys=keys, values=np.eye(2)[np.arange(8) % 2], text=rng.normal(size=(4, 2))
    )
    alphas, betas = [0.1, 1.0, 3.0], [0.5, 5.0]
    alpha, beta, best = tune(adapter, rows, labels, alphas=alphas, betas=betas)
    tried = {
        (b, a): (adapter.logits(rows, alpha=a, beta=b).argmax(axis=1) == labels).mean()
        for a in alphas
        for b in betas
    }
    assert best == max(tried.values())
    assert (beta, alpha) == min(pair for pair, right in tried.items() if right == best)


def test_without_shots_weight_tip_adapter_is_the_text(inputs):
    outcome = run_task(of("tipadapter", **SMALL, alpha=1e-12, alpha_range=[1e-12, 1e-12]), inputs)
    zero = run_task(default_protocol("zeroshot"), inputs)
    assert outcome.metrics["top1"] == zero.metrics["top1"]
    assert outcome.metrics["training_free.top1@4"] == zero.metrics["top1"]


@pytest.mark.parametrize("task", ["tipadapter", "lpplusplus"])
def test_shots_help_the_text(inputs, task):
    outcome = run_task(of(task, **SMALL), inputs)
    zero = run_task(default_protocol("zeroshot"), inputs).metrics["top1"]
    assert outcome.metrics["top1"] > zero
    assert len(outcome.details["chosen"]["4"]) == 2
    assert 0 <= outcome.details["chosen"]["4"][0]["held_out_top1"] <= 1


def test_lp_plus_plus_descends_by_the_gradient_that_autograd_gives():
    rng = np.random.default_rng(0)
    rows, text = unit(rng.normal(size=(12, 5))), unit(rng.normal(size=(3, 5))).T
    labels = np.arange(12) % 3
    held = rows[:1], np.array([9])  # never right, so the start is kept
    start = fit_lp_plus_plus(rows, labels, text, held, epochs=5, alpha_every=2, momentum=0.0)
    assert start.epoch == 0
    sums = rows.T @ np.eye(3)[labels]
    np.testing.assert_allclose(start.weights, sums + start.blend * text)
    x, y, t = torch.tensor(rows), torch.tensor(labels), torch.tensor(text)
    w = torch.tensor(sums, requires_grad=True)
    a = torch.tensor(start.blend, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(x @ w + a * (x @ t), y)
    grad_w, grad_a = torch.autograd.grad(loss, (w, a))
    step_w = 4 * 12 / np.linalg.eigvalsh(rows.T @ rows)[-1]
    step_a = 12 / (4 * ((rows @ text) ** 2).sum(axis=0).max())
    expected = w - step_w * grad_w + (a - step_a * grad_a) * t
    right = (rows @ expected.detach().numpy()).argmax(axis=1)  # rows that one step gets right
    moved = rows @ (sums + start.blend * text)
    changed = np.flatnonzero(right != moved.argmax(axis=1))
    if not len(changed):
        changed = np.array([0])
    held = rows[changed], right[changed]
    one = fit_lp_plus_plus(rows, labels, text, held, epochs=1, alpha_every=1, momentum=0.0)
    if one.epoch == 1:
        np.testing.assert_allclose(one.weights, expected.detach().numpy(), rtol=1e-9)
    else:
        np.testing.assert_allclose(one.weights, start.weights)


def test_heads_that_do_not_fit_are_refused(inputs):
    with pytest.raises(ShapeError, match="needs a 'text' classifier; got none"):
        run_task(default_protocol("zeroshot"), replace(inputs, head=None))
    native = replace(inputs.head, kind="native")
    with pytest.raises(ShapeError, match="'text' classifier; got one of kind 'native'"):
        run_task(default_protocol("tipadapter"), replace(inputs, head=native))
    narrow = replace(inputs.head, weights=inputs.head.weights[:5])
    with pytest.raises(ShapeError, match="the head reads 5 dimensions and test has 12"):
        run_task(default_protocol("zeroshot"), replace(inputs, head=narrow))
    renamed = replace(inputs.head, class_names=("class2", "class0", "class3", "other"))
    with pytest.raises(ShapeError, match="1 of 4 are not: 'class1'"):
        run_task(default_protocol("zeroshot"), replace(inputs, head=renamed))
    with pytest.raises(ShapeError, match="41 train rows for 41 shots"):
        run_task(of("lpplusplus", shots=[37], primary_shots=37), inputs)
