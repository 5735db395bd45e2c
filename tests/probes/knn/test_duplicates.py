from __future__ import annotations

import numpy as np
import pytest

from featcache.probes.knn import duplicates
from featcache.probes.knn.duplicates import find_copies, join


def groups(copies):
    return {
        int(first): copies.members[start : start + size].tolist()
        for first, start, size in zip(copies.first, copies.starts, copies.sizes, strict=True)
    }


def brute(rows):
    found = {}
    for number, row in enumerate(rows):
        found.setdefault(row.tobytes(), []).append(number)
    return {members[0]: members for members in found.values() if len(members) > 1}, sorted(
        members[0] for members in found.values()
    )


@pytest.mark.parametrize("dim", [1, 2, 5, 16])
@pytest.mark.parametrize("different", [1, 30, 400])
def test_equal_rows_are_grouped_by_their_first(dim, different):
    rng = np.random.default_rng(0)
    rows = rng.integers(-3, 4, (different, dim)).astype(np.float32)[rng.integers(0, different, 300)]
    copies, kept = find_copies(rows)
    expected, first = brute(rows)
    assert groups(copies) == expected
    assert kept.tolist() == first


def test_rows_of_one_hash_that_differ_stand_for_themselves(monkeypatch):
    monkeypatch.setattr(duplicates, "_hashes", lambda rows: np.zeros(len(rows), np.uint64))
    rows = np.array([[1], [2], [1], [2], [3]], np.float32)
    copies, kept = find_copies(rows)
    assert groups(copies) == {0: [0, 2]}
    assert kept.tolist() == [0, 1, 3, 4]


def test_round_numbers_do_not_share_their_hashes():
    rng = np.random.default_rng(0)
    rows = np.unique(rng.integers(-1, 2, (20_000, 24)).astype(np.float32) * 1024, axis=0)
    assert len(np.unique(duplicates._hashes(rows))) == len(rows)


def test_groups_of_blocks_are_joined():
    rows = np.repeat(np.arange(5, dtype=np.float32), 3)[:, None]
    parts = [find_copies(rows[i : i + 5])[0].shifted(i) for i in (0, 5, 10)]
    assert groups(join(parts)) == {
        0: [0, 1, 2],
        3: [3, 4],
        6: [6, 7, 8],
        10: [10, 11],
        12: [12, 13, 14],
    }
    assert groups(join([])) == {}


def test_the_size_of_a_row_without_copies_is_one():
    copies, _ = find_copies(np.array([[1], [2], [1]], np.float32))
    group, size = copies.of(np.array([[0, 1, -1]]))
    assert size.tolist() == [[2, 1, 0]]
    assert group[0, 0] == 0
    none, _ = find_copies(np.array([[1], [2]], np.float32))
    assert none.of(np.array([0, -1]))[1].tolist() == [1, 0]
