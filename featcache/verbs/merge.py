"""Bring what several sites extracted into one cache: whole sets, and shards of the same key."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.digest import Json, sha256_json
from featcache.errors import CorruptError, OptionError, StoreError
from featcache.remotes.pull import INCOMING, settle
from featcache.spec import ExtractionSpec
from featcache.store.arrays import SmallArrays
from featcache.store.cache import Cache, Stored
from featcache.store.claims import Owner, living_owner
from featcache.store.equivalence import TOLERANCE, compare_rows
from featcache.store.feature_set import BLOCK_ROWS, is_sealed, read_group
from featcache.store.files import disk_errors, read_json, temporary_path
from featcache.store.layout import Layout, parse_layout
from featcache.store.manifest import GROUP_FILE
from featcache.store.shard import MappedShard
from featcache.store.verify import verify
from featcache.store.writer import SetWriter, cost_of, read_remembered


@dataclass(slots=True, kw_only=True)
class Merged:
    """What became of one set of one source."""

    source: Path
    """The set there."""
    target: Path
    """The set here."""
    added: int = 0
    """Shards that came."""
    same: int = 0
    """Shards that were here, byte for byte."""
    rounded: int = 0
    """Shards that were here and differ by rounding; those here are kept."""
    distance: float = 0.0
    """Largest relative distance of a row that both have."""
    is_sealed: bool = False
    """Whether the set here is complete now."""
    problem: str | None = None
    """Why not all of it was taken."""


def merge_caches(
    sources: Sequence[Path | str], pattern: str = "*", *, cache: Path | str | None = None
) -> list[Merged]:
    """Take every set of other caches that matches into this one.

    Shards of one key that different sites extracted become one set, which is sealed when all are
    there. Rows that both sides have are compared: equal but for rounding, those here are kept;
    otherwise nothing of that source's set is taken.

    Args:
        sources: Roots of other caches; they are only read.
        pattern: Shell pattern on `dataset/split/backbone`, or the start of a key.
        cache: Root of the cache that takes them.

    Returns:
        One entry per set and source, in the order given.

    Raises:
        OptionError: If a source is no cache, is this cache, or if nothing matches.
        StoreError: If the disk refuses; what was taken before stays.
    """
    target = Cache(cache)
    target.create()
    found = [one for root in sources for one in _found(Path(root), pattern, target)]
    if not found:
        raise OptionError(
            f"A set in {', '.join(map(str, sources))} must match {pattern!r}; none does. "
            "List them with: featcache ls features --cache DIR"
        )
    merged = [_merge(one, target) for one in found]
    for one in merged:
        if one.problem is None:
            try:
                one.is_sealed = _seal(one.target)
            except CorruptError as error:
                one.problem = str(error)
    return merged


def _found(root: Path, pattern: str, target: Cache) -> list[Stored]:
    cache = Cache(root)
    if not (cache.root / "features").is_dir():
        raise OptionError(f"A cache to merge must hold features; {cache.root} does not. Check it.")
    if cache.root.resolve() == target.root.resolve():
        raise OptionError(f"A cache is merged into another; got {cache.root} twice. Name another.")
    return cache.matching(pattern)


def _merge(one: Stored, cache: Cache) -> Merged:
    merged = Merged(source=one.path, target=cache.path_of(one.spec))
    try:
        with disk_errors(merged.target, "merge into"):
            ours, theirs = _side(merged.target), _read_side(one.path)
            _compare(ours, theirs, one.spec.numerics.compute, merged)
            if ours is None or not ours.is_sealed:
                take = _take_set if theirs.is_sealed else _take_shards
                take(one, theirs, merged, cache)
    except (CorruptError, _RefusalError) as error:
        merged.problem = str(error)
    return merged


class _RefusalError(StoreError):
    """A set of a source cannot be taken as it is; the others can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """The shards of one key that one cache has."""

    path: Path
    layout: Layout
    records: Mapping[int, Mapping[str, Any]]
    """Shard to what says its BLAKE3: the manifest's entry, or the done record."""
    is_sealed: bool

    def open(self, shard: int) -> MappedShard:
        """Map a shard."""
        path = self.path / "features" / self.layout.shard_path(shard)
        return MappedShard(path, self.layout, shard)


def _side(path: Path) -> _Side | None:
    return _read_side(path) if (path / GROUP_FILE).exists() else None


def _read_side(path: Path) -> _Side:
    layout = parse_layout(read_json(path / "features" / "zarr.json"))
    sealed = read_group(path)["sealed"]
    records: dict[int, Mapping[str, Any]] = {}
    if sealed is not None:
        listed = {file["path"]: file for file in sealed["files"]}
        for shard in range(layout.n_shards):
            records[shard] = listed[f"features/{layout.shard_path(shard)}"]
    else:
        for file in (path.with_suffix(".work") / "done").glob("*.json"):
            records[int(file.stem)] = read_json(file)
    return _Side(path=path, layout=layout, records=records, is_sealed=sealed is not None)


