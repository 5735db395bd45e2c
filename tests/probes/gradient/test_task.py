from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from featcache.errors import OptionError, ShapeError
from featcache.probes.catalog import load_protocol
from featcache.probes.gradient.options import GradientOptions
from featcache.probes.gradient.search import grid
from featcache.probes.options import parse_options
from featcache.probes.run import run_task
from featcache.probes.tasks import TaskInputs

NAMES = ("gradient@1", "dinov2-linear@1", "mae-linear-1view@1", "clip-benchmark-linear@1")


@pytest.fixture
def inputs(make_table):
    return TaskInputs(
        train=make_table(120, dim=10, seed=1, name="train"),
        test=make_table(70, dim=10, seed=2, name="test"),
        seed=5,
    )


def short(name):
    """The protocol with a short training; those that count epochs are short on few rows."""
    protocol = load_protocol(name)
    less = {"iterations": 60, "batch": 32} if protocol.options["iterations"] else {}
    return dataclasses.replace(protocol, options={**protocol.options, **less})


@pytest.mark.parametrize("name", NAMES)
def test_each_protocol_runs_and_the_order_of_the_rows_changes_nothing(name, inputs):
    rng = np.random.default_rng(0)
    outcome = run_task(short(name), inputs)
    assert outcome.metrics["top1"] > 0.8
    low, high = outcome.intervals["top1"]
    assert low <= outcome.metrics["top1"] <= high
    shuffled = dataclasses.replace(inputs, train=inputs.train.take(rng.permutation(120)))
    again = run_task(short(name), shuffled)
    assert again.metrics == outcome.metrics
    assert again.details == outcome.details
    assert outcome.details["dropped_unlabelled_train"] == 0
    assert outcome.details["selected_on_test"] == (name == "dinov2-linear@1")


def test_unlabelled_train_rows_have_no_part(inputs):
    labels = np.where(np.arange(120) % 7 == 0, -1, inputs.train.labels)
    blank = dataclasses.replace(inputs.train, labels=labels)
    protocol = short("gradient@1")
    first = run_task(protocol, dataclasses.replace(inputs, train=blank))
    second = run_task(protocol, dataclasses.replace(inputs, train=blank.take(labels >= 0)))
    assert first.metrics == second.metrics
    assert first.details["heads"] == second.details["heads"]
    assert first.details["dropped_unlabelled_train"] == 18
    none = dataclasses.replace(inputs.train, labels=np.full(120, -1))
    with pytest.raises(ShapeError, match="`train` must have labelled rows; got 120"):
        run_task(protocol, dataclasses.replace(inputs, train=none))


def test_dinov2_linear_tries_52_heads_and_names_the_rows_it_selects_on(inputs):
    outcome = run_task(short("dinov2-linear@1"), inputs)
    assert len(outcome.details["heads"]) == 52
    assert outcome.metrics["top1"] == max(one["top1"] for one in outcome.details["heads"])
    protocol = load_protocol("dinov2-linear@1")
    assert "TEST ROWS" in protocol.selection
    assert "not augmented" in protocol.note
    assert len(protocol.published) == 8


def test_the_recipes_have_the_values_of_their_references():
    dinov2, mae, clip = (load_protocol(name).parsed_options() for name in NAMES[1:])
    assert dinov2.rate_factor == 1024 / 256
    steps = [step * 10.0**power for power in range(-5, -1) for step in (1, 2, 5)]
    np.testing.assert_allclose(dinov2.learning_rates, [*steps, 0.1], rtol=1e-12)
    assert mae.rate_factor * mae.learning_rates[0] == 6.4
    assert (mae.epochs, mae.warmup_epochs, mae.drop_last) == (90, 10, True)
    assert len(grid(mae)) == 1
    np.testing.assert_allclose(clip.weight_decays, np.logspace(-6, 2, 97), rtol=1e-8)
    assert clip.rate_factor * clip.learning_rates[0] == 0.1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimiser": "adam"}, "Did you mean 'adamw'"),
        ({"prepare": "zscore"}, "`prepare` must be one of none, batchnorm, l2"),
        ({"inputs": ["cls2"]}, "`inputs` must be one of all, cls1"),
        ({"inputs": []}, "`inputs` must be distinct names, at least one"),
        ({"inputs": ["all", "all"]}, "`inputs` must be distinct names"),
        ({"learning_rates": [0.1, 0.01]}, "in increasing order"),
        ({"learning_rates": [0]}, "positive finite numbers"),
        ({"weight_decays": [-0.1]}, "`weight_decays` must be finite numbers from 0"),
        ({"weight_decays": [0.1, 0.0]}, "in increasing order"),
        ({"batch": 0}, "`batch` must be at least 1"),
        ({"momentum": 1.0}, "`momentum` must be between 0 and 1"),
        ({"epochs": 3}, "Exactly one of `iterations` and `epochs`"),
        ({"iterations": 0}, "Exactly one of `iterations` and `epochs`"),
        ({"warmup_epochs": 1}, "`warmup_epochs` must be fewer than `epochs`; got 1 and 0"),
        ({"search": "bisect"}, "must have several weight decays, and one learning rate"),
        (
            {"search": "bisect", "learning_rates": [0.1], "weight_decays": [0.1, 1, 2]},
            "a multiple of 6 weight decays, and one more.*got 3. Use 97",
        ),
        ({"selection": "val"}, "`selection` must be one of held_out, test"),
        ({"held_out": 0}, "`held_out` must be between 0 and 1"),
    ],
)
def test_options_that_contradict_themselves_are_refused(values, message):
    with pytest.raises(OptionError, match=message):
        parse_options(GradientOptions, values)
