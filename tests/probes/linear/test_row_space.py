from __future__ import annotations

import numpy as np
import pytest

from featcache.errors import ShapeError
from featcache.probes.linear.row_space import row_space
from featcache.probes.linear.scaling import Rows


def test_rows_keep_their_products_in_the_space_they_span(make_clusters):
    x, _ = make_clusters(6, 20, 2)
    rows, basis, mean = row_space(x)
    np.testing.assert_allclose(rows @ basis.T + mean, x, rtol=1e-6)
    np.testing.assert_allclose(basis.T @ basis, np.eye(6), atol=1e-12)
    assert not row_space(np.full((3, 9), 0.1))[0].any()  # their mean is not quite 0.1


def test_some_rows_of_a_matrix_are_those_rows(make_clusters):
    x, _ = make_clusters(9, 20, 2)
    picked = np.array([7, 1, 4])
    for got, expected in zip(row_space(Rows(x, picked)), row_space(x[picked]), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_rows_that_are_not_finite_are_refused(make_clusters):
    x, _ = make_clusters(4, 9, 2)
    x[2, 3] = np.inf
    with pytest.raises(ShapeError, match="the first is row 2"):
        row_space(x)
