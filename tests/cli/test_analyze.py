"""`featcache analyze` as a user types it."""

import json

import pytest
from typer.testing import CliRunner

from featcache.cli.app import app

SECOND = "random:test_vit"


@pytest.fixture
def run(cache):
    def call(*words, code=0):
        out = CliRunner().invoke(app, [*map(str, words), "--cache", str(cache.root)])
        assert out.exit_code == code, (out.output, out.stderr)
        return out

    return call


@pytest.fixture
def words(run):
    run("extract", "--backbone", "pixels", "--dataset", "digits?rows=60")
    return ("analyze", "--backbone", "pixels", "--dataset", "digits-60")


def test_tables_have_a_caption_and_reasons_for_gaps(run, words):
    out = run(*words).stdout
    assert "Baselines on digits-60/train, 60 rows" in out
    assert "never a leaderboard column" in out
    assert "leep of pixels, nce of pixels, energy of pixels: It reads the network's own" in out
    assert "rank_me" in out
    assert "cka" not in out
    assert "already stored" in run(*words).stdout


def test_pairs_are_shown_in_the_order_asked_for(run, words):
    run("extract", "--backbone", SECOND, "--dataset", "digits?rows=60", "--device", "cpu")
    both = (*words[:3], "--backbone", SECOND, *words[3:])
    lines = run(*both).stdout.splitlines()
    title = lines.index("cka")
    assert lines[title + 2].split() == ["pixels", SECOND]
    assert "mutual_neighbours (by chance 0.1695)" in lines
    found = json.loads(run(*both, "--json").stdout)
    swapped = ("analyze", "--backbone", SECOND, "--backbone", "pixels", *words[3:])
    lines = run(*swapped).stdout.splitlines()
    assert lines[title + 2].split() == [SECOND, "pixels"]
    again = json.loads(run(*swapped, "--json").stdout)
    assert again["was_stored"]
    assert again["id"] == found["id"]


def test_json_is_one_document_on_stdout(run, words):
    found = json.loads(run(*words, "--sample", 40, "--json").stdout)
    assert found["rows"]["sampled"] == 40
    assert found["was_stored"] is False
    assert found["options"]["neighbours"] == 10


def test_misuse_exits_2_and_missing_sets_1(run, words):
    assert "--backbone" in run("analyze", "--dataset", "digits-60", code=2).stderr
    assert "each once" in run(*words, "--backbone", "pixels", code=2).stderr
    out = run("analyze", "--backbone", "none", "--dataset", "digits-60", code=1)
    assert "featcache extract" in out.stderr
