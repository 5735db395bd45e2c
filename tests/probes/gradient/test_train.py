"""Heads trained together against plain torch layers and optimisers, one by one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from featcache.errors import ShapeError
from featcache.probes.gradient import heads as heads_module
from featcache.probes.gradient import rows as rows_module
from featcache.probes.gradient.heads import Head, HeadGroup, columns_of
from featcache.probes.gradient.optimisers import make_optimiser
from featcache.probes.gradient.options import GradientOptions
from featcache.probes.gradient.rows import RowReader, batches
from featcache.probes.gradient.schedule import Plan
from featcache.probes.gradient.search import grid
from featcache.probes.gradient.train import train_heads

SEED = 11
DINOV2 = GradientOptions(inputs=("cls1", "cls1+mean", "cls4", "cls4+mean"), iterations=60, batch=32)
MAE = GradientOptions(
    optimiser="lars",
    prepare="batchnorm",
    learning_rates=(0.1, 1.0),
    weight_decays=(0.0, 0.1),
    batch=32,
    iterations=0,
    epochs=12,
    warmup_epochs=2,
    drop_last=True,
)
CLIP = GradientOptions(
    optimiser="adamw",
    prepare="l2",
    learning_rates=(0.1,),
    reference_batch=0,
    weight_decays=(0.0, 1e-3, 0.1, 1.0),
    start="uniform",
    batch=32,
    iterations=0,
    epochs=6,
)
SGD_DECAY = dataclasses.replace(DINOV2, inputs=("all",), weight_decays=(1e-4, 0.1))
RECIPES = pytest.mark.parametrize(
    "options", [DINOV2, SGD_DECAY, MAE, CLIP], ids=["dinov2", "sgd-decay", "mae", "clip-benchmark"]
)


@pytest.fixture
def data(make_clusters):
    rows, labels = make_clusters(90, 15, 4, spread=0.4)
    return rows, labels


def train(data, options, heads=None, *, seed=SEED):
    rows, labels = data
    reader = RowReader(
        rows, np.arange(len(rows)), is_unit_norm=options.prepare == "l2", device="cpu"
    )
    return train_heads(reader, labels, 4, heads or grid(options), options, seed)


class PlainLars(torch.optim.Optimizer):
    """LARS as mae writes it, from its description alone."""

    def __init__(self, parameters, lr, weight_decay):
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                change = p.grad.clone()
                if p.ndim > 1:
                    change += group["weight_decay"] * p
                    if p.norm() > 0 and change.norm() > 0:
                        change *= 0.001 * p.norm() / change.norm()
                buffer = self.state[p].setdefault("buffer", torch.zeros_like(p))
                buffer.mul_(0.9).add_(change)
                p -= group["lr"] * buffer


def plain(data, options, head) -> Iterator[tuple[torch.nn.Module, torch.nn.Linear]]:
    """Train one head with torch's own layers, and return (preparation, linear layer)."""
    rows, labels = (torch.from_numpy(array) for array in data)
    columns = columns_of(head.input, rows.shape[1])
    width = columns.stop - columns.start
    start = HeadGroup([head], width, 4, options, SEED, "cpu").head(0)
    linear = torch.nn.Linear(width, 4)
    linear.weight.data = torch.from_numpy(start[:-1].T.copy()).float()
    linear.bias.data = torch.from_numpy(start[-1]).float()
    norm = torch.nn.Identity()
    if options.prepare == "l2":
        rows = torch.nn.functional.normalize(rows, dim=1)
    elif options.prepare == "batchnorm":
        norm = torch.nn.BatchNorm1d(width, affine=False, eps=1e-6)
    rate = head.learning_rate * (options.batch / 256 if options.reference_batch else 1)
    kinds = {
        "sgd": lambda p: torch.optim.SGD(p, rate, momentum=0.9, weight_decay=head.weight_decay),
        "adamw": lambda p: torch.optim.AdamW(p, rate, weight_decay=head.weight_decay),
        "lars": lambda p: PlainLars(p, rate, head.weight_decay),
    }
    optimiser = kinds[options.optimiser](linear.parameters())
    plan = Plan.of(options, len(rows))
    for factor, picked in zip(plan.rate_factors(), batches(plan, SEED + 1), strict=True):
        optimiser.param_groups[0]["lr"] = rate * factor
        optimiser.zero_grad()
        logits = linear(norm(rows[picked][:, columns]))
        torch.nn.functional.cross_entropy(logits, labels[picked]).backward()
        optimiser.step()
    return norm, linear


