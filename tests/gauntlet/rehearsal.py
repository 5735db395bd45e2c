"""One backbone without weights through everything: extraction and four tasks on painted images."""

import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

import featcache
from featcache.errors import FeatcacheError
from featcache.extraction.options import Options
from featcache.extraction.progress import Silent
from featcache.verbs.run import Ended

COLOURS = {
    "blue": (40, 60, 190),
    "green": (60, 170, 50),
    "red": (200, 50, 40),
    "sand": (200, 180, 120),
}
"""Classes and what they look like."""
TRAIN, TEST, OTHER = 40, 16, 16
"""Images of each split; of train, `run` takes no more than its limit."""
TASKS = ("linear", "knn", "retrieval", "ood")


@dataclass(frozen=True, kw_only=True)
class Rehearsed:
    """What became of one row."""

    row: str
    cells: Mapping[str, str]
    """Task to 'done', or to why it failed."""
    images: int
    """How many were embedded."""
    seconds: float
    """That their decoding and embedding took."""
    dim: int
    peak_bytes: int
    """Most memory that the process held so far."""
    scores: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_done(self) -> bool:
        """Whether every cell is done."""
        return set(self.cells) == set(TASKS) and set(self.cells.values()) == {"done"}


class Stopwatch(Silent):
    """Counts the rows of extractions and the seconds between their start and their stop."""

    def __init__(self) -> None:
        self.rows, self.seconds, self._began = 0, 0.0, 0.0

    def start(self, label: str, total: int, done: int) -> None:
        self._began = time.perf_counter()

    def advance(self, rows: int) -> None:
        self.rows += rows

    def stop(self) -> None:
        self.seconds += time.perf_counter() - self._began


def twin_of(name: str) -> str:
    """Return the name of the untrained network of a row; `pixels` is its own."""
    return name if name == "pixels" else f"random:{name}"


def write_suite(folder: Path, backbones: Sequence[str]) -> Path:
    """Write two small datasets and a suite of all tasks on them, and return the suite."""
    for place, count in (("train", TRAIN), ("test", TEST)):
        paint(folder / "colours" / place, count)
    paint(folder / "noise" / "test", OTHER, contrast=120)
    known, unknown = (f"imagefolder:{folder / name}" for name in ("colours", "noise"))
    cells = [
        {"datasets": [known], "tasks": [task for task in TASKS if task != "ood"]},
        {"datasets": [known], "tasks": ["ood"], "ood": [unknown]},
    ]
    path = folder / "rehearsal.yaml"
    path.write_text(yaml.safe_dump({"backbones": list(backbones), "cells": cells}))
    return path


def paint(folder: Path, count: int, *, contrast: int = 30) -> None:
    """Write `count` noisy images, equally many of each colour; the same ones each time."""
    rng = np.random.default_rng(sum(map(ord, folder.name)) + contrast)
    for number in range(count):
        name = list(COLOURS)[number % len(COLOURS)]
        coarse = rng.integers(-contrast, contrast, (6, 8, 3)).repeat(8, 0).repeat(8, 1)
        pixels = np.clip(np.array(COLOURS[name]) + coarse, 0, 255).astype(np.uint8)
        file = folder / name / f"{number:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)


def rehearse(
    row: str, folder: Path, *, limit: int = 32, batch_size: int | None = None
) -> Rehearsed:
    """Run every task with the untrained twin of a row, in a cache below `folder`.

    Args:
        row: A name of the registry.
        folder: An empty one.
        limit: Rows per split; 32 gives 64 images, as there are no more in the others.
        batch_size: How many are embedded at once.
    """
    suite, watch = write_suite(folder, [twin_of(row)]), Stopwatch()
    ended = featcache.run(
        str(suite),
        cache=folder / "cache",
        limit=limit,
        device="cpu",
        options=Options(workers=0, batch_size=batch_size),
        progress=watch,
    )
    return Rehearsed(
        row=row,
        cells={_task(one): one.reason or "done" for one in ended},
        images=watch.rows,
        seconds=watch.seconds,
        dim=_dim(folder / "cache", ended),
        peak_bytes=peak_bytes(),
        scores={_task(one): one.result.score for one in ended if one.result},
    )


def _task(one: Ended) -> str:
    return one.cell.protocol.partition("@")[0]


def _dim(cache: Path, ended: Sequence[Ended]) -> int:
    for one in ended:
        if one.result:
            key = one.result.record["inputs"]["test"]["key"]
            try:
                return int(featcache.open(key, cache=cache).features().shape[1])
            except FeatcacheError:
                continue
    return 0


def peak_bytes() -> int:
    """Return the most memory that this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
