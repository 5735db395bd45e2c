"""Every backbone of the registry, untrained, through extraction and four tasks; one process a row.

Usage: python -m benchmarks.gauntlet --out DIR [--only PATTERN ...] [--minutes N] [--gib N]
       [--late-gib N] [--table] [--again]

Rows go from the smallest to the largest. Each writes a line to DIR/rows.jsonl, and a row that has
one is not run again; so stop it whenever you like, and call it again. `--table` prints what is
there. A row embeds 64 images; where that would take too long by its arithmetic, fewer, down to
24. A row is left out, with the reason, if that is too long as well, or if it runs out of time or
memory. Rows that need more than `--gib` are tried last, with `--late-gib`.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from featcache.backbones.catalog import entries
from tests.gauntlet.rehearsal import TASKS, Rehearsed, rehearse

GFLOPS_PER_SECOND = 25
"""What one core of ours computes, in 1e9 multiply-accumulates; an estimate of time rests on it."""
IMAGES = {64: 32, 40: 12, 24: 8}
"""Images that a row embeds to the limit per split that gives them."""
BUILDING_S = 240
"""Seconds granted on top of `--minutes`, to build a network and to run the tasks."""
BYTES_PER_PARAMETER = 6
"""Memory that a network takes: its weights, and half of them again while they are drawn."""
BASE_BYTES = 2 * 2**30
LARGE_IMAGE = 320
"""Pixels of a side from which images are embedded by fours."""

Line = dict[str, Any]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="folder of rows.jsonl")
    parser.add_argument("--only", nargs="*", default=["*"])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--gib", type=float, default=9)
    parser.add_argument("--late-gib", type=float, default=20)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--again", action="store_true", help="run rows that failed once more")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--limit", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.row:
        print(json.dumps(asdict(run_here(given.row, given.limit, given.gib))))
        return
    if given.out is None:
        parser.error("--out must name a folder")
    given.out.mkdir(parents=True, exist_ok=True)
    record = given.out / "rows.jsonl"
    if not given.table:
        run_all(record, given)
    print(table(read(record)))


def run_all(record: Path, given: argparse.Namespace) -> None:
    """Run the rows that have no line yet, those of little memory first."""
    lines = read(record)
    if given.again:
        lines = {name: line for name, line in lines.items() if is_done(line)}
    names = [n for n in by_size() if any(fnmatchcase(n, one) for one in given.only)]
    late = [name for name in names if needed_bytes(name) > given.gib * 2**30]
    for name in [*(name for name in names if name not in late), *late]:
        if name in lines:
            continue
        gib = given.late_gib if name in late else given.gib
        line = run_apart(name, given.minutes, gib)
        with record.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(table_row(line), file=sys.stderr, flush=True)


def by_size() -> list[str]:
    """Return the rows by their parameters, of equal ones by their arithmetic."""
    facts = {name: entry.facts for name, entry in entries().items()}
    return sorted(facts, key=lambda n: (facts[n]["params_m"], facts[n]["gflops"], n))


def needed_bytes(name: str) -> float:
    """Return an estimate of the memory that a row takes."""
    return BASE_BYTES + BYTES_PER_PARAMETER * 1e6 * entries()[name].facts["params_m"]


def run_apart(name: str, minutes: float, gib: float) -> Line:
    """Run a row in a process of its own; return what came of it, or why it was left out."""
    gflops = entries()[name].facts["gflops"]
    fitting = [n for n in IMAGES if n * gflops / GFLOPS_PER_SECOND <= 60 * minutes]
    if not fitting:
        least = min(IMAGES)
        reason = f"{least} images take {least * gflops / GFLOPS_PER_SECOND / 60:.0f} minutes"
        return {"row": name, "left_out": reason}
    own = ["--row", name, "--limit", str(IMAGES[max(fitting)]), "--gib", str(gib)]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.gauntlet", *own],
            capture_output=True,
            text=True,
            timeout=60 * minutes + BUILDING_S,
            env={"OMP_NUM_THREADS": "1", **os.environ},
        )
    except subprocess.TimeoutExpired:
        return {"row": name, "left_out": f"not done after {minutes:g} minutes"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return {"row": name, "left_out": f"ended: {last[:200]}"}
    line: Line = json.loads(done.stdout.splitlines()[-1])
    return line


def run_here(name: str, limit: int, gib: float) -> Rehearsed:
    """Run a row in this process, which may not take more than so much memory."""
    most = int(gib * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    batch = 4 if entries()[name].facts["resolution"] >= LARGE_IMAGE else 16
    with tempfile.TemporaryDirectory() as folder:
        return rehearse(name, Path(folder), limit=limit, batch_size=batch)


def read(record: Path) -> dict[str, Line]:
    """Return the last line of each row, by name."""
    text = record.read_text().splitlines() if record.exists() else []
    return {line["row"]: line for line in map(json.loads, text)}


def is_done(line: Mapping[str, Any]) -> bool:
    """Tell whether every cell of a row is done."""
    return all(line.get("cells", {}).get(task) == "done" for task in TASKS)


def table(lines: Mapping[str, Line]) -> str:
    """Return what there is as a table in Markdown, and what failed below it."""
    rows = [lines[name] for name in by_size() if name in lines]
    head = (
        "| row | images | seconds | width | cells done | peak memory |\n|---|--:|--:|--:|--:|--:|"
    )
    failed = [
        f"- {line['row']}, {task}: {why}"
        for line in rows
        for task, why in line.get("cells", {}).items()
        if why != "done"
    ]
    n_done = sum(map(is_done, rows))
    total = f"{n_done} of {len(entries())} rows have every cell done; {len(lines)} were run."
    return "\n".join([head, *map(table_row, rows), "", total, *failed])


def table_row(line: Mapping[str, Any]) -> str:
    """Return one row of the table."""
    if "left_out" in line:
        return f"| {line['row']} | | | | left out: {line['left_out']} | |"
    n_done = sum(why == "done" for why in line["cells"].values())
    return (
        f"| {line['row']} | {line['images']} | {line['seconds']:.1f} | {line['dim']} | "
        f"{n_done} of {len(TASKS)} | {line['peak_bytes'] / 2**30:.1f} GiB |"
    )


if __name__ == "__main__":
    main()