def error(got, expected):
    return np.abs(got - expected).max() / np.abs(expected).max()


@RECIPES
def test_every_head_has_the_weights_of_a_plain_torch_layer_trained_alone(data, options):
    trained = train(data, options)
    for number, head in enumerate(grid(options)):
        norm, linear = plain(data, options, head)
        group, place = trained.places[number]
        got = trained.groups[group].head(place)
        start = HeadGroup([head], len(got) - 1, 4, options, SEED, "cpu").head(0)
        moved = linear.weight.detach().numpy().T - start[:-1]
        assert error(got[:-1], linear.weight.detach().numpy().T) < 1e-5
        assert error(got[-1], linear.bias.detach().numpy()) < 1e-5
        assert error(got[:-1] - start[:-1], moved) < 1e-3  # also of what training changed
        if options.prepare == "batchnorm":
            assert error(trained.norm.mean.numpy(), norm.running_mean.numpy()) < 1e-5
            assert error(trained.norm.variance.numpy(), norm.running_var.numpy()) < 1e-5


def test_the_folded_head_is_the_plain_network_in_eval_mode(data):
    rows, _ = data
    trained = train(data, MAE)
    norm, linear = plain(data, MAE, grid(MAE)[2])
    weights, bias = trained.linear(2, 15)
    with torch.no_grad():
        expected = linear(norm.eval()(torch.from_numpy(rows))).numpy()
    np.testing.assert_allclose(rows @ weights + bias, expected, rtol=1e-4, atol=1e-4)


def test_a_head_on_some_columns_ignores_the_others(data):
    trained = train(data, DINOV2)
    number = grid(DINOV2).index(Head(input="cls1+mean", learning_rate=0.1, weight_decay=0.0))
    weights, _ = trained.linear(number, 15)
    assert not weights[:9].any()
    assert weights[9:].all()
    with pytest.raises(ShapeError, match="multiple of 5 dimensions; got 12. Extract with --tap"):
        columns_of("cls4", 12)


@RECIPES
def test_all_heads_in_one_pass_equal_single_runs(data, options):
    together = train(data, options)
    heads = grid(options)
    assert len(heads) == {"sgd": 52 if options is DINOV2 else 26}.get(options.optimiser, 4)
    for number, head in enumerate(heads):
        single = train(data, options, [head])
        (got, bias), (expected, b) = together.linear(number, 15), single.linear(0, 15)
        assert error(got, expected) < 1e-5
        assert error(bias, b) < 1e-5
        np.testing.assert_allclose(together.losses[:, number], single.losses[:, 0], rtol=1e-5)


@RECIPES
def test_a_batch_taken_in_parts_gives_the_same_gradient(data, options, monkeypatch):
    whole = train(data, options)
    monkeypatch.setattr(heads_module, "_BLOCK_BYTES", 5 * 16 * 4 * 13)
    parts = train(data, options)
    for number in range(len(grid(options))):
        assert error(parts.linear(number, 15)[0], whole.linear(number, 15)[0]) < 1e-5


