from __future__ import annotations

import numpy as np
import pytest

from featcache.errors import ShapeError
from featcache.probes.fewshot.draws import draw_shots

NAMES = ("ant", "bee", "cat")


@pytest.fixture
def rows():
    labels = np.repeat([0, 1, 2], [30, 12, 20])
    return labels, np.array([f"i{row:03d}" for row in range(62)])


def drawn(labels, ids, **others):
    chosen = {"shots": (1, 2, 5, 10), "n_draws": 3, "seed": 4, **others}
    return draw_shots(labels, ids, NAMES, **chosen)


def test_each_class_gives_its_shots_and_larger_numbers_hold_smaller_ones(rows):
    labels, ids = rows
    for one in drawn(labels, ids):
        for n, chosen in one.rows.items():
            np.testing.assert_array_equal(np.bincount(labels[chosen]), [n, n, n])
        assert set(one.rows[1]) < set(one.rows[2]) < set(one.rows[5]) < set(one.rows[10])


def test_draws_differ_and_repeat_with_the_seed(rows):
    first, again = drawn(*rows), drawn(*rows)
    assert [one.digests for one in first] == [one.digests for one in again]
    assert len({one.digests[5] for one in first}) == 3
    assert drawn(*rows, seed=5)[0].digests != first[0].digests


def test_the_order_of_rows_changes_no_shot(rows):
    labels, ids = rows
    order = np.random.default_rng(0).permutation(62)
    first, second = drawn(labels, ids)[0], drawn(labels[order], ids[order])[0]
    assert first.digests == second.digests
    assert set(ids[first.rows[5]]) == set(ids[order][second.rows[5]])


def test_other_numbers_and_other_classes_change_no_shot(rows):
    labels, ids = rows
    first = drawn(labels, ids)[0]
    assert set(drawn(labels, ids, shots=(2, 7))[0].rows[2]) == set(first.rows[2])
    kept = labels != 1
    second = drawn(labels[kept], ids[kept])[0]
    own = {name for name in ids[first.rows[5]] if labels[ids == name][0] != 1}
    assert own == set(ids[kept][second.rows[5]])


def test_a_class_with_too_few_rows_is_named_or_gives_all_it_has(rows):
    with pytest.raises(ShapeError, match="must have 25 train rows for 25 shots; 'bee' has 12"):
        drawn(*rows, shots=(5, 25))
    labels, ids = rows
    one = drawn(labels, ids, shots=(5, 25), allow_fewer=True)[0]
    np.testing.assert_array_equal(np.bincount(labels[one.rows[25]]), [25, 12, 20])
