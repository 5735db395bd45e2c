"""Every row of the registry, untrained, goes from images to four tasks; one process a row."""

import json
import subprocess
import sys

import pytest

from benchmarks.gauntlet import needed_bytes
from featcache.backbones.catalog import entries
from tests.gauntlet.rehearsal import TASKS

LIMIT = 8
MOST_BYTES = 8 * 2**30
"""Memory of a machine that runs all tests."""
MOST_GFLOPS = 300
"""Per image; what is above takes minutes on such a machine."""
GIANTS = {
    "aimv2_vit1b14": "1.2 thousand million parameters",
    "dinov2_vitg14": "1.1 thousand million parameters",
    "dinov2_vitg14_reg4": "1.1 thousand million parameters",
    "pe_core_vitg14_448": "1.9 thousand million parameters, images of 448 pixels",
    "sam_vitb16_1024": "images of 1024 pixels",
    "siglip2_vitgopt16_256": "1.2 thousand million parameters",
    "stable_diffusion_v1": "0.69 tera multiply-accumulates per image",
    "tipsv2_so400m14_448": "0.49 tera multiply-accumulates per image",
    "tipsv2_vitg14_448": "1.1 thousand million parameters, images of 448 pixels",
    "tipsv2_vitl14_448": "0.36 tera multiply-accumulates per image",
}
"""Rows that are not run here, and why; `benchmarks/gauntlet.py` runs what a machine allows."""

ROWS = {name: entry.facts for name, entry in entries().items()}


def test_the_giants_are_those_that_ask_for_more_than_a_small_machine():
    asking = {
        name
        for name, facts in ROWS.items()
        if needed_bytes(name) > MOST_BYTES or facts["gflops"] > MOST_GFLOPS
    }
    assert asking == set(GIANTS)


def test_one_row_is_run_as_the_slow_tests_run_them_all():
    check("efficientnet_lite0", width=1280)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ROWS if name not in GIANTS])
def test_a_row_is_extracted_and_scored_without_its_weights(name):
    check(name)


def check(name, *, width=None):
    command = [sys.executable, "-m", "benchmarks.gauntlet", "--row", name, "--limit", str(LIMIT)]
    command += ["--gib", str(MOST_BYTES / 2**30)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    line = json.loads(done.stdout.splitlines()[-1])
    assert line["cells"] == dict.fromkeys(TASKS, "done")
    assert line["images"] == 3 * LIMIT
    assert line["dim"] == ROWS[name].get("dim", width or line["dim"])
    assert set(line["scores"]) == set(TASKS)