def test_the_loss_of_the_record_is_the_mean_cross_entropy_of_a_tenth(data):
    rows, labels = data
    options = GradientOptions(iterations=20, batch=8, learning_rates=(1e-9,))
    trained = train(data, options)
    weights, bias = trained.linear(0, 15)
    log_probs = torch.log_softmax(torch.from_numpy(rows @ weights + bias), dim=1).numpy()
    losses = -log_probs[np.arange(90), labels]
    picked = torch.stack(list(batches(Plan.of(options, 90), SEED + 1))).numpy()
    np.testing.assert_allclose(
        trained.losses[:, 0], losses[picked].reshape(10, 16).mean(axis=1), rtol=1e-5
    )
    assert train(data, dataclasses.replace(options, iterations=3)).losses.shape == (3, 1)


def test_a_head_that_diverges_leaves_the_others_alone_and_scores_zero(data):
    options = dataclasses.replace(CLIP, weight_decays=(0.0, 1e30))
    trained = train(data, options)
    alone = train(data, options, grid(options)[:1])
    assert trained.is_finite.tolist() == [True, False]
    assert error(trained.linear(0, 15)[0], alone.linear(0, 15)[0]) < 1e-5
    assert not np.isfinite(trained.losses[-1, 1])
    reader = RowReader(data[0], np.arange(90), is_unit_norm=True, device="cpu")
    shares = trained.top1(reader, data[1])
    assert shares.tolist() == [alone.top1(reader, data[1])[0], 0]
    assert shares[0] > 0.5


def test_accuracies_are_those_of_the_folded_heads(data, monkeypatch):
    rows, labels = data
    monkeypatch.setattr(rows_module, "_PASS_BYTES", 4000)
    for options in (DINOV2, MAE):
        trained = train(data, options)
        codes = np.where(np.arange(90) < 10, -1, labels)
        reader = RowReader(rows, np.arange(90), is_unit_norm=False, device="cpu")
        got = trained.top1(reader, codes)
        for number, share in enumerate(got):
            weights, bias = trained.linear(number, 15)
            assert share == ((rows @ weights + bias).argmax(axis=1) == codes).mean()


def test_a_zero_norm_is_not_scaled_by_lars():
    options = dataclasses.replace(MAE, momentum=0.5)
    parameters = torch.zeros(3, 4)
    optimiser = make_optimiser(parameters, [1.0, 2.0], [0.0, 0.0], options)
    optimiser.step(torch.ones(3, 4), 1.0)
    assert torch.equal(parameters, torch.tensor([[-1.0, -1, -2, -2]]).expand(3, 4))
    optimiser.step(torch.zeros(3, 4), 1.0)  # momentum alone
    assert torch.equal(parameters, torch.tensor([[-1.5, -1.5, -3, -3]]).expand(3, 4))


def test_rows_beyond_the_room_are_read_batch_by_batch_from_a_memory_map(
    data, monkeypatch, tmp_path
):
    rows, labels = data
    path = tmp_path / "rows.f16"
    rows.astype(np.float16).tofile(path)
    stored = np.memmap(path, np.float16, "r", shape=(90, 15))
    resident = train((stored, labels), DINOV2)
    sizes = []

    class Spy:
        shape, dtype = stored.shape, stored.dtype

        def __len__(self):
            return 90

        def __getitem__(self, key):
            sizes.append(len(key))
            return stored[key]

    monkeypatch.setattr(rows_module, "_RESIDENT_BYTES", 0)
    monkeypatch.setattr(rows_module, "_PASS_BYTES", 16 * 15 * 20)
    streamed = train((Spy(), labels), DINOV2)
    for first, second in zip(resident.groups, streamed.groups, strict=True):
        assert torch.equal(first.parameters, second.parameters)
    assert max(sizes) == 32  # the batch
    assert len(sizes) == 60 + 5  # and one look at all rows


def test_large_float16_values_do_not_overflow():
    rows = np.full((40, 6), 60000, dtype=np.float16)
    rows[::2, 0] = -60000
    labels = np.arange(40) % 2
    for options in (MAE, CLIP, DINOV2):
        one = dataclasses.replace(options, inputs=("all",))
        trained = train((rows, labels), one)
        assert trained.is_finite.all()
        assert np.isfinite(trained.losses).all()
