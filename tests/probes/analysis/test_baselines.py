from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from featcache.errors import ShapeError
from featcache.probes.analysis.baselines import knn_accuracy, ridge_accuracy


def test_knn_accuracy_is_leave_one_out(make_clusters):
    rows, labels = make_clusters(60, 6, 3, spread=0.8)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    model = KNeighborsClassifier(1)
    expected = (cross_val_predict(model, unit, labels, cv=LeaveOneOut()) == labels).mean()
    assert knn_accuracy(rows, labels, k=1, temperature=0.07) == pytest.approx(expected)


def test_ridge_accuracy_is_leave_one_out_at_its_best_strength(make_clusters):
    rows, labels = make_clusters(60, 6, 3, spread=0.5)
    found, strength = ridge_accuracy(rows, labels)
    scaled = StandardScaler().fit_transform(rows.astype(float))  # scaling stays that of all rows
    model = RidgeClassifier(strength)
    expected = (cross_val_predict(model, scaled, labels, cv=LeaveOneOut()) == labels).mean()
    assert found == pytest.approx(expected)


def test_one_class_is_always_right_and_one_row_has_no_others(make_clusters):
    rows, _ = make_clusters(10, 4, 2)
    one = np.full(10, 3)
    assert knn_accuracy(rows, one, k=20, temperature=0.07) == 1
    assert ridge_accuracy(rows, one)[0] == 1
    for score in (ridge_accuracy, lambda x, y: knn_accuracy(x, y, k=1, temperature=1.0)):
        with pytest.raises(ShapeError, match="two"):
            score(rows[:1], one[:1])
