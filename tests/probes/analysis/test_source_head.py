from __future__ import annotations

import numpy as np
import pytest

from featcache.errors import OptionError, ShapeError
from featcache.head_store import StoredHead
from featcache.probes.analysis.source_head import (
    energy,
    head_logits,
    leep,
    negative_conditional_entropy,
    softmax,
)
from featcache.spec import BackboneIdentity


@pytest.fixture
def theta():
    return softmax(np.random.default_rng(0).normal(size=(40, 6)) * 2)


@pytest.fixture
def labels():
    return np.random.default_rng(1).integers(0, 3, 40)


def head(weights, **given):
    fields = {
        "kind": "native",
        "weights": weights,
        "bias": np.zeros(weights.shape[1]),
        "class_names": tuple(map(str, range(weights.shape[1]))),
        "backbone": BackboneIdentity(name="b", architecture="a", weights=""),
        "tap": "pooled",
    }
    return StoredHead(**{**fields, **given})


def test_leep_is_the_mean_log_of_its_double_sum(theta, labels):
    total = 0.0
    for i in range(40):
        inner = 0.0
        for z in range(6):
            inner += theta[i, z] * theta[labels == labels[i], z].sum() / theta[:, z].sum()
        total += np.log(inner)
    assert leep(theta, labels) == pytest.approx(total / 40, abs=1e-12)


def test_nce_is_minus_the_conditional_entropy(theta, labels):
    source, total = theta.argmax(axis=1), 0.0
    for z in np.unique(source):
        for y in range(3):
            both, one = ((source == z) & (labels == y)).mean(), (source == z).mean()
            total += both * np.log(both / one) if both else 0.0
    assert negative_conditional_entropy(theta, labels) == pytest.approx(total, abs=1e-12)


@pytest.mark.parametrize("score", [leep, negative_conditional_entropy])
def test_the_best_score_is_0_and_class_numbers_and_order_do_not_count(score, theta, labels):
    assert score(np.eye(3)[labels], labels) == pytest.approx(0, abs=1e-12)
    assert score(theta, np.full(40, 7)) == pytest.approx(0, abs=1e-12)
    order = np.random.default_rng(2).permutation(40)
    one = score(theta, labels)
    assert score(theta[order], labels[order]) == pytest.approx(one, abs=1e-12)
    assert score(theta[:, ::-1], 9 - labels) == pytest.approx(one, abs=1e-12)
    assert one < -0.1


def test_a_source_class_that_no_row_has_counts_nothing(theta, labels):
    wider = np.c_[theta, np.zeros(40)]
    assert leep(wider, labels) == leep(theta, labels)


def test_logits_have_bias_scale_and_unit_rows():
    weights = np.array([[1.0, 0.0], [0.0, 2.0]], np.float32)
    rows = np.array([[3.0, 4.0]], np.float16)
    bias = np.array([0.5, 0.0])
    np.testing.assert_allclose(head_logits(rows, head(weights, bias=bias)), [[3.5, 8.0]])
    unit = head(weights, is_unit_norm=True, scale=100.0)
    np.testing.assert_allclose(head_logits(rows, unit), [[60.0, 160.0]])


def test_a_head_of_other_features_is_refused():
    with pytest.raises(ShapeError, match="tap that the head was made for, 'pooled'"):
        head_logits(np.ones((2, 3)), head(np.ones((2, 2))))


def test_energy_is_the_mean_of_the_lowest_logsumexp():
    logits = np.array([[1000.0, 1000.0], [0.0, 0.0], [-5.0, -5.0]])
    assert energy(logits, share=0.01) == pytest.approx(-5 + np.log(2))
    assert energy(logits, share=0.5) == pytest.approx(-2.5 + np.log(2))
    assert energy(logits, share=1.0) == pytest.approx(995 / 3 + np.log(2))
    with pytest.raises(OptionError, match="`share` must be above 0"):
        energy(logits, share=0.0)


def test_softmax_of_huge_logits_is_finite():
    np.testing.assert_allclose(softmax(np.array([[1e4, 0.0]])), [[1.0, 0.0]])
