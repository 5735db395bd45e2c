"""Real processes, really killed: `benchmarks/torture.py` with few runs."""

import json
import subprocess
import sys

import pytest

from benchmarks.torture import SCENARIOS


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    directory = tmp_path_factory.mktemp("torture")
    command = [sys.executable, "-m", "benchmarks.torture", "--runs", "8", "--json"]
    run = subprocess.run(
        [*command, "--directory", str(directory)], capture_output=True, text=True, timeout=240
    )
    assert run.stdout, run.stderr
    assert not list(directory.iterdir())
    return {one["scenario"]: one for one in json.loads(run.stdout)}


@pytest.mark.parametrize("name", [one.name for one in SCENARIOS])
def test_extraction_survives_being(outcomes, name):
    one = outcomes[name]
    assert one["hits"] > 0
    assert one["wrong"] == []
    assert one["resumed"] == one["interrupted"]
    assert one["equal"] == one["sets"] > 0
    assert one["torn"] == one["leftovers"] == 0
    assert one["reads"] > 0
