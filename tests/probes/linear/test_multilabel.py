from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler

from featcache.errors import OptionError, ShapeError
from featcache.probes.catalog import default_protocol
from featcache.probes.linear.multilabel import targets_of
from featcache.probes.run import run_task
from featcache.probes.splits import stratified_split
from featcache.probes.tasks import TaskInputs

NAMES = ("cat", "cat|dog", "dog", "bird | cat", "")


def several(table):
    return replace(table, class_names=NAMES)


@pytest.fixture
def inputs(make_table):
    train = several(make_table(200, n_classes=5, seed=1, name="train"))
    return TaskInputs(train=train, test=several(make_table(90, n_classes=5, seed=2, name="test")))


def test_class_names_are_split_into_the_classes_of_each_row(inputs):
    names, members = targets_of(inputs.train, "|")
    assert names == ("bird", "cat", "dog")
    expected = {0: [0, 1, 0], 1: [0, 1, 1], 2: [0, 0, 1], 3: [1, 1, 0], 4: [0, 0, 0]}
    for label, row in zip(inputs.train.labels, members, strict=True):
        assert row.tolist() == expected[label]


def test_the_ranking_is_that_of_scikit_learn_one_against_the_rest(inputs):
    protocol = default_protocol("multilabel")
    options = {**protocol.options, "strengths": [0.1], "standardise": "none"}
    outcome = run_task(replace(protocol, options=options), inputs)
    names, members = targets_of(inputs.train, "|")
    _, truth = targets_of(inputs.test, "|", names)
    model = OneVsRestClassifier(LogisticRegression(C=0.1, tol=1e-8, max_iter=5000))
    scores = model.fit(inputs.train.features, members).decision_function(inputs.test.features)
    for place, name in enumerate(names):
        expected = average_precision_score(truth[:, place], scores[:, place])
        assert outcome.metrics[f"average_precision.{name}"] == pytest.approx(expected, abs=1e-9)
        np.testing.assert_allclose(
            outcome.predictions[f"score.{name}"], scores[:, place], atol=1e-3
        )
        area = roc_auc_score(truth[:, place], scores[:, place])
        assert outcome.metrics[f"auroc.{name}"] == pytest.approx(area, abs=1e-3)
    single = [outcome.metrics[f"average_precision.{name}"] for name in names]
    assert outcome.metrics["mean_average_precision"] == pytest.approx(np.mean(single))
    areas = [outcome.metrics[f"auroc.{name}"] for name in names]
    assert outcome.metrics["auroc"] == pytest.approx(np.mean(areas))


def test_a_class_that_all_test_rows_are_in_has_no_auroc(inputs):
    all_cats = inputs.test.take(np.isin(inputs.test.labels, [0, 1, 3]))
    outcome = run_task(default_protocol("multilabel"), replace(inputs, test=all_cats))
    assert "auroc.cat" not in outcome.metrics
    assert outcome.metrics["average_precision.cat"] == 1.0
    areas = [outcome.metrics["auroc.bird"], outcome.metrics["auroc.dog"]]
    assert outcome.metrics["auroc"] == pytest.approx(np.mean(areas))
    only_cats = inputs.test.take(inputs.test.labels == 0)
    outcome = run_task(default_protocol("multilabel"), replace(inputs, test=only_cats))
    assert "auroc" not in outcome.metrics


def held_out_maps(table, strengths):
    """Mean average precision on the held-out fifth, of scikit-learn's classifiers."""
    table = table.take(np.argsort(table.ids))
    _, members = targets_of(table, "|")
    rest, held = stratified_split(table.labels, 0.2, np.random.default_rng(0))
    scaler = StandardScaler().fit(table.features[rest].astype(np.float64))
    found = {}
    for strength in strengths:
        model = OneVsRestClassifier(LogisticRegression(C=strength, tol=1e-9, max_iter=20000))
        model.fit(scaler.transform(table.features[rest].astype(np.float64)), members[rest])
        scores = model.decision_function(scaler.transform(table.features[held].astype(np.float64)))
        found[strength] = np.mean(
            [average_precision_score(members[held, c], scores[:, c]) for c in range(3)]
        )
    return found


def test_the_strength_is_chosen_on_held_out_rows(inputs):
    outcome = run_task(default_protocol("multilabel"), inputs)
    tried = dict(outcome.details["held_out_map"])
    strengths = default_protocol("multilabel").options["strengths"]
    expected = held_out_maps(inputs.train, strengths[:5])
    for strength, score in expected.items():  # at weaker penalties scikit-learn stops short
        assert tried[strength] == pytest.approx(score, abs=1e-6)
    assert max(tried[c] for c in strengths[5:]) < max(expected.values())
    assert outcome.details["strength"] == max(expected, key=lambda c: (expected[c], -c))
    assert outcome.details["held_out_rows"] == 40


def test_a_class_without_rows_of_both_kinds_is_left_out(inputs):
    no_dog = inputs.train.take(~np.isin(inputs.train.labels, [1, 2]))
    outcome = run_task(default_protocol("multilabel"), replace(inputs, train=no_dog))
    assert "average_precision.dog" not in outcome.metrics
    assert outcome.details["classes_without_train_rows_of_both_kinds"] == 1
    alike = inputs.train.take(inputs.train.labels == 0)
    with pytest.raises(ShapeError, match="rows in it and rows outside; got none"):
        run_task(default_protocol("multilabel"), replace(inputs, train=alike))


def test_an_empty_separator_is_refused(inputs):
    protocol = default_protocol("multilabel")
    with pytest.raises(OptionError, match="`separator` must not be empty"):
        replace(protocol, options={**protocol.options, "separator": ""})
