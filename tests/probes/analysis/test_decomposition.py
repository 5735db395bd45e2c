from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA

from featcache.errors import ShapeError
from featcache.probes.analysis.decomposition import (
    class_sums,
    compact,
    decompose,
    principal_components,
)


@pytest.mark.parametrize("centre", [False, True])
@pytest.mark.parametrize("shape", [(40, 7), (7, 40), (9, 9), (1, 5), (5, 1)])
def test_a_decomposition_gives_the_features_back(shape, centre):
    rows = np.random.default_rng(0).normal(size=shape) + 2
    rows[:, 0] = 3.0  # constant
    found = decompose(rows, centre=centre)
    expected = rows - rows.mean(axis=0) * centre
    np.testing.assert_allclose(found.left * found.values @ found.right, expected, atol=1e-12)
    own = found.left[:, : found.rank]
    np.testing.assert_allclose(own.T @ own, np.eye(found.rank), atol=1e-9)
    assert found.rank == np.linalg.matrix_rank(expected)
    assert (np.diff(found.values) <= 0).all()


def test_an_ill_conditioned_set_keeps_its_smallest_direction():
    rows = np.random.default_rng(0).normal(size=(50, 5))
    rows[:, 0] *= 1e-9
    found = decompose(rows, centre=False)
    np.testing.assert_allclose(
        found.values, np.linalg.svd(rows, compute_uv=False), rtol=1e-7, atol=0
    )
    assert found.rank == 5


def test_principal_components_are_those_of_sklearn_signs_included():
    rows = np.random.default_rng(0).normal(size=(60, 9)) @ np.diag(np.arange(1.0, 10))
    found = principal_components(decompose(rows, centre=True), 4)
    expected = PCA(4, svd_solver="full").fit_transform(rows)
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_there_are_no_more_components_than_the_rank():
    rows = np.random.default_rng(0).normal(size=(5, 20))
    assert principal_components(decompose(rows, centre=True), 64).shape == (5, 4)
    assert principal_components(decompose(rows, centre=True), 0).shape == (5, 4)


def test_equal_rows_have_no_axes():
    rows = np.full((50, 3), 0.1)  # the rounded mean of fifty 0.1 is not 0.1
    assert decompose(rows, centre=True).rank == 0
    with pytest.raises(ShapeError, match="all are equal"):
        principal_components(decompose(rows, centre=True), 2)


def test_class_sums_add_rows_and_leave_absent_classes_zero():
    rows = np.arange(8.0).reshape(4, 2)
    np.testing.assert_array_equal(
        class_sums(rows, np.array([3, 0, 3, 0])), [[8, 10], [0, 0], [0, 0], [4, 6]]
    )


def test_compact_numbers_classes_without_gaps():
    np.testing.assert_array_equal(compact(np.array([7, 2, 7, 4])), [2, 0, 2, 1])


def test_features_must_be_finite():
    with pytest.raises(ShapeError, match="must be finite"):
        decompose(np.array([[1.0, np.nan], [0.0, 1.0]]), centre=True)
    with pytest.raises(ShapeError, match="must be a matrix"):
        decompose(np.ones(3), centre=True)
