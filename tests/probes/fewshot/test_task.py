from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize

from featcache.errors import OptionError, ShapeError
from featcache.probes.catalog import default_protocol, load_protocol
from featcache.probes.closed_form.options import RidgeOptions
from featcache.probes.closed_form.ridge_probe import fit_ridge
from featcache.probes.fewshot.classifiers import predict_from_shots
from featcache.probes.fewshot.draws import draw_shots
from featcache.probes.run import run_task
from featcache.probes.tasks import TaskInputs


@pytest.fixture
def inputs(make_table):
    train = make_table(160, seed=1, name="train")
    return TaskInputs(train=train, test=make_table(90, seed=2, name="test"), seed=5)


def with_options(name, **options):
    protocol = load_protocol(name)
    return replace(protocol, options={**protocol.options, **options})


def test_each_draw_is_scored_as_scikit_learn_scores_it(inputs):
    outcome = run_task(default_protocol("fewshot"), inputs)
    train, test = inputs.train, inputs.test
    draws = draw_shots(train.labels, train.ids, train.class_names, (1, 2, 5, 10), n_draws=5, seed=5)
    for n in (1, 2, 5, 10):
        expected = []
        for one in draws:
            rows = one.rows[n]
            model = LogisticRegression(C=1.0, tol=1e-8, max_iter=5000)
            model.fit(normalize(train.features[rows].astype(np.float64)), train.labels[rows])
            expected.append(model.score(normalize(test.features.astype(np.float64)), test.labels))
        assert outcome.details["top1_of_each_draw"][str(n)] == pytest.approx(expected)
        assert outcome.metrics[f"top1@{n}"] == pytest.approx(np.mean(expected))
        low, high = stats.t.interval(0.95, 4, loc=np.mean(expected), scale=stats.sem(expected))
        assert outcome.intervals[f"top1@{n}"] == pytest.approx((low, high))
    assert outcome.metrics["top1"] == outcome.metrics["top1@5"]
    assert outcome.predictions["share_right"].mean() == pytest.approx(outcome.metrics["top1"])
    low, high = outcome.intervals["top1"]
    assert low < outcome.metrics["top1"] < high


@pytest.mark.parametrize("method", ["logistic", "ridge", "big_vision", "centroid"])
def test_more_shots_help_every_method(inputs, method):
    protocol = with_options("fewshot@1", method=method, shots=[1, 5, 30], strength=1.0)
    metrics = run_task(protocol, inputs).metrics
    assert 0.4 < metrics["top1@1"] < metrics["top1@30"]


@pytest.mark.parametrize("name", ["mieb-fewshot@1", "bigvision-fewshot@1"])
def test_published_protocols_run(inputs, name):
    outcome = run_task(load_protocol(name), inputs)
    assert outcome.metrics["top1"] > 0.5
    assert len(outcome.details["shots_digest"]) == len(load_protocol(name).options["shots"])


def test_the_strength_on_record_is_the_one_used(inputs):
    few = {"shots": [2, 8], "primary_shots": 8, "n_draws": 2, "strength": 3.0}
    found = {}
    for method in ("logistic", "ridge", "big_vision", "centroid"):
        outcome = run_task(with_options("fewshot@1", method=method, **few), inputs)
        found[method] = outcome.details["strength_of_each_draw"]
        assert outcome.details["method"] == method
    assert found["logistic"] == found["big_vision"] == {"2": [3.0, 3.0], "8": [3.0, 3.0]}
    assert found["centroid"] == {"2": [None, None], "8": [None, None]}
    train = inputs.train
    draws = draw_shots(train.labels, train.ids, train.class_names, (2, 8), n_draws=2, seed=5)
    for n in (2, 8):
        rows = [one.rows[n] for one in draws]
        fits = [fit_ridge(train.features[r], train.labels[r], RidgeOptions()) for r in rows]
        assert found["ridge"][str(n)] == [one.details["strength"] for one in fits]


@pytest.mark.parametrize(
    "options",
    [
        {"standardise": "none"},
        {"standardise": "zscore"},
        {"method": "ridge"},
        {"method": "big_vision"},
        {"method": "centroid"},
    ],
)
def test_a_zero_row_is_refused_only_where_rows_are_normalised(inputs, options):
    features = inputs.test.features.copy()
    features[11] = 0
    broken = replace(inputs, test=replace(inputs.test, features=features))
    with pytest.raises(ShapeError, match=f"non-zero norm.*{inputs.test.ids[11]}"):
        run_task(default_protocol("fewshot"), broken)
    outcome = run_task(with_options("fewshot@1", **options), broken)
    assert outcome.n == len(inputs.test)
    assert 0.5 < outcome.metrics["top1"] < 1


def test_two_classes_are_classified_as_scikit_learn_does_in_the_protocol_that_imitates_it(
    make_clusters,
):
    x, y = make_clusters(300, 12, 2, spread=0.2)
    kept = np.concatenate([np.flatnonzero(y == 0)[:60], np.flatnonzero(y == 1)[:20]])
    rows, labels, queries = x[kept].astype(np.float64), y[kept], x.astype(np.float64)
    options = replace(load_protocol("mieb-fewshot@1").parsed_options(), strength=0.1)
    model = LogisticRegression(C=0.1, tol=1e-8, max_iter=5000).fit(rows, labels)
    found, _ = predict_from_shots(rows, labels, queries, options)
    np.testing.assert_array_equal(found, model.predict(queries))
    weaker, _ = predict_from_shots(rows, labels, queries, replace(options, binary="softmax"))
    assert (weaker != found).sum() >= 5


def test_the_shots_do_not_depend_on_the_features(inputs):
    other = replace(inputs, train=replace(inputs.train, features=inputs.train.features[:, ::-1]))
    first = run_task(default_protocol("fewshot"), inputs)
    second = run_task(default_protocol("fewshot"), other)
    assert first.details["shots_digest"] == second.details["shots_digest"]


def test_too_few_rows_and_wrong_options_are_refused(inputs):
    with pytest.raises(ShapeError, match="must have 41 train rows for 41 shots; 'class0' has 40"):
        run_task(with_options("fewshot@1", shots=[5, 41]), inputs)
    with pytest.raises(OptionError, match="`primary_shots` must be one of `shots`; got 5"):
        with_options("fewshot@1", shots=[1, 2])
    with pytest.raises(OptionError, match="`n_draws` must be at least 1"):
        with_options("fewshot@1", n_draws=0)
    alone = run_task(with_options("fewshot@1", n_draws=1), inputs)
    assert set(alone.intervals) == {"top1"}
