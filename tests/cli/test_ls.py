"""What `featcache ls` prints is read in a terminal of 80 columns."""

import json

import pytest
from typer.testing import CliRunner

from featcache.backbones.catalog import BACKBONES
from featcache.cli.app import app


def printed(*words: str) -> str:
    out = CliRunner().invoke(app, ["ls", "backbones", *words])
    assert out.exit_code == 0, out.output
    return out.stdout


@pytest.mark.parametrize("pattern", ["*", "clip*"])
def test_a_row_of_backbones_fits_80_columns(pattern):
    lines = printed(pattern).splitlines()
    assert len(lines) > len(BACKBONES.names(pattern))
    assert max(map(len, lines)) <= 80


def test_a_row_of_backbones_tells_data_size_cost_and_pixels():
    head, row = (line.split() for line in printed("dinov2_vitb14*").splitlines()[:5][2::2])
    assert head == ["name", "data", "params_m", "gflops", "px"]
    assert row == ["dinov2_vitb14", "LVD-142M", "85.7", "23.2", "224"]


def test_pretraining_data_is_shortened_in_the_table_alone():
    name = "vit_base_in21ft1k"
    assert "IN-21k + IN-1k" in printed(f"{name}*")
    (row,) = json.loads(printed(name, "--json"))
    assert row["data"] == "ImageNet-21k, then ImageNet-1k"
    assert row["licence"] == "apache-2.0"


def test_one_row_is_counted_as_one():
    assert CliRunner().invoke(app, ["ls", "tasks", "know*"]).stdout.startswith("0 tasks")
    assert CliRunner().invoke(app, ["ls", "tasks", "kn*"]).stdout.startswith("1 task\n")


def test_a_whole_name_shows_all_that_is_known(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out = CliRunner().invoke(app, ["ls", "datasets", "roxford5k"]).stdout
    assert max(map(len, out.splitlines())) <= 80
    facts = dict(line[1:].split("   ", 1) for line in out.splitlines() if "   " in line[1:])
    facts = {name: text.strip() for name, text in facts.items()}
    assert facts["splits"] == "query, gallery, whole-query"
    assert facts["rows"] == "query=70, gallery=4993, whole-query=70"
    assert facts["licence"] == "not stated; the photographs are Flickr users'"
    assert "fact" not in printed("clip*")
    (row,) = json.loads(printed("clip_resnet101", "--json"))
    assert row["name"] == "clip_resnet101"


@pytest.mark.parametrize("words", [("datasets", "--task", "retrieval"), ("suites",), ("tasks",)])
def test_other_lists_are_folded_to_the_width_that_is_asked_for(words, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out = CliRunner().invoke(app, ["ls", *words])
    assert out.exit_code == 0, out.output
    assert max(map(len, out.stdout.splitlines())) <= 80
    monkeypatch.delenv("COLUMNS")
    wide = CliRunner().invoke(app, ["ls", *words]).stdout.splitlines()
    assert len(wide) < len(out.stdout.splitlines())  # in a pipe a row is a line
