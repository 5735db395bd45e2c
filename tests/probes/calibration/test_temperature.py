from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from featcache.errors import ShapeError
from featcache.probes.calibration.temperature import fit_temperature


def noisy(n=300, classes=4, *, scale=3.0, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, classes))
    labels = np.array([rng.choice(classes, p=np.exp(row)) for row in log_softmax(logits, axis=1)])
    return scale * logits, labels


def loss(logits, labels, temperature):
    return -log_softmax(logits / temperature, axis=1)[np.arange(len(labels)), labels].mean()


@pytest.mark.parametrize("scale", [0.01, 1.0, 3.0, 40.0])
def test_the_temperature_is_the_optimum_that_scipy_finds(scale):
    logits, labels = noisy(scale=scale)
    found = fit_temperature(logits, labels)
    assert not found.is_capped
    best = minimize_scalar(
        lambda log: loss(logits, labels, np.exp(log)),
        bounds=(-7, 7),
        method="bounded",
        options={"xatol": 1e-10},
    )
    assert np.log(found.value) == pytest.approx(best.x, abs=1e-5)
    assert loss(logits, labels, found.value) <= best.fun + 1e-12


def test_true_logits_need_no_temperature():
    logits, labels = noisy(20_000, scale=1.0)
    assert fit_temperature(logits, labels).value == pytest.approx(1, abs=0.03)


def test_the_scale_of_logits_goes_into_the_temperature():
    logits, labels = noisy()
    first, second = fit_temperature(logits, labels), fit_temperature(7 * logits, labels)
    assert second.value == pytest.approx(7 * first.value, rel=1e-8)


def test_float32_logits_are_solved_in_float64():
    logits, labels = noisy()
    first = fit_temperature(logits.astype(np.float32), labels)
    assert first.value == pytest.approx(fit_temperature(logits, labels).value, rel=1e-6)


def test_separated_and_useless_rows_end_at_a_cap():
    labels = np.arange(30) % 3
    right = 5.0 * np.eye(3)[labels]
    assert fit_temperature(right, labels) == fit_temperature(2 * right, labels)
    assert fit_temperature(right, labels).value == 2**-10
    assert fit_temperature(right, labels).is_capped
    assert fit_temperature(-right, labels).value == 2**10
    assert fit_temperature(-right, labels).is_capped


def test_rows_that_do_not_fit_are_refused():
    logits, labels = noisy(5)
    with pytest.raises(ShapeError, match="a row per label, at least one"):
        fit_temperature(logits[:0], labels[:0])
    with pytest.raises(ShapeError, match="a row per label"):
        fit_temperature(logits, labels[:3])
    logits[2, 1] = np.inf
    with pytest.raises(ShapeError, match="must be finite"):
        fit_temperature(logits, labels)


@pytest.mark.parametrize("wrong", [-1, 3])
def test_labels_outside_the_columns_are_refused(wrong):
    with pytest.raises(ShapeError, match="must be columns of `logits`, 0 to 2"):
        fit_temperature(np.zeros((2, 3)), np.array([0, wrong]))
