"""Time to open and list a cache of many feature sets.

Usage: python -m benchmarks.listing [--sets N] [--rounds N]
"""

import argparse
import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from featcache.store.cache import Cache
from featcache.store.files import json_bytes
from featcache.store.manifest import group_metadata
from tests.fakes import fake_split, fill


def populate(cache, sets):
    """Write the metadata of many sealed sets, as a listing reads it: a real one under many keys."""
    one = fill(cache, fake_split(50))[0]
    for number in range(sets - 1):
        backbone = dataclasses.replace(one.spec.backbone, name=f"backbone{number % 100:03d}")
        dataset = dataclasses.replace(one.spec.dataset, name=f"dataset{number // 100:03d}")
        spec = dataclasses.replace(one.spec, backbone=backbone, dataset=dataset)
        path = cache.path_of(spec)
        path.mkdir(parents=True)
        group = group_metadata(spec, provenance=one.provenance, sealed=one.sealed)
        (path / "zarr.json").write_bytes(json_bytes(group))


def timed(function):
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cache = Cache(Path(folder))
        populate(cache, given.sets)
        assert len(list(cache.stored())) == given.sets
        env = os.environ | {"FEATCACHE_CACHE": folder, "COLUMNS": "200"}
        run = [str(Path(sys.executable).with_name("featcache"))]

        def command(*words):
            subprocess.run([*run, *words], env=env, stdout=subprocess.DEVNULL, check=True)

        key = next(cache.stored()).spec.key
        for name, function in (
            ("Cache(...).stored(), every set", lambda: list(Cache(Path(folder)).stored())),
            ("Cache(...).open(key prefix)", lambda: Cache(Path(folder)).open(key[:12])),
            ("featcache ls features", lambda: command("ls", "features")),
            ("featcache ls features --json", lambda: command("ls", "features", "--json")),
            ("featcache --version", lambda: command("--version")),
        ):
            seconds = [timed(function) for _ in range(given.rounds)]
            print(f"{name:34} {statistics.median(seconds):7.3f} s")


if __name__ == "__main__":
    main()
