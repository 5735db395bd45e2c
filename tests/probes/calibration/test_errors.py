from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss

from featcache.errors import ShapeError
from featcache.probes.calibration.errors import (
    brier_scores,
    class_wise_error,
    debiased_error,
    expected_error,
    mass_bins,
    null_band,
    width_bins,
)


def softmax_rows(n, classes, *, seed=0, sharpness=2.0):
    rng = np.random.default_rng(seed)
    logits = sharpness * rng.normal(size=(n, classes))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([rng.choice(classes, p=row) for row in shares])
    return shares, labels


def of_torchmetrics(shares, labels):
    from torchmetrics.functional.classification import multiclass_calibration_error

    found = multiclass_calibration_error(
        torch.tensor(shares), torch.tensor(labels), num_classes=shares.shape[1], n_bins=15
    )
    return float(found)


def test_equal_width_errors_are_those_of_torchmetrics():
    shares, labels = softmax_rows(400, 5)
    sure, right = shares.max(axis=1), shares.argmax(axis=1) == labels
    assert sure.max() < 1
    expected = of_torchmetrics(shares, labels)
    assert expected_error(sure, right, width_bins(sure)) == pytest.approx(expected, abs=1e-6)


def test_a_confidence_of_exactly_1_is_in_the_last_bin_and_not_in_one_of_its_own():
    sure, right = np.array([1.0, 0.95]), np.array([False, True])
    assert width_bins(sure).tolist() == [14, 14]
    got = expected_error(sure, right, width_bins(sure))
    assert got == pytest.approx(abs(0.5 - 0.975))
    shares, labels = np.array([[1.0, 0.0], [0.05, 0.95]]), np.array([1, 1])
    assert of_torchmetrics(shares, labels) == pytest.approx((1 + 0.05) / 2)  # two bins there


def test_equal_mass_bins_hold_equal_counts_and_keep_ties_together():
    sure = np.random.default_rng(0).permutation(np.linspace(0.1, 1, 45))
    np.testing.assert_array_equal(np.bincount(mass_bins(sure)), np.full(15, 3))
    tied = np.array([0.9, 0.9, 0.9, 0.2])
    assert len(set(mass_bins(tied, 4)[:3])) == 1


def test_the_error_of_a_hand_made_case():
    sure = np.array([0.9, 0.9, 0.6, 0.6])
    right = np.array([True, False, True, True])
    expected = (2 * abs(0.5 - 0.9) + 2 * abs(1 - 0.6)) / 4
    assert expected_error(sure, right, width_bins(sure)) == pytest.approx(expected)
    assert width_bins(np.array([0.0, 1.0])).tolist() == [0, 14]


@pytest.mark.parametrize("gap", [0.0, 0.1])
def test_debiasing_comes_nearer_to_the_true_error(gap):
    plain, debiased = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        sure = rng.uniform(0.2, 1, size=300)
        right = rng.random(300) < sure - gap
        bins = width_bins(sure)
        plain.append(expected_error(sure, right, bins))
        debiased.append(debiased_error(sure, right, bins))
    assert np.mean(plain) > gap
    assert abs(np.mean(debiased) - gap) < 0.8 * abs(np.mean(plain) - gap)


def test_the_folded_normal_is_that_of_a_simulation():
    rng = np.random.default_rng(0)
    sure, right = np.full(50, 0.7), np.arange(50) < 40  # one bin: gap 0.1
    rate = 0.8
    draws = np.abs(rng.normal(rate - 0.7, np.sqrt(rate * (1 - rate) / 50), size=400_000))
    got = debiased_error(sure, right, width_bins(sure))
    assert got == pytest.approx(2 * 0.1 - draws.mean(), abs=2e-4)


def test_the_null_band_holds_calibrated_models_and_not_others():
    inside = 0
    for seed in range(40):
        rng = np.random.default_rng(100 + seed)
        sure = rng.uniform(0.2, 1, size=200)
        bins = width_bins(sure)
        band = null_band(sure, bins, np.random.default_rng(0))
        inside += expected_error(sure, rng.random(200) < sure, bins) <= band
        assert expected_error(sure, rng.random(200) < sure / 3, bins) > band
    assert inside >= 34  # 95 % of 40, less three standard errors


def test_the_null_band_does_not_depend_on_the_order_of_rows():
    sure = np.random.default_rng(0).uniform(size=60)
    order = np.random.default_rng(1).permutation(60)
    first = null_band(sure, width_bins(sure), np.random.default_rng(0))
    second = null_band(sure[order], width_bins(sure[order]), np.random.default_rng(0))
    assert first == second


def test_class_wise_error_averages_the_classes():
    shares, labels = softmax_rows(200, 3)
    single = [expected_error(shares[:, c], labels == c, width_bins(shares[:, c])) for c in range(3)]
    assert class_wise_error(shares, labels) == pytest.approx(np.mean(single))


def test_brier_is_twice_the_binary_one_of_scikit_learn():
    shares, labels = softmax_rows(100, 2)
    expected = 2 * brier_score_loss(labels, shares[:, 1])
    assert brier_scores(shares, labels).mean() == pytest.approx(expected)
    assert brier_scores(np.array([[0.0, 1.0]]), np.array([0]))[0] == 2


def test_no_rows_are_refused():
    empty = np.empty(0)
    with pytest.raises(ShapeError, match="one length, at least 1; got 0, 0 and 0"):
        expected_error(empty, empty.astype(bool), empty.astype(np.intp))


@pytest.mark.parametrize("score", [brier_scores, class_wise_error])
def test_labels_that_are_no_columns_are_refused(score):
    shares, labels = softmax_rows(6, 3)
    for bad, said in ((-1, "got -1 to"), (3, "0 to 2; got .* to 3")):
        with pytest.raises(ShapeError, match=f"columns of `probabilities`.*{said}"):
            score(shares, np.where(np.arange(6) == 4, bad, labels))
    with pytest.raises(ShapeError, match=r"got shapes \(6, 3\) and \(5,\)"):
        score(shares, labels[:5])
    with pytest.raises(ShapeError, match="at least one; got shapes"):
        score(shares[:0], labels[:0])
