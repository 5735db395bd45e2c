from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from featcache.errors import ShapeError
from featcache.head_store import StoredHead
from featcache.probes.catalog import default_protocol
from featcache.probes.fewshot.lp_plus_plus import descend, fit_lp_plus_plus
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


@pytest.fixture
def shots():
    """Twelve shots of unequal classes, the last without one, and held-out rows; unit rows."""
    rng = np.random.default_rng(0)
    rows, held = unit(rng.normal(size=(12, 5))), unit(rng.normal(size=(40, 5)))
    labels = np.array([0, 1, 2, 0, 1, 0, 0, 1, 2, 0, 0, 1])
    return rows, labels, unit(rng.normal(size=(4, 5))).T, held, rng.integers(0, 4, 40)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_lp_plus_plus_descends_by_the_gradient_that_autograd_gives(shots, momentum):
    rows, labels, text = (torch.tensor(part) for part in shots[:3])
    w = torch.stack([rows[labels == c].sum(dim=0) for c in range(4)], dim=1).requires_grad_()
    b = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    own = [(rows[labels == c] @ text[:, c]).mean() for c in range(3)]
    a = torch.full((4,), 250 * float(sum(own)) / 3, dtype=torch.float64, requires_grad=True)
    step_w = 4 * 12 / np.linalg.eigvalsh(rows.T @ rows)[-1]
    step_a = 12 / (4 * max(float((rows @ text[:, c]).square().sum()) for c in range(4)))
    by_w = torch.optim.SGD([w, b], lr=step_w, momentum=momentum)
    by_a = torch.optim.SGD([a], lr=step_a)
    path = descend(rows, labels, text, epochs=25, alpha_every=10, momentum=momentum)
    blends = []
    for epoch, got in enumerate(path):
        for mine, theirs in ((got.weights, w), (got.bias, b), (got.blend, a)):
            torch.testing.assert_close(mine, theirs.detach(), rtol=1e-9, atol=1e-9)
        blends.append(got.blend)
        by_w.zero_grad()
        by_a.zero_grad()
        torch.nn.functional.cross_entropy(rows @ w + b + a * (rows @ text), labels).backward()
        by_w.step()
        if (epoch + 1) % 10 == 0:
            by_a.step()
    assert len(blends) == 26
    moved = [epoch for epoch in range(1, 26) if not torch.equal(blends[epoch - 1], blends[epoch])]
    assert moved == [10, 20]


def test_lp_plus_plus_keeps_the_earliest_of_its_best_epochs(shots):
    rows, labels, text, held, truth = shots
    given = {"epochs": 30, "alpha_every": 3, "momentum": 0.9}
    path = list(descend(*map(torch.tensor, (rows, labels, text)), **given))
    models = [one.weights.numpy() + one.blend.numpy() * text for one in path]
    biases = [one.bias.numpy() for one in path]
    right = [
        ((held @ w + b).argmax(axis=1) == truth).mean() for w, b in zip(models, biases, strict=True)
    ]
    fitted = fit_lp_plus_plus(rows, labels, text, (held, truth), **given)
    first = right.index(max(right))
    assert 0 < first < 30  # so that neither end would do
    assert (fitted.epoch, fitted.held_out) == (first, max(right))
    np.testing.assert_allclose(fitted.weights, models[first], rtol=1e-12)
    np.testing.assert_allclose(fitted.bias, biases[first], rtol=1e-12)
    never = fit_lp_plus_plus(rows, labels, text, (held, np.full(40, 9)), **given)
    assert (never.epoch, never.held_out) == (0, 0)
    np.testing.assert_allclose(never.weights, models[0], rtol=1e-12)


def test_unlabelled_rows_are_counted_beside_a_subset_of_classes(inputs):
    labels = inputs.test.labels.copy()
    labels[[3, 8, 20]] = -1
    some = replace(inputs, test=replace(inputs.test, labels=labels))
    outcome = run_task(of("zeroshot", classes=["class1", "class3"]), some)
    assert outcome.details["dropped_unlabelled_test"] == 3
    assert outcome.n == np.isin(labels, [1, 3]).sum()


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
