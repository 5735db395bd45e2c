"""Give every reader of hostile input many mutants, and see that it takes or refuses each.

Usage: python -m benchmarks.fuzz [--inputs N] [--seed N] [--only WORD]

`--inputs` is the number of all targets together; what touches the disk gets a small part of it.
Prints a table; exits 1, with the first such input of each target, if anything but a
`FeatcacheError` was raised, something wrong was accepted, an input took more than ten seconds, or
reading one wanted more than a gigabyte.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from featcache.store import layout
from tests.fuzzing import fuzz
from tests.remotes import test_fuzz as remotes
from tests.store import test_fuzz as store

CHUNK_BYTES = 256
"""Small, so that a few hundred rows fill several shards."""


def run(inputs, seed, only, root):
    """Fuzz every target and print its row; return the outcomes."""
    targets = [*store.targets(root / "store"), *remotes.targets(root)]
    each = inputs / sum(target.share for target in targets)
    print(f"{'target':<26}{'inputs':>9}{'accepted':>10}{'refused':>10}{'others':>8}{'s':>8}")
    outcomes = []
    for target in targets:
        if only not in target.name:
            continue
        began = time.perf_counter()
        one = fuzz(target, round(each * target.share), seed)
        seconds = time.perf_counter() - began
        counts = f"{one.inputs:>9,}{one.accepted:>10,}{one.refused:>10,}{one.others:>8,}"
        print(f"{one.target:<26}{counts}{seconds:>8.1f}", flush=True)
        outcomes.append(one)
    return outcomes


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    layout.CHUNK_BYTES = CHUNK_BYTES
    with tempfile.TemporaryDirectory() as directory:
        outcomes = run(given.inputs, given.seed, given.only, Path(directory))
    totals = [sum(getattr(one, name) for one in outcomes) for name in ("inputs", "others")]
    print(f"{totals[0]:,} inputs, {totals[1]:,} neither accepted nor refused")
    for one in outcomes:
        if one.first:
            print(f"{one.target}: {one.first}")
    sys.exit(1 if totals[1] else 0)


if __name__ == "__main__":
    main()
