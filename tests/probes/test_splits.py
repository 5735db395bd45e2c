from __future__ import annotations

import numpy as np
import pytest

from featcache.errors import OptionError
from featcache.probes.splits import stratified_split


def test_each_class_gives_its_share():
    labels = np.repeat([0, 1, 2], [100, 10, 50])
    rest, held = stratified_split(labels, 0.2, np.random.default_rng(0))
    assert np.bincount(labels[held]).tolist() == [20, 2, 10]
    np.testing.assert_array_equal(np.sort(np.concatenate([rest, held])), np.arange(160))


@pytest.mark.parametrize("fraction", [0.01, 0.5, 0.99])
def test_classes_of_two_stay_on_both_sides_and_single_rows_in_the_first(fraction):
    labels = np.array([7, 3, 5, 3, 5, 5])
    rest, held = stratified_split(labels, fraction, np.random.default_rng(0))
    assert set(labels[held]) == {3, 5}
    assert set(labels[rest]) == {3, 5, 7}


def test_the_generator_alone_decides():
    labels = np.arange(60) % 4
    first, again, other = (
        stratified_split(labels, 0.3, np.random.default_rng(seed))[1].tolist() for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_no_rows_give_two_empty_parts():
    rest, held = stratified_split(np.zeros(0, dtype=np.int64), 0.2, np.random.default_rng(0))
    assert len(rest) == len(held) == 0


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_a_fraction_outside_the_open_interval_is_refused(fraction):
    with pytest.raises(OptionError, match="`fraction` must be between 0 and 1"):
        stratified_split(np.zeros(4, dtype=np.int64), fraction, np.random.default_rng(0))
