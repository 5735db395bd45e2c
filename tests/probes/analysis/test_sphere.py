from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from featcache.errors import ShapeError
from featcache.probes import arrays
from featcache.probes.analysis import sphere
from featcache.probes.analysis.sphere import alignment, mean_cosine, mean_norm, uniformity


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def rows():
    return np.random.default_rng(0).normal(size=(50, 6)) + 0.4


def test_uniformity_is_the_log_mean_of_the_potential(rows):
    expected = np.log(np.exp(-2 * pdist(unit(rows), "sqeuclidean")).mean())
    assert uniformity(rows) == pytest.approx(expected, abs=1e-12)


def test_blocks_do_not_change_uniformity(rows, monkeypatch):
    def small(n_rows, row_bytes):
        return arrays.row_blocks(n_rows, row_bytes, 7 * row_bytes)

    whole = uniformity(rows)
    monkeypatch.setattr(sphere, "row_blocks", small)
    assert uniformity(rows) == pytest.approx(whole, abs=1e-12)


def test_a_large_temperature_does_not_underflow():
    rows = np.array([[1.0, 0.0], [-1.0, 0.0]])
    assert uniformity(rows, temperature=1e4) == pytest.approx(-4e4)


def test_alignment_is_the_mean_over_pairs_of_a_class(rows):
    labels = np.random.default_rng(1).integers(0, 4, 50)
    squares = np.concatenate([pdist(unit(rows)[labels == c], "sqeuclidean") for c in range(4)])
    assert alignment(rows, labels) == pytest.approx(squares.mean(), abs=1e-12)
    assert alignment(rows, 9 - labels) == pytest.approx(squares.mean(), abs=1e-12)


def test_mean_cosine_is_over_pairs(rows):
    expected = 1 - pdist(rows, "cosine").mean()
    assert mean_cosine(rows) == pytest.approx(expected, abs=1e-12)


def test_equal_rows_are_aligned_and_not_uniform():
    rows = np.full((9, 3), 60000, np.float16)
    assert alignment(rows, np.zeros(9, np.int64)) == pytest.approx(0, abs=1e-12)
    assert uniformity(rows) == pytest.approx(0, abs=1e-9)
    assert mean_cosine(rows) == pytest.approx(1)
    assert mean_norm(rows) == pytest.approx(rows[0, 0] * np.sqrt(3.0))


def test_zero_rows_single_rows_and_single_classes():
    rows = np.array([[1.0, 0.0], [0.0, 0.0]])
    for method in (uniformity, mean_cosine):
        with pytest.raises(ShapeError, match="non-zero norm"):
            method(rows)
        with pytest.raises(ShapeError, match="two rows at least"):
            method(rows[:1])
    with pytest.raises(ShapeError, match="non-zero norm"):
        alignment(rows, np.array([0, 0]))
    with pytest.raises(ShapeError, match="a class with two rows"):
        alignment(rows, np.array([0, 1]))
    assert mean_norm(rows) == 0.5
