from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import (
    auc,
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from featcache.errors import ShapeError
from featcache.probes.metrics import mean_per_class, top1
from featcache.probes.ood.metrics import POSITIVE, detection_metrics


@pytest.mark.parametrize("steps", [1e9, 10, 3], ids=["continuous", "tied", "heavily tied"])
@pytest.mark.parametrize("seed", range(5))
def test_detection_metrics_are_those_of_scikit_learn(steps, seed):
    rng = np.random.default_rng(seed)
    inside = np.round(rng.normal(0.7, 1, size=83) * steps) / steps
    outside = np.round(rng.normal(0.0, 1, size=131) * steps) / steps
    got = detection_metrics(inside, outside)
    is_id = np.repeat([1, 0], [83, 131])
    scores = np.concatenate([inside, outside])

    def fpr95(truth, values):
        fpr, tpr, _ = roc_curve(truth, values, drop_intermediate=False)
        return fpr[np.argmax(tpr >= 0.95 - 1e-12)]

    def trapezoid(truth, values):
        precision, recall, _ = precision_recall_curve(truth, values)
        return auc(recall, precision)

    def detection_error(truth, values):
        fpr, tpr, _ = roc_curve(truth, values, drop_intermediate=False)
        return ((1 - tpr + fpr) / 2).min()

    expected = {
        "auroc": roc_auc_score(is_id, scores),
        "aupr_id": average_precision_score(is_id, scores),
        "aupr_ood": average_precision_score(1 - is_id, -scores),
        "fpr95_id_pos": fpr95(is_id, scores),
        "fpr95_ood_pos": fpr95(1 - is_id, -scores),
        "aupr_id_trapz": trapezoid(is_id, scores),
        "aupr_ood_trapz": trapezoid(1 - is_id, -scores),
        "detection_error": detection_error(is_id, scores),
    }
    assert got == pytest.approx(expected, abs=1e-12)
    assert got.keys() == POSITIVE.keys()


def test_the_two_fpr95_disagree_on_skewed_scores():
    inside = np.concatenate([np.zeros(10), np.full(90, 5.0)])
    outside = np.concatenate([np.full(60, 1.0), np.full(40, 4.0)])
    got = detection_metrics(inside, outside)
    assert got["fpr95_id_pos"] == 1.0  # 95 % of ID rows are kept only by keeping the zeros too
    assert got["fpr95_ood_pos"] == 0.1  # all OOD rows are flagged at 4, with the ten zeros


def test_scores_that_are_all_tied_give_half():
    got = detection_metrics(np.ones(30), np.ones(10))
    assert got == {
        "auroc": 0.5,
        "aupr_id": 0.75,
        "aupr_ood": 0.25,
        "fpr95_id_pos": 1.0,
        "fpr95_ood_pos": 1.0,
        "aupr_id_trapz": 0.875,  # from (0, 1) to (1, 0.75): what a trapezoid makes of ties
        "aupr_ood_trapz": 0.625,
        "detection_error": 0.5,
    }


def test_perfect_separation_and_infinite_scores():
    got = detection_metrics(np.array([1.0, np.inf]), np.array([-np.inf, 0.0]))
    assert got == {
        "auroc": 1.0,
        "aupr_id": 1.0,
        "aupr_ood": 1.0,
        "fpr95_id_pos": 0.0,
        "fpr95_ood_pos": 0.0,
        "aupr_id_trapz": 1.0,
        "aupr_ood_trapz": 1.0,
        "detection_error": 0.0,
    }


def test_empty_or_uneven_columns_are_refused():
    with pytest.raises(ShapeError, match="at least one score; got 0 ID and 3 OOD"):
        detection_metrics(np.ones(0), np.ones(3))
    with pytest.raises(ShapeError, match="must not be NaN; got 1 of 4"):
        detection_metrics(np.ones(1), np.array([0, np.nan, 1]))
    with pytest.raises(ShapeError, match="two columns of one length"):
        top1(np.zeros(3, dtype=np.int64), np.zeros(2, dtype=np.int64))
    with pytest.raises(ShapeError, match="at least 1"):
        mean_per_class(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
