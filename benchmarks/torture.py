"""Break extraction in every way there is, and see that nothing but time is lost.

Usage: python -m benchmarks.torture [--runs N] [--seed N] [--directory DIR] [--only WORD] [--json]

Each cache is extracted again and again, disturbed each time, until a run gets through. All the
while a reader opens the sets and their published shards, and beside every second cache `cache gc`
runs without pause. `--runs` is the number of kills of the first two scenarios together; the others
get a part of it on top. Exits 1 if anything is not as it must be.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from featcache.errors import FeatcacheError
from featcache.store.cache import Cache
from featcache.store.feature_set import FeatureSet, is_sealed
from featcache.store.gc import FRESH_S, collect, plan
from featcache.store.verify import verify
from tests.extraction import faults
from tests.extraction.kill_driver import TAPS, Child, count_operations, fork, hurry, opened, paths
from tests.extraction.watcher import Truth, stray_files, watch

EXPIRY_S = 0.3
MOST_ROUNDS = 50
HUNG_S = 60.0
SAME = (TAPS,)
OVERLAPPING = (("pooled",), ("wide",), TAPS)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One way to disturb an extraction."""

    name: str
    how: str
    """timer, operation, stop, full, or a kind of operation that fails."""
    share: float = 0.5
    """Part of `--runs` that it gets."""
    taps: tuple[tuple[str, ...], ...] = SAME
    """What the processes of one round extract, each a random one of these."""
    processes: tuple[int, int] = (1, 1)
    links: bool = True
    own_hosts: bool = False


SCENARIOS = (
    Scenario(name="killed at a random time", how="timer"),
    Scenario(name="killed at a random file operation", how="operation"),
    Scenario(name="2-4 processes, one key, killed", how="timer", share=0.2, processes=(2, 4)),
    Scenario(
        name="2-4 processes, overlapping shards, killed",
        how="timer",
        share=0.2,
        processes=(2, 4),
        taps=OVERLAPPING,
    ),
    Scenario(
        name="the same at file operations, two processes",
        how="operation",
        share=0.2,
        processes=(2, 2),
        taps=OVERLAPPING,
    ),
    Scenario(
        name="no hard links, 2-3 processes, killed",
        how="operation",
        share=0.2,
        processes=(2, 3),
        links=False,
    ),
    Scenario(
        name="each process on another host, killed",
        how="timer",
        share=0.1,
        processes=(2, 3),
        taps=OVERLAPPING,
        own_hosts=True,
    ),
    Scenario(
        name="held up longer than a claim lasts",
        how="stop",
        share=0.1,
        processes=(2, 3),
        own_hosts=True,
    ),
    *(
        Scenario(name=f"{kind} fails", how=kind, share=0.1, processes=(1, 2))
        for kind in faults.KINDS
    ),
    Scenario(name="disk full", how="full", share=0.1),
)


