from __future__ import annotations

from itertools import pairwise, permutations

import numpy as np
import pytest

from featcache.errors import ShapeError
from featcache.probes.calibration.risk import aurc, excess_aurc, risk_at_coverage


def by_hand(sure, right):
    """Mean over all orders of the rows that put surer ones first."""
    curves = []
    for order in permutations(range(len(sure))):
        if all(sure[a] >= sure[b] for a, b in pairwise(order)):
            wrong = np.cumsum([not right[row] for row in order])
            curves.append(wrong / np.arange(1, len(sure) + 1))
    return np.mean(curves, axis=0)


@pytest.mark.parametrize("seed", range(5))
def test_ties_are_averaged_over_every_order(seed):
    rng = np.random.default_rng(seed)
    sure, right = rng.integers(1, 4, size=6) / 4, rng.random(6) < 0.5
    np.testing.assert_allclose(risk_at_coverage(sure, right), by_hand(sure, right))
    assert aurc(sure, right) == pytest.approx(by_hand(sure, right).mean())


def test_the_best_order_has_no_excess_and_a_constant_has_the_error_rate():
    right = np.array([True] * 7 + [False] * 3)
    assert excess_aurc(np.linspace(1, 0, 10), right) == pytest.approx(0)
    assert aurc(np.full(10, 0.5), right) == pytest.approx(0.3)
    assert aurc(np.linspace(0, 1, 10), right) > 0.3
    assert risk_at_coverage(np.linspace(1, 0, 10), right)[-1] == pytest.approx(0.3)


def test_no_rows_are_refused():
    with pytest.raises(ShapeError, match="one length, at least 1"):
        aurc(np.empty(0), np.empty(0, dtype=bool))
