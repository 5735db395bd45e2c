from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import (
    balanced_accuracy_score,
)

from featcache.probes.metrics import mean_per_class, top1


def test_accuracies_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 2, 5], size=100, p=[0.7, 0.2, 0.1])
    predictions = rng.choice([0, 2, 5, 7], size=100)
    assert top1(labels, predictions) == (labels == predictions).mean()
    present = [(predictions[labels == c] == c).mean() for c in (0, 2, 5)]
    assert mean_per_class(labels, predictions) == pytest.approx(np.mean(present))
    only = np.where(predictions == 7, 0, predictions)
    assert mean_per_class(labels, only) == pytest.approx(balanced_accuracy_score(labels, only))