@dataclass(kw_only=True)
class Tally:
    """What came of one scenario."""

    scenario: str
    runs: int = 0
    hits: int = 0
    interrupted: int = 0
    resumed: int = 0
    sets: int = 0
    equal: int = 0
    reads: int = 0
    torn: int = 0
    leftovers: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Whether everything is as it must be."""
        whole = (self.resumed, self.equal) == (self.interrupted, self.sets)
        return whole and not (self.torn or self.leftovers or self.wrong)


@dataclass(frozen=True, kw_only=True)
class Arena:
    """What all scenarios share."""

    base: Path
    truths: dict[str, Truth]
    operations: int
    seconds: float
    mounts: bool


def prepare(base: Path) -> Arena:
    """Extract once undisturbed: what every other run must come to."""
    whole = base / "whole"
    began = time.perf_counter()
    if os.waitpid(Child(root=whole).start(), 0)[1]:
        sys.exit("an undisturbed extraction failed")
    seconds = time.perf_counter() - began
    return Arena(
        base=base,
        truths={one.path.name: Truth.of(one.path) for one in opened(whole)},
        operations=count_operations(base / "counted"),
        seconds=seconds,
        mounts=faults.can_mount(),
    )


class Life:
    """One cache from nothing to sealed."""

    def __init__(self, arena: Arena, one: Scenario, tally: Tally, rng: random.Random) -> None:
        self.arena, self.one, self.tally, self.rng = arena, one, tally, rng
        name = f"{one.how}-{rng.getrandbits(40):010x}"
        self.root, self.log = arena.base / name, arena.base / f"{name}.log"
        self.disk_bytes = rng.randrange(8, 200) << 10
        self.is_hit = False
        self.rounds = 0

    def run(self) -> None:
        """Disturb extractions of this cache until one gets through, then look at what is there."""
        with self.watched():
            for _ in range(MOST_ROUNDS):
                if self.round():
                    break
            else:
                self.tally.wrong.append(f"{self.root.name} was never finished")
        self.judge()
        if self.root.is_mount():
            faults.unmount(self.root)
        shutil.rmtree(self.root)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Keep a reader on the cache meanwhile, and count what it saw."""
        stop, report = self.log.with_suffix(".stop"), self.log.with_suffix(".json")
        if self.one.how == "full" and self.arena.mounts:
            faults.mount_small_disk(self.root, self.disk_bytes)
        tidy = self.rng.random() < 0.5
        pid = fork(
            lambda: watch(self.root, self.arena.truths, tidy=tidy, stop=stop, report=report),
            self.log,
        )
        yield
        stop.touch()
        if os.waitpid(pid, 0)[1]:
            said = self.log.read_text().splitlines()
            self.tally.wrong.append(f"{self.root.name}: the reader failed: {said[-3:]}")
            return
        seen = json.loads(report.read_text())
        self.tally.reads += seen["reads"]
        self.tally.torn += len(seen["torn"])
        self.tally.wrong += seen["torn"][:3]

    def round(self) -> bool:
        """Run a few processes at once and disturb them; return whether all got through."""
        self.rounds += 1
        crew = [self.child() for _ in range(self.rng.randint(*self.one.processes))]
        known = self.faults_met()
        pids = [child.start() for child in crew]
        hits = self.strike(pids)
        codes = [self.reap(pid) for pid in pids]
        hits += sum(code == -signal.SIGKILL for code in codes)
        hits += self.faults_met() - known
        if self.one.how == "full":
            hits += sum(code > 0 for code in codes)
            self.disk_bytes += self.rng.randrange(4, 80) << 10
            if self.arena.mounts:
                faults.mount_small_disk(self.root, self.disk_bytes)
        self.tally.runs += len(crew)
        self.tally.hits += hits
        self.is_hit |= bool(hits)
        found = [path for path in paths(self.root) if path.exists()]
        return not any(codes) and all(is_sealed(path) for path in found)

    def child(self) -> Child:
        """Make one process that may have its end planned."""
        one, rng, how = self.one, self.rng, self.one.how
        dies = how == "operation" and rng.random() < 0.8
        first = rng.randint(1, {"rename": 8, "write": 200}.get(how, 80))
        is_full = how == "full" and not self.arena.mounts
        return Child(
            root=self.root,
            taps=rng.choice(one.taps),
            pause_s=0.001 if how in ("timer", "stop") else 0,
            die_at=rng.randint(1, self.arena.operations) if dies else None,
            fault=(how, first, rng.choice([1, 1, 5])) if how in faults.KINDS else None,
            links=one.links,
            host=f"host-{rng.getrandbits(32):08x}" if one.own_hosts else None,
            expiry_s=EXPIRY_S if one.own_hosts else None,
            file_bytes=self.disk_bytes // 40 if is_full else None,
            log=self.log,
        )

    def strike(self, pids: list[int]) -> int:
        """Disturb living processes from outside; return how often, kills aside."""
        if self.one.how == "timer":
            slower = 1 + self.rounds / 10  # a machine may be busier than when it was measured
            longest = 1.1 * self.arena.seconds * max(1.0, len(pids) / 2) * slower
            doomed = [pid for pid in pids if len(pids) == 1 or self.rng.random() < 0.8]
            moments = sorted((self.rng.uniform(0, longest), pid) for pid in doomed)
            began = time.perf_counter()
            for moment, pid in moments:
                time.sleep(max(0.0, began + moment - time.perf_counter()))
                os.kill(pid, signal.SIGKILL)
        if self.one.how == "stop":
            time.sleep(self.rng.uniform(0.02, self.arena.seconds))
            held = self.rng.choice(pids)
            os.kill(held, signal.SIGSTOP)
            time.sleep(EXPIRY_S * self.rng.uniform(1.1, 2.5))
            os.kill(held, signal.SIGCONT)
            return 1
        return 0

    def reap(self, pid: int) -> int:
        """Wait for the end of a process and return its exit code; one that never ends is wrong."""
        deadline = time.monotonic() + HUNG_S
        while time.monotonic() < deadline:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        self.tally.wrong.append(f"{self.root.name}: process {pid} hung")
        os.kill(pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def faults_met(self) -> int:
        """Return how many operations were made to fail so far."""
        return self.log.read_text().count("fault\n") if self.log.exists() else 0

    def judge(self) -> None:
        """Compare the finished cache with the truth, tidy up, and look for leftovers."""
        said = self.log.read_text() if self.log.exists() else ""
        self.tally.wrong += [part[:2000] for part in said.split("unclean: ")[1:]]
        refusals = [line for line in said.splitlines() if line.startswith("refused")]
        self.tally.refused += len(refusals)
        if self.one.how == "full" and self.arena.mounts:
            self.tally.wrong += [one for one in refusals if "The disk is full" not in one]
        problems: list[str] = []
        for path in paths(self.root):
            if path.exists():  # a crew may have drawn one tap alone
                self.tally.sets += 1
                try:
                    problems += [str(one) for one in verify(path)]
                    digest = FeatureSet(path).digest
                    self.tally.equal += digest == self.arena.truths[path.name].digest
                except FeatcacheError as error:
                    problems.append(str(error))
        self.tally.wrong += problems
        self.tally.interrupted += self.is_hit
        self.tally.resumed += self.is_hit and not problems
        collect(plan(Cache(self.root), now=time.time() + 2 * FRESH_S))
        left = stray_files(self.root)
        self.tally.leftovers += len(left)
        self.tally.wrong += left[:3]


def torture(arena: Arena, one: Scenario, runs: int, rng: random.Random) -> Tally:
    """Go through one scenario until it was hit often enough."""
    tally, wanted = Tally(scenario=one.name), max(1, round(runs * one.share))
    while tally.hits < wanted and tally.runs < 20 * wanted + 100:
        Life(arena, one, tally, rng).run()
    return tally


COLUMNS = (
    "scenario",
    "runs",
    "kills/faults",
    "refused",
    "resumed",
    "digests equal",
    "reads",
    "torn",
    "leftovers",
)


def table(tallies: list[Tally]) -> str:
    """Render the tallies, one line each."""
    rows = [COLUMNS] + [
        (
            one.scenario,
            str(one.runs),
            str(one.hits),
            str(one.refused),
            f"{one.resumed}/{one.interrupted}",
            f"{one.equal}/{one.sets}",
            str(one.reads),
            str(one.torn),
            str(one.leftovers),
        )
        for one in tallies
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def main() -> None:
    """Run all scenarios and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--directory", type=Path, help="where the caches go; emptied at the end")
    parser.add_argument("--only", default="", help="scenarios whose name holds this")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    hurry()
    began, tallies = time.perf_counter(), []
    with tempfile.TemporaryDirectory(dir=given.directory) as base:
        arena = prepare(Path(base))
        for number, one in enumerate(SCENARIOS):
            if given.only in one.name:
                rng = random.Random(f"{given.seed}-{number}")
                tallies.append(torture(arena, one, given.runs, rng))
                print(one.name, f"{time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    disk = "a tmpfs that grows" if arena.mounts else "files limited in size (RLIMIT_FSIZE)"
    if given.json:
        print(json.dumps([asdict(one) for one in tallies]))
    else:
        print(table(tallies))
        print(f"\ndisk full: {disk}; {time.perf_counter() - began:.0f} s, seed {given.seed}")
    for one in tallies:
        for what in one.wrong[:20]:
            print(f"WRONG, {one.scenario}: {what}", file=sys.stderr)
    sys.exit(not all(one.is_good for one in tallies))


if __name__ == "__main__":
    main()
