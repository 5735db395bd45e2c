from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, top_k_accuracy_score

from featcache.errors import ShapeError
from featcache.probes.calibration.temperature import fit_temperature
from featcache.probes.classification import Distribution, classification, decisions


@pytest.fixture
def scored(make_table):
    train, test = make_table(120, n_classes=6, seed=1), make_table(80, n_classes=6, seed=2)
    model = LogisticRegression(max_iter=1000).fit(train.features[:60], train.labels[:60])
    held = 3 * model.decision_function(train.features[60:])
    return (
        test,
        model.classes_,
        3 * model.decision_function(test.features),
        (
            held,
            train.labels[60:],
        ),
    )


def test_accuracies_and_likelihood_are_those_of_scikit_learn(scored):
    test, classes, logits, _ = scored
    outcome = classification(test, Distribution.of_logits(classes, logits), details={}, seed=0)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert outcome.metrics["top1"] == (shares.argmax(axis=1) == test.labels).mean()
    assert outcome.metrics["top5"] == top_k_accuracy_score(test.labels, shares, k=5)
    assert outcome.metrics["nll"] == pytest.approx(log_loss(test.labels, shares), rel=1e-5)
    assert outcome.predictions["nll"].mean() == pytest.approx(outcome.metrics["nll"])
    assert outcome.predictions["brier"].mean() == pytest.approx(outcome.metrics["brier"])
    np.testing.assert_allclose(outcome.predictions["confidence"], shares.max(axis=1), rtol=1e-5)
    for name in ("top1", "mean_per_class"):
        low, high = outcome.intervals[name]
        assert low < outcome.metrics[name] < high
    assert {"ece15", "ece15_mass", "ece15_debiased", "cw_ece15", "aurc"} <= outcome.metrics.keys()


def test_a_temperature_from_held_out_rows_mends_logits_that_are_too_sure(scored):
    test, classes, logits, (held, labels) = scored
    found = Distribution.of_logits(classes, logits)
    outcome = classification(test, found, details={}, seed=0, held_out=(held, labels, logits))
    expected = fit_temperature(held, labels).value
    assert outcome.details["calibration"]["temperature"] == expected > 1
    assert outcome.metrics["nll_ts"] < outcome.metrics["nll"]
    assert outcome.metrics["ece15_ts"] < outcome.metrics["ece15"]
    shares = np.exp(logits / expected)
    shares /= shares.sum(axis=1, keepdims=True)
    assert outcome.metrics["nll_ts"] == pytest.approx(log_loss(test.labels, shares), rel=1e-5)


def test_classes_that_were_never_trained_have_no_likelihood(scored):
    test, classes, logits, _ = scored
    kept = np.array([0, 1, 2, 4, 5])
    found = Distribution.of_logits(classes[kept], logits[:, kept])
    outcome = classification(test, found, details={}, seed=0)
    unknown = test.labels == 3
    assert 3 not in outcome.predictions["prediction"]
    assert outcome.details["calibration"]["rows"] == (~unknown).sum()
    np.testing.assert_array_equal(np.isnan(outcome.predictions["nll"]), unknown)
    assert np.isfinite(outcome.metrics["nll"])
    assert "top5" not in outcome.metrics


def test_votes_with_exact_zeros_have_no_likelihood(make_table):
    test = make_table(40, n_classes=3)
    shares = np.eye(3)[test.labels]
    found = Distribution.of_shares(np.arange(3), shares)
    outcome = classification(test, found, details={}, seed=0, metrics={"top1@7": 0.5})
    assert "nll" not in outcome.metrics
    assert outcome.metrics["brier"] == 0
    assert outcome.metrics["ece15"] == 0
    assert outcome.metrics["top1@7"] == 0.5


def test_the_order_of_rows_changes_nothing(scored):
    test, classes, logits, _ = scored
    order = np.random.default_rng(0).permutation(len(test))
    first = classification(test, Distribution.of_logits(classes, logits), details={}, seed=3)
    second = classification(
        test.take(order), Distribution.of_logits(classes, logits[order]), details={}, seed=3
    )
    assert first.metrics == pytest.approx(second.metrics)
    assert first.details == second.details
    assert first.intervals == second.intervals


def test_a_single_class_is_certain(make_table):
    test = replace(make_table(20, n_classes=1), class_names=("only",))
    found = Distribution.of_logits(np.array([0]), np.zeros((20, 1)))
    outcome = classification(test, found, details={"warnings": ["first"]}, seed=0)
    assert outcome.metrics["top1"] == 1
    assert outcome.metrics["nll"] == outcome.metrics["ece15"] == 0
    first, said = outcome.details["warnings"]
    assert first == "first"
    assert said.startswith("all 20 test rows have the class 'only'")
    assert decisions(test, test.labels, np.ones(20), details={}, seed=0).details["warnings"] == [
        said
    ]


def test_scores_without_a_distribution_have_accuracies_alone(make_table):
    test = make_table(30, n_classes=3)
    outcome = decisions(test, test.labels, np.ones(30), details={"a": 1}, seed=0)
    assert set(outcome.metrics) == {"top1", "mean_per_class"}
    assert outcome.metrics["top1"] == 1


def test_labels_outside_the_list_are_refused(make_table):
    test = replace(make_table(30, n_classes=3), class_names=("a", "b"))
    with pytest.raises(ShapeError, match="below the number of classes, 2; got 2"):
        decisions(test, test.labels, np.ones(30), details={}, seed=0)
