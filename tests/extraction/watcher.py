"""A reader that never rests: every look at a set is a clean refusal or the right bytes."""

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featcache.errors import CorruptError, FeatcacheError, StoreError
from featcache.store.cache import Cache
from featcache.store.feature_set import FeatureSet
from featcache.store.gc import collect, plan
from featcache.store.layout import Layout
from featcache.store.manifest import GROUP_FILE
from featcache.store.shard import MappedShard


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What an uninterrupted extraction stored."""

    layout: Layout
    features: NDArray[np.floating]
    labels: NDArray[np.int64]
    ids: list[str]
    valid: NDArray[np.bool_]
    digest: str

    @classmethod
    def of(cls, path: Path) -> "Truth":
        one = FeatureSet(path)
        return cls(
            layout=one.layout,
            features=one.features(),
            labels=one.labels,
            ids=one.ids.tolist(),
            valid=one.valid,
            digest=one.digest,
        )


@dataclass
class Seen:
    """What a watcher saw."""

    sealed: int = 0
    shards: int = 0
    refusals: int = 0
    torn: list[str] = field(default_factory=list)
    seals: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def reads(self) -> int:
        return self.sealed + self.shards + self.refusals


def look(path: Path, truth: Truth, seen: Seen) -> None:
    """Open and read a set and each of its published shards once."""
    try:
        one = FeatureSet(path)
        same = (
            np.array_equal(one.features(), truth.features)
            and np.array_equal(one.labels, truth.labels)
            and np.array_equal(one.valid, truth.valid)
            and one.ids.tolist() == truth.ids
            and one.digest == truth.digest
        )
        if not same:
            seen.torn.append(f"{path.name}: other bytes")
        stat = (path / GROUP_FILE).stat()
        mark = (stat.st_ino, stat.st_mtime_ns)
        if seen.seals.setdefault(path.name, mark) != mark:
            seen.torn.append(f"{path.name}: sealed again")
            seen.seals[path.name] = mark
        seen.sealed += 1
    except StoreError as error:
        if isinstance(error, CorruptError):
            seen.torn.append(str(error))
        seen.refusals += 1
    for shard in range(truth.layout.n_shards):
        _look_at_shard(path / "features" / truth.layout.shard_path(shard), shard, truth, seen)


def _look_at_shard(file: Path, shard: int, truth: Truth, seen: Seen) -> None:
    if not file.exists():
        return
    start, stop = truth.layout.bounds(shard)
    out = np.empty_like(truth.features[start:stop])
    try:
        MappedShard(file, truth.layout, shard).read(0, out)
    except FeatcacheError as error:
        seen.torn.append(str(error))
        return
    if not np.array_equal(out, truth.features[start:stop]):
        seen.torn.append(f"{file}: other bytes")
    seen.shards += 1


def watch(root: Path, truths: dict[str, Truth], *, tidy: bool, stop: Path, report: Path) -> None:
    """Look at every set below `root` until the file `stop` appears; write what was seen.

    Args:
        root: The cache.
        truths: What each set, by file name, must hold.
        tidy: Run `cache gc` all the while.
        stop: Ends the watch.
        report: Gets the counts as JSON.
    """
    seen, cache, parent = Seen(), Cache(root), os.getppid()
    while True:
        last = stop.exists() or os.getppid() != parent
        for name, truth in truths.items():
            look(_place(cache, name), truth, seen)
        if tidy and root.exists():
            collect(plan(cache, now=time.time()))
        if last:
            break
        time.sleep(0.002)
    report.write_text(json.dumps({"reads": seen.reads, "sealed": seen.sealed, "torn": seen.torn}))


def _place(cache: Cache, name: str) -> Path:
    return cache.folder("fake", "train", "fake") / name


def stray_files(root: Path) -> list[str]:
    """Return what no finished extraction leaves behind: temporary files and work directories."""
    return [
        path.relative_to(root).as_posix()
        for path in sorted(root.rglob("*"))
        if path.name.startswith(".") or path.suffix in {".work", ".lock"}
    ]
