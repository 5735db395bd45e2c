from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score

from featcache.probes.metrics import aurocs, average_precisions, mean_per_class, top1


def test_accuracies_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 2, 5], size=100, p=[0.7, 0.2, 0.1])
    predictions = rng.choice([0, 2, 5, 7], size=100)
    assert top1(labels, predictions) == (labels == predictions).mean()
    present = [(predictions[labels == c] == c).mean() for c in (0, 2, 5)]
    assert mean_per_class(labels, predictions) == pytest.approx(np.mean(present))
    only = np.where(predictions == 7, 0, predictions)
    assert mean_per_class(labels, only) == pytest.approx(balanced_accuracy_score(labels, only))


@pytest.mark.parametrize("steps", [1e9, 3], ids=["continuous", "tied"])
def test_average_precisions_are_those_of_scikit_learn(steps):
    rng = np.random.default_rng(0)
    scores = np.round(rng.normal(size=(60, 4)) * steps) / steps - 5  # all negative
    truth = rng.random((60, 4)) < [0.1, 0.5, 0.9, 0.0]
    got = average_precisions(truth, scores)
    for column in range(3):
        expected = average_precision_score(truth[:, column], scores[:, column])
        assert got[column] == pytest.approx(expected, abs=1e-12)
    assert np.isnan(got[3])


@pytest.mark.parametrize("steps", [1e9, 3], ids=["continuous", "tied"])
def test_areas_under_roc_curves_are_those_of_scikit_learn(steps):
    rng = np.random.default_rng(0)
    scores = np.round(rng.normal(size=(60, 5)) * steps) / steps - 5
    truth = rng.random((60, 5)) < [0.1, 0.5, 0.9, 0.0, 1.0]
    got = aurocs(truth, scores)
    for column in range(3):
        expected = roc_auc_score(truth[:, column], scores[:, column])
        assert got[column] == pytest.approx(expected, abs=1e-12)
    assert np.isnan(got[3:]).all()
