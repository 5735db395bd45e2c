"""Fits: what comes back is what was kept, or nothing."""

import numpy as np
import pytest

from featcache.errors import StoreError
from featcache.fit_store import Fit, FitQuestion, FitStore


def question(**given):
    fields = {"task": "ood", "backbone": "tiny", "inputs": {}, "options": {}, "seed": 0}
    return FitQuestion(**{**fields, **given})


@pytest.fixture
def fit():
    rng = np.random.default_rng(0)
    arrays = {
        "axes": rng.normal(size=(5, 5)),
        "turned": rng.normal(size=(3, 4)).T,
        "scale": np.float64(2.5),
        "seen": np.array([True, False]),
        "predicted": np.arange(7),
        "none": np.empty((0, 3)),
    }
    return Fit(arrays={name: np.asarray(one) for name, one in arrays.items()}, details={"k": [1]})


def test_a_fit_comes_back_as_it_was_kept(tmp_path, fit):
    FitStore(tmp_path).save(question(), fit)
    found = FitStore(tmp_path).find(question())
    assert found.details == fit.details
    assert found.arrays.keys() == fit.arrays.keys()
    for name, array in fit.arrays.items():
        assert found.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(found.arrays[name], array, strict=True)


@pytest.mark.parametrize(
    "other",
    [{"task": "linear"}, {"inputs": {"train": {"key": "x"}}}, {"options": {"a": 1}}, {"seed": 1}],
)
def test_another_question_finds_nothing(tmp_path, fit, other):
    FitStore(tmp_path).save(question(), fit)
    assert FitStore(tmp_path).find(question(**other)) == Fit()


def test_every_damaged_byte_makes_it_nothing(tmp_path, fit):
    store = FitStore(tmp_path)
    store.save(question(), fit)
    path = store.path_of(question())
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert store.find(question()) == Fit(), place
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        assert store.find(question()) == Fit(), length
    store.save(question(), fit)
    assert path.read_bytes() == whole


def test_a_later_fit_replaces_an_earlier_one(tmp_path, fit):
    store = FitStore(tmp_path)
    store.save(question(), Fit())
    store.save(question(), fit)
    assert store.find(question()).arrays.keys() == fit.arrays.keys()


def test_a_place_that_cannot_be_written_is_named(tmp_path, fit):
    (tmp_path / "fits").write_text("in the way")
    with pytest.raises(StoreError, match="write a fit to"):
        FitStore(tmp_path).save(question(), fit)
