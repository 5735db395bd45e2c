import numpy as np
import pytest

from featcache.store.layout import choose_layout
from featcache.store.spool import Batch, Spool

LAYOUT = choose_layout(50, (3,), "float16")
VALUES = np.random.default_rng(0).normal(size=(50, 3)).astype("float16")


def batch(start, stop, **reasons):
    bad = {int(name[1:]): why for name, why in reasons.items()}
    return Batch(start=start, features=VALUES[start:stop], unreadable=bad, seconds=0.5)


def contents(spool):
    return np.concatenate([one.features for one in spool.batches()])


def test_a_reopened_spool_goes_on_where_it_was_left(tmp_path):
    spool = Spool(tmp_path / "s", LAYOUT, 0)
    spool.append(batch(0, 20, r3="truncated"))
    spool.close()
    spool = Spool(tmp_path / "s", LAYOUT, 0)
    assert spool.next_row == 20
    spool.append(batch(20, 50))
    assert spool.is_complete
    np.testing.assert_array_equal(contents(spool), VALUES)
    first = list(spool.batches())[0]  # noqa: RUF015  the file must be read to its end
    assert first.unreadable == {3: "truncated"}
    assert first.seconds == 0.5
    spool.close()


def test_rows_that_are_there_already_are_ignored(tmp_path):
    spool = Spool(tmp_path / "s", LAYOUT, 0)
    spool.append(batch(0, 20))
    spool.append(batch(10, 30, r12="old", r25="new"))
    spool.append(batch(0, 10))
    assert spool.next_row == 30
    np.testing.assert_array_equal(contents(spool), VALUES[:30])
    assert list(spool.batches())[1].unreadable == {25: "new"}
    spool.close()


@pytest.mark.parametrize("where", range(1, 400, 7))
def test_a_file_torn_or_damaged_anywhere_keeps_its_whole_records(tmp_path, where):
    spool = Spool(tmp_path / "s", LAYOUT, 0)
    for start in range(0, 50, 10):
        spool.append(batch(start, start + 10))
    spool.close()
    good = (tmp_path / "s").read_bytes()
    where %= len(good)
    for damaged in (good[:where], good[:where] + bytes([good[where] ^ 1]) + good[where + 1 :]):
        (tmp_path / "s").write_bytes(damaged)
        spool = Spool(tmp_path / "s", LAYOUT, 0)
        whole = sum(where >= end for end in _ends(good))
        assert spool.next_row == 10 * whole
        spool.append(batch(spool.next_row, 50))
        np.testing.assert_array_equal(contents(spool), VALUES)
        spool.close()


def _ends(data):
    ends, position = [], 0
    while position < len(data):
        meta = int.from_bytes(data[position + 4 : position + 8], "little")
        payload = int.from_bytes(data[position + 8 : position + 16], "little")
        position += 20 + meta + payload
        ends.append(position)
    return ends
