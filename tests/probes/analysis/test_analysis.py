"""The collections of measures: complete, reproducible, with a reason for each gap."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from featcache.errors import OptionError, ShapeError
from featcache.probes.analysis.comparison import LIKENESSES, compare
from featcache.probes.analysis.decomposition import Decomposed
from featcache.probes.analysis.measures import measure
from featcache.probes.analysis.options import AnalysisOptions
from featcache.probes.analysis.representation import PROPERTIES, representation
from featcache.probes.analysis.sampling import common_rows, subsample
from featcache.probes.analysis.transferability import (
    BASELINES,
    HEAD_SCORES,
    SCORES,
    transferability,
)
from tests.probes.analysis.test_source_head import head

OPTIONS = AnalysisOptions(pair_sample=50, mixture_components=2, neighbours=5, batch_rows=16)
ALL_SCORES = {*BASELINES, *SCORES, *HEAD_SCORES}


def scores(rows, labels, **given):
    rng = np.random.default_rng(0)
    return transferability(Decomposed.of(rows), labels, OPTIONS, rng, **given)


def described(rows, labels):
    return representation(Decomposed.of(rows), labels, OPTIONS, np.random.default_rng(0))


def test_every_score_has_a_value_where_there_is_a_head(make_clusters):
    rows, labels = make_clusters(80, 16, 3)
    given = head(np.random.default_rng(0).normal(size=(16, 5)))
    found = scores(rows, labels, head=given)
    assert set(found.values) == ALL_SCORES
    assert found.skipped == {}
    assert found.notes["parc"] == {"rows": 50}
    assert json.loads(json.dumps(found.to_json())) == found.to_json()
    assert {type(value) for value in found.values.values()} == {float}


def test_without_a_native_head_its_scores_are_skipped_with_a_reason(make_clusters):
    rows, labels = make_clusters(80, 16, 3)
    found = scores(rows, labels)
    assert set(found.skipped) == set(HEAD_SCORES)
    assert "none is given" in found.skipped["leep"]
    fitted = head(np.ones((16, 3)), kind="probe")
    assert "kind 'probe'" in scores(rows, labels, head=fitted).skipped["nce"]


def test_unlabelled_rows_are_left_out_of_scores(make_clusters):
    rows, labels = make_clusters(80, 16, 3)
    partly = labels.copy()
    partly[60:] = -1
    assert scores(rows, partly).values == scores(rows[:60], labels[:60]).values
    none = scores(rows, np.full(80, -1))
    assert none.values == {}
    assert set(none.skipped) == ALL_SCORES
    with pytest.raises(ShapeError, match="one label per row"):
        scores(rows, labels[:9])


def test_one_class_zero_rows_and_few_rows_give_reasons_not_errors(make_clusters):
    rows, labels = make_clusters(12, 16, 3)
    one_class = scores(rows, np.zeros(12, np.int64))
    assert "two classes" in one_class.skipped["sfda"]
    rows[3] = 0
    found = scores(rows, labels)
    assert "non-zero norm" in found.skipped["knn_loo"]
    assert "logme" in found.values
    assert "non-zero norm" in described(rows, labels).skipped["mean_cosine"]
    single = described(rows[:1], labels[:1])
    assert set(single.values) | set(single.skipped) == set(PROPERTIES)
    assert set(scores(rows[:1], labels[:1]).skipped) >= {"knn_loo", "ridge_loo", "parc"}


def test_every_property_has_a_value(make_clusters):
    rows, labels = make_clusters(80, 16, 3)
    found = described(rows.astype(np.float16), labels)
    assert set(found.values) == set(PROPERTIES)
    assert found.notes == {"alpha_req": {"eigenvalues": [11, 16]}, "uniformity": {"rows": 50}}
    assert "needs labels" in described(rows, np.full(80, -1)).skipped["alignment"]


def test_a_second_run_is_identical(make_clusters):
    rows, labels = make_clusters(80, 16, 3)
    assert scores(rows, labels) == scores(rows, labels)
    assert described(rows, labels) == described(rows, labels)


def test_a_value_that_is_not_finite_is_skipped():
    found = measure({"bad": lambda: float("inf"), "good": lambda: (1.0, {"k": 2})})
    assert found.values == {"good": 1.0}
    assert "no finite value" in found.skipped["bad"]
    assert found.notes == {"good": {"k": 2}}


def test_matrices_are_symmetric_with_a_unit_diagonal(make_clusters):
    rows, _ = make_clusters(80, 16, 3)
    sets = {"a": rows, "b": rows[:, ::-1] * 2, "c": rows[:, :5] ** 2}
    found = compare(sets, OPTIONS, np.random.default_rng(0))
    assert set(found.matrices) == set(LIKENESSES)
    assert found.skipped == {}
    for name in LIKENESSES:
        matrix = np.array(found.matrices[name], float)
        np.testing.assert_array_equal(matrix, matrix.T)
        np.testing.assert_array_equal(np.diag(matrix), 1)
        assert matrix[0, 1] == pytest.approx(1, abs=1e-6)  # a permutation of dimensions
        assert matrix[0, 2] < 0.95
    assert found.notes["cka_batches"] == 5
    assert found.notes["rsa_rows"] == 50
    assert json.loads(json.dumps(found.to_json())) == found.to_json()


def test_a_pair_does_not_depend_on_the_other_sets(make_clusters):
    rows, _ = make_clusters(80, 16, 3)
    a, b, c = rows, rows[:, :5] ** 2, rows**3
    three = compare({"a": a, "b": b, "c": c}, OPTIONS, np.random.default_rng(0))
    two = compare({"a": a, "c": c}, OPTIONS, np.random.default_rng(0))
    for name in LIKENESSES:
        assert two.matrices[name][0][1] == three.matrices[name][0][2]


def test_a_set_that_cannot_be_compared_leaves_gaps_with_reasons(make_clusters):
    rows, _ = make_clusters(80, 16, 3)
    bad = rows.copy()
    bad[2] = 0
    found = compare({"a": rows, "b": bad}, OPTIONS, np.random.default_rng(0))
    assert found.matrices["mutual_neighbours"] == [[1.0, None], [None, 1.0]]
    assert "non-zero norm" in found.skipped["mutual_neighbours: a, b"]
    assert found.matrices["cka"][0][1] is not None
    with pytest.raises(ShapeError, match="Two or more sets of the same rows"):
        compare({"a": rows, "b": rows[:9]}, OPTIONS, np.random.default_rng(0))
    with pytest.raises(ShapeError, match="Two or more sets"):
        compare({"a": rows}, OPTIONS, np.random.default_rng(0))


def test_rows_are_matched_by_id_whatever_their_order():
    first = np.array(["d", "a", "c", "b"])
    second = np.array(["x", "c", "b", "d"])
    found = common_rows([first, second], 10, np.random.default_rng(0))
    assert found.ids.tolist() == ["b", "c", "d"]
    assert first[found.rows[0]].tolist() == second[found.rows[1]].tolist() == ["b", "c", "d"]
    assert (found.n_common, found.n_missing) == (3, (1, 1))
    with pytest.raises(ShapeError, match="no id in common"):
        common_rows([first, np.array(["z"])], 10, np.random.default_rng(0))


def test_a_draw_depends_on_ids_and_seed_alone():
    ids = np.array([f"{i:03d}" for i in range(100)])
    shuffled = ids[np.random.default_rng(9).permutation(100)]
    one, two = (common_rows([x], 20, np.random.default_rng(1)) for x in (ids, shuffled))
    assert len(one.ids) == 20
    assert one.ids.tolist() == two.ids.tolist() == sorted(set(one.ids.tolist()))
    assert shuffled[two.rows[0]].tolist() == one.ids.tolist()
    other = common_rows([ids], 20, np.random.default_rng(2))
    assert other.ids.tolist() != one.ids.tolist()


def test_a_subsample_is_without_replacement():
    found = subsample(50, 20, np.random.default_rng(0))
    assert len(set(found.tolist())) == 20
    assert subsample(5, 20, np.random.default_rng(0)).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sample", 3),
        ("pair_sample", 3),
        ("neighbours", 0),
        ("batch_rows", 3),
        ("parc_dims", -1),
        ("bhattacharyya_dims", -1),
        ("mixture_components", 0),
        ("mixture_variance", 1.0),
        ("mixture_operations", 0.0),
        ("temperature", 0.0),
        ("epsilon", 0.0),
        ("energy_share", 1.5),
    ],
)
def test_an_option_out_of_range_is_refused(field, value):
    with pytest.raises(OptionError, match=f"`{field}` must be"):
        replace(AnalysisOptions(), **{field: value})


def test_the_options_load_nothing_heavy():
    code = (
        "import sys, featcache.probes.analysis.options\n"
        "heavy = {'torch', 'sklearn', 'scipy', 'faiss', 'zarr', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