def _compare(ours: _Side | None, theirs: _Side, compute: str, merged: Merged) -> None:
    """Compare the shards that both sides have.

    Raises:
        _RefusalError: If a row differs by more than rounding.
    """
    if ours is None:
        return
    if ours.layout != theirs.layout:
        raise CorruptError(f"{theirs.path} must be laid out like {ours.path}; it is not.")
    for shard in sorted(ours.records.keys() & theirs.records.keys()):
        if ours.records[shard]["blake3"] == theirs.records[shard]["blake3"]:
            merged.same += 1
            continue
        for start, stop in _blocks(ours.layout, shard):
            found = compare_rows(_rows(theirs, shard, start, stop), _rows(ours, shard, start, stop))
            merged.distance = max(merged.distance, found.distance)
            if found.distance > TOLERANCE[compute]:
                raise _RefusalError(
                    f"Rows of one key must agree to {TOLERANCE[compute]:g}, relative to their "
                    f"length; row {start + found.worst} of {theirs.path} lies {found.distance:.2g} "
                    f"from that of {ours.path}. Find out which is right: featcache cache verify "
                    "--recompute 256"
                )
        merged.rounded += 1


def _blocks(layout: Layout, shard: int) -> Iterator[tuple[int, int]]:
    start, stop = layout.bounds(shard)
    for first in range(start, stop, BLOCK_ROWS):
        yield first, min(first + BLOCK_ROWS, stop)


def _rows(side: _Side, shard: int, start: int, stop: int) -> NDArray[Any]:
    out = np.empty((stop - start, *side.layout.row_shape), side.layout.dtype)
    side.open(shard).read(start - side.layout.bounds(shard)[0], out)
    return out


def _take_set(one: Stored, theirs: _Side, merged: Merged, cache: Cache) -> None:
    """Copy a complete set, check the copy, and give it its name."""
    if problems := verify(one.path):
        raise CorruptError(f"{one.path} must be sound to be merged; {problems[0]}. Repair it.")
    if owner := living_owner(merged.target.with_suffix(".work")):
        raise _RefusalError(f"{merged.target} must be idle; {owner} extracts it. Wait for it.")
    room = temporary_path(cache.root / INCOMING)
    copy = room / merged.target.name
    try:
        shutil.copytree(one.path, copy)
        if problems := verify(copy):
            raise StoreError(f"A copy must be what was copied; {problems[0]}. Check the disk.")
        settle(copy, merged.target)
    finally:
        shutil.rmtree(room, ignore_errors=True)
    merged.added = theirs.layout.n_shards - merged.same - merged.rounded


def _take_shards(one: Stored, theirs: _Side, merged: Merged, cache: Cache) -> None:
    """Publish the shards that are not here, and keep what sealing needs."""
    writer = SetWriter(merged.target, one.spec, theirs.layout.row_shape)
    if writer.layout != theirs.layout:
        raise CorruptError(f"{one.path} must be laid out as its spec says; it is not.")
    if (kept := _kept(one.path, theirs)) is not None:
        arrays, facts = kept
        writer.remember(
            labels=arrays.labels, ids=arrays.ids, class_names=arrays.class_names, facts=facts
        )
    for shard, record in sorted(theirs.records.items()):
        claim = writer.claim(shard)
        if isinstance(claim, Owner):
            raise _RefusalError(f"{merged.target} must be idle; {claim} extracts it. Wait for it.")
        try:
            if not writer.is_done(shard):
                path = one.path / "features" / theirs.layout.shard_path(shard)
                writer.adopt_shard(shard, path, record)
                merged.added += 1
        finally:
            claim.release()


def _kept(path: Path, side: _Side) -> tuple[SmallArrays, dict[str, Json]] | None:
    return read_remembered(path.with_suffix(".work"), side.layout.rows)


def _seal(path: Path) -> bool:
    """Seal a set whose shards are all here; return whether it is sealed."""
    if is_sealed(path):
        return True
    spec = ExtractionSpec.from_json(read_group(path)["spec"])
    side = _read_side(path)
    writer = SetWriter(path, spec, side.layout.row_shape)
    done, kept = writer.done(), _kept(path, side)
    if len(done) < side.layout.n_shards or kept is None:
        return False
    arrays, facts = kept
    labelled = {"classes": arrays.class_names, "labels": arrays.labels.tolist()}
    if sha256_json(labelled) != spec.dataset.label_set:
        raise CorruptError(
            f"The labels kept with {path} must be those of its key; they are not. Run the same "
            "`featcache extract` where the images are: it seals the set."
        )
    first = done[min(done)]
    provenance = {**facts, "environment": first["environment"], **cost_of(done.values())}
    with disk_errors(path, "seal"):
        owner = writer.seal(
            labels=arrays.labels,
            ids=arrays.ids,
            class_names=arrays.class_names,
            provenance={**provenance, "merged": True},
        )
    return owner is None
