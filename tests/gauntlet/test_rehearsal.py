"""Shipped suites from one end to the other, on miniatures of their datasets."""

from dataclasses import replace

import pytest

from featcache.datasets.ground_truth import write_ground_truth
from featcache.datasets.named import DATA_VARIABLE
from featcache.verbs.run import run
from featcache.verbs.suite import load_suite, shipped
from tests.gauntlet.miniatures import write_all

TINY = ("random:test_vit", "random:test_efficientnet")
ROWS = 64
LANDMARKS = ("roxford5k", "rparis6k", "gldv2")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_all(root)
    return root


@pytest.fixture
def study(data, tmp_path, monkeypatch):
    """Return what rehearses a suite with tiny backbones, in a working directory of its own."""
    monkeypatch.setenv(DATA_VARIABLE, str(data))
    monkeypatch.chdir(tmp_path)
    for name in LANDMARKS:
        write_ground_truth(name)

    def rehearse(name):
        suite = load_suite(name)
        cells = [replace(cell, backbone=tiny) for tiny in TINY for cell in suite.cells]
        return run(replace(suite, cells=tuple(dict.fromkeys(cells))), limit=ROWS, device="cpu")

    return rehearse


@pytest.mark.parametrize("name", [name for name in shipped() if name != "bob"])
def test_every_cell_of_a_shipped_suite_runs(name, study):
    ended = study(name)
    assert {one.status for one in ended} == {"done"}, [one.reason for one in ended if one.reason]
    assert {one.status for one in study(name)} == {"stored"}
