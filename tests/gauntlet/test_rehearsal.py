"""Every shipped suite runs from end to end on miniatures of its datasets: each cell is done."""

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

import featcache
from featcache.cli.app import app
from featcache.datasets.named import named
from featcache.extraction.options import Options
from featcache.probes.catalog import load_protocol
from featcache.verbs import run as running
from featcache.verbs.plan import plan
from featcache.verbs.run import Ledger
from featcache.verbs.suite import Suite, load_suite, shipped
from tests.gauntlet.miniatures import write_all

BACKBONES = ("pixels", "random:test_vit")
TRANSFORMABLE = ("random:test_vit",)
"""Of these the one whose transform a protocol may choose."""
LIMIT = 20


def cut(name: str) -> Suite:
    """Return a shipped suite with small backbones in the place of its own."""
    whole = load_suite(name)
    cells = dict.fromkeys(
        replace(cell, backbone=backbone)
        for cell in whole.cells
        for backbone in (
            TRANSFORMABLE if load_protocol(cell.protocol).requires.transform else BACKBONES
        )
    )
    return replace(whole, cells=tuple(cells))


def sources(suite: Suite) -> set[str]:
    return {source.partition("?")[0] for cell in suite.cells for source in cell.datasets}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with the files of every dataset, a cache, and the ground truths."""
    root = tmp_path_factory.mktemp("gauntlet")
    every = {source for name in shipped() for source in sources(cut(name))}
    write_all(root / "data", sorted(name for name in every if "reader" in named()[name]))
    return root


@pytest.fixture(autouse=True)
def _here(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setenv("FEATCACHE_DATA", str(place / "data"))


def test_ground_truths_are_written_where_protocols_look_for_them(place):
    for name in ("roxford5k", "rparis6k", "gldv2"):
        assert CliRunner().invoke(app, ["ground-truth", name]).exit_code == 0
        assert (place / f"{name}.json").is_file()


def rehearsed(name: str, place: Path):
    return featcache.run(
        cut(name),
        cache=place / "cache",
        limit=LIMIT,
        device="cpu",
        options=Options(workers=0),
    )


@pytest.mark.parametrize("name", [name for name in shipped() if name != "bob"])
def test_every_cell_of_a_suite_is_done_and_a_second_run_does_nothing(name, place, monkeypatch):
    ended = rehearsed(name, place)
    assert {one.cell.name: one.reason for one in ended if one.reason} == {}
    assert {one.status for one in ended} <= {"done", "stored"}  # suites share some cells
    assert len(ended) >= len(cut(name).cells)
    planned = plan(cut(name), cache=place / "cache", limit=LIMIT)
    assert Ledger(place / "cache", planned).failures() == {}
    monkeypatch.setenv("FEATCACHE_DATA", str(place / "nothing"))
    monkeypatch.setattr(running, "extract", None)
    again = rehearsed(name, place)
    assert [one.status for one in again] == ["stored"] * len(ended)
    assert [one.result.id for one in again] == [one.result.id for one in ended]


def test_the_study_is_done_with_its_three_suites(place):
    assert {one.status for one in rehearsed("bob", place)} == {"stored"}


def test_classes_are_told_apart_where_they_have_colours(place):
    """Labels that were read wrongly, or shuffled, would leave the score at chance."""
    for name in ("imagenet", "cifar10", "flowers102", "stanford-cars", "eurosat", "inat2019"):
        pattern = f"{name}-part-{LIMIT}/knn/pixels/*"
        (result,) = featcache.results(pattern, cache=place / "cache")
        assert result.score > 0.5, name
