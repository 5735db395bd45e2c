"""Fork extractions and kill them at random instants; run by `test_kill.py` in a process of its own.

Usage: python -m tests.extraction.kill_driver DIRECTORY KILLS SEED
Prints one JSON document: the digest of each finished cache, and how many kills it took.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
import zarr  # noqa: F401  so that a killed child does not spend its life importing

from featcache.store import layout
from featcache.store.cache import Cache
from featcache.store.feature_set import FeatureSet
from featcache.store.verify import verify
from tests.fakes import FakeBackbone, Notes, fake_split, fill, specs_for

ROWS, TAPS = 400, ("pooled", "wide")


def slow(_images):
    time.sleep(0.002)


def child(root: Path) -> None:
    torch.set_num_threads(1)
    split = fake_split(ROWS, broken=[7, 350])
    fill(Cache(root), split, FakeBackbone(hook=slow), TAPS, notes=Notes(), batch_size=4)


def fork(root: Path) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            child(root)
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
    return pid


def digests(root: Path) -> list[str]:
    specs = specs_for(fake_split(ROWS, broken=[7, 350]), FakeBackbone(), TAPS)
    sets = [FeatureSet(Cache(root).path_of(spec)) for spec in specs]
    problems = [str(problem) for one in sets for problem in verify(one.path)]
    left = [path.name for path in root.rglob("*") if path.name.startswith(".tmp-")]
    left += [path.name for path in root.rglob("*.work")]
    if problems or left:
        raise SystemExit(f"unsound: {problems} {left}")
    return [one.digest for one in sets]


def kill_once(root: Path, rng: random.Random) -> bool:
    """Run one extraction, kill it after a while; return whether it had finished before."""
    pid = fork(root)
    time.sleep(rng.uniform(0.01, 0.35))
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit("a resumed extraction failed")
    return os.WIFEXITED(status)


def main(directory: Path, kills: int, seed: int) -> None:
    layout.CHUNK_BYTES = 256
    rng = random.Random(seed)
    found, killed = [], 0
    while killed < kills:
        root = directory / f"cache-{len(found)}"
        while not kill_once(root, rng):
            killed += 1
        found.append(digests(root))
    whole = directory / "whole"
    os.waitpid(fork(whole), 0)
    pair = directory / "pair"
    both = [fork(pair), fork(pair)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in both]
    out = {"killed": killed, "whole": digests(whole), "resumed": found}
    print(json.dumps({**out, "pair": digests(pair), "pair_codes": codes}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
