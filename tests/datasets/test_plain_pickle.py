"""A pickle is read as data; whatever else it says is refused before it happens."""

import collections
import os
import pickle
import struct

import numpy as np
import pytest

from featcache.datasets.plain_pickle import PlainDataError, load_plain

DATA = {
    "imlist": ["a", "b"],
    "gnd": [
        {
            "bbx": np.array([1.5, 2.0, 3.0, 4.0]),
            "easy": np.array([3, 1], np.int32),
            "hard": np.zeros(0, np.int64),
            "junk": [1, 2**70, -3],
            "more": (None, True, 0.5, "é"),
        }
    ],
    "scalar": np.float64(0.25),
    "grid": np.arange(6, dtype=">i2").reshape(2, 3).T,
}


def load(tmp_path, content):
    (tmp_path / "gnd.pkl").write_bytes(content)
    return load_plain(tmp_path / "gnd.pkl")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL))
def test_plain_data_comes_back_as_python_reads_it(tmp_path, protocol):
    found = load(tmp_path, pickle.dumps(DATA, protocol=protocol))
    np.testing.assert_equal(found, pickle.loads(pickle.dumps(DATA)))
    assert isinstance(found["scalar"], float)
    assert found["grid"].dtype == np.dtype(">i2")


def test_a_pickle_of_python_2_is_read(tmp_path):
    content = (
        b"\x80\x02}q\x00U\x06imlistq\x01]q\x02U\x03\xe9tdas"
        b"U\x04easycnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02i4K\x00K\x01\x87R(K\x03U\x01<NNN"
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08\x07\x00\x00\x00\xff\x00\x00\x00tbs."
    )
    found = load(tmp_path, content)
    assert found["imlist"] == ["étd"]
    assert found["easy"].tolist() == [7, 255]


class Evil:
    def __init__(self, call, *given):
        self.how = call, given

    def __reduce__(self):
        return self.how


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("call", [os.system, eval, getattr, np.load, np.frombuffer, type])
def test_nothing_that_it_names_is_called(tmp_path, protocol, call):
    target = tmp_path / "ran"
    content = pickle.dumps([DATA, Evil(call, f"touch {target}")], protocol=protocol)
    with pytest.raises(PlainDataError, match=r"must hold containers, text and numbers alone"):
        load(tmp_path, content)
    assert not target.exists()


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (collections.OrderedDict(a=1), "names collections.OrderedDict"),
        (np.array([{}], dtype=object), "an array of something else than numbers"),
        (np.array(["text"]), "an array of something else than numbers"),
        (np.zeros(2, [("a", "i4")]), "an array of something else than numbers"),
        (np.datetime64("2020-01-01"), "an array of something else than numbers"),
        (b"bytes", "holds a bytes"),
        ({1}, "holds a set"),
        (np.ndarray, "holds a Call"),
        (np.dtype("f4"), "holds a DType"),
    ],
)
def test_what_is_no_plain_data_is_refused(tmp_path, value, match):
    with pytest.raises(PlainDataError, match=match):
        load(tmp_path, pickle.dumps({"x": value}, protocol=4))


GLOBAL = b"cnumpy.core.multiarray\n_reconstruct\n"
ARRAY = GLOBAL + b"cnumpy\nndarray\nK\x00\x85U\x01b\x87R"
INT4 = b"cnumpy\ndtype\nU\x02i4K\x00K\x01\x87R"


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (GLOBAL + b"}U\x08__code__K\x01sb.", "holds a Call|not: |sets"),  # BUILD on a function
        (GLOBAL + b"N}U\x04nameU\x04evalsb\x86.", "."),
        (GLOBAL + b"(N}U\x04nameU\x04evalstb.", "sets 'name'"),
        (ARRAY + b"(K\x01J\x00\x00\x00\x7f\x85" + INT4 + b"\x89U\x04aaaatb.", "do not fit its sh"),
        (ARRAY + b".", "holds a Array"),
        (ARRAY + b"K\x05b.", "must be a whole pickle"),
        (b"cnumpy\nndarray\nJ\x00\x00\x00\x7f\x85R.", "calls 'ndarray'"),
        (b"cbuiltins\nbytes\nJ\x00\x00\x00\x7f\x85R.", "calls 'bytes'"),
        (b"c_codecs\nencode\nU\x01aU\x03hex\x86R.", "calls 'encode'"),
        (b"\x80\x02U\x03abcQ.", "refers to 'abc'"),
        (b"\x80\x02\x82\x01.", "must be a whole pickle"),  # an extension that is not registered
        (b"]", "must be a whole pickle"),
        (b"", "must be a whole pickle"),
        (b"no pickle", "must be a whole pickle"),
        (b"\x80\x02\x8b" + struct.pack("<i", -1) + b".", "must be a whole pickle"),
        (b"]q\x00h\x00a.", "holds something that holds itself"),
        (b"]" * 40 + b"a" * 39 + b".", "nested more than 16 deep"),
    ],
)
def test_hostile_bytes_are_refused(tmp_path, content, match):
    with pytest.raises(PlainDataError, match=match):
        load(tmp_path, content)


def test_what_refers_to_itself_many_times_costs_no_more(tmp_path):
    value = ["x"]
    for _ in range(14):
        value = [value] * 100
    found = load(tmp_path, pickle.dumps(value))
    assert found[0] is found[99]


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(PlainDataError, match="No such file"):
        load_plain(tmp_path / "none.pkl")
