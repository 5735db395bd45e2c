"""Real processes, really killed."""

import json
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    directory = tmp_path_factory.mktemp("kill")
    command = [sys.executable, "-m", "tests.extraction.kill_driver", str(directory), "20", "1"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_twenty_kills_at_random_instants_change_no_digest(outcome):
    assert outcome["killed"] >= 20
    assert outcome["resumed"]
    for digests in outcome["resumed"]:
        assert digests == outcome["whole"]


def test_two_processes_on_one_key_share_the_work_and_agree(outcome):
    assert outcome["pair_codes"] == [0, 0]
    assert outcome["pair"] == outcome["whole"]
