from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.stats import ortho_group

from featcache.probes.catalog import default_protocol
from featcache.probes.closed_form.discriminant import fit_lda
from featcache.probes.run import run_task
from featcache.probes.tasks import TaskInputs
from tests.probes.conftest import shares_of

COLUMNS = {"ridge": "score", "lda": "confidence", "centroid": "score"}
TASKS = list(COLUMNS)


@pytest.fixture
def inputs(make_table):
    return TaskInputs(
        train=make_table(160, seed=1, name="train"), test=make_table(90, seed=2, name="test")
    )


def with_options(task, **options):
    protocol = default_protocol(task)
    return dataclasses.replace(protocol, options={**protocol.options, **options})


@pytest.mark.parametrize("task", TASKS)
def test_an_outcome_has_the_fields_of_a_classification(task, inputs):
    outcome = run_task(default_protocol(task), inputs)
    assert {"top1", "mean_per_class"} <= set(outcome.metrics)
    assert ("nll" in outcome.metrics) == (task == "lda")
    assert list(outcome.predictions)[:4] == ["id", "label", "prediction", COLUMNS[task]]
    assert outcome.predictions[COLUMNS[task]].dtype == np.float32
    right = outcome.predictions["prediction"] == inputs.test.labels
    assert outcome.metrics["top1"] == right.mean() > 0.8
    assert outcome.details["classes_in_train"] == 4


@pytest.mark.parametrize("task", TASKS)
def test_a_train_set_without_a_class_or_with_one_alone_still_answers(task, inputs):
    fewer = dataclasses.replace(inputs, train=inputs.train.take(inputs.train.labels != 2))
    outcome = run_task(default_protocol(task), fewer)
    assert set(np.unique(outcome.predictions["prediction"])) <= {0, 1, 3}
    assert outcome.details["test_classes_absent_from_train"] == 1
    single = dataclasses.replace(inputs, train=inputs.train.take(inputs.train.labels == 3))
    outcome = run_task(default_protocol(task), single)
    assert outcome.metrics["top1"] == (inputs.test.labels == 3).mean()


@pytest.mark.parametrize("task", TASKS)
def test_one_row_per_class_is_enough(task, inputs):
    first = [int(np.flatnonzero(inputs.train.labels == c)[0]) for c in range(4)]
    few = dataclasses.replace(inputs, train=inputs.train.take(np.array(first)))
    outcome = run_task(default_protocol(task), few)
    assert outcome.metrics["top1"] > 0.5
    assert np.isfinite(outcome.predictions[COLUMNS[task]]).all()


@pytest.mark.parametrize(
    ("task", "options"),
    [("ridge", {"standardise": "none"}), ("ridge", {"standardise": "l2"}), ("lda", {})]
    + [("centroid", {"metric": m, "centre": c}) for m in ("cosine", "euclidean") for c in (0, 1)],
)
def test_a_rotation_changes_no_prediction(task, options, inputs):
    if "centre" in options:
        options = {**options, "centre": bool(options["centre"])}
    turn = ortho_group.rvs(12, random_state=0)
    turned = dataclasses.replace(
        inputs,
        train=dataclasses.replace(
            inputs.train, features=inputs.train.features.astype(float) @ turn
        ),
        test=dataclasses.replace(inputs.test, features=inputs.test.features.astype(float) @ turn),
    )
    first, second = (run_task(with_options(task, **options), one) for one in (inputs, turned))
    np.testing.assert_array_equal(first.predictions["prediction"], second.predictions["prediction"])
    column = COLUMNS[task]
    np.testing.assert_allclose(first.predictions[column], second.predictions[column], rtol=1e-4)


def test_confidence_is_the_largest_posterior_and_survives_float32(inputs):
    outcome = run_task(default_protocol("lda"), inputs)
    head = fit_lda(inputs.train.features, inputs.train.labels)
    shares = shares_of(head, inputs.test.features, 4)
    np.testing.assert_allclose(outcome.predictions["confidence"], shares.max(axis=1), rtol=1e-5)


def test_a_fixed_shrinkage_uses_its_amount(inputs):
    outcome = run_task(with_options("lda", shrinkage="fixed", shrinkage_amount=0.25), inputs)
    assert outcome.details["shrinkage"] == "fixed"
    assert outcome.details["shrinkage_amount"] == 0.25
    outcome = run_task(with_options("lda", shrinkage="none", shrinkage_amount=0.25), inputs)
    assert outcome.details["shrinkage_amount"] == 0.0
