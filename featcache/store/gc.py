"""Find and remove what nobody needs: leftovers of dead processes, and on request old feature sets.

`plan` only looks; `collect` removes what `plan` found and what is still as it was. Neither touches
results, nor anything that a living process has claimed or is writing.

Last use of a sealed set is the modification time of its directory, which `FeatureSet` sets when
features are first read. Access times would be no use: most systems are mounted without them.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from featcache.errors import FeatcacheError, OptionError
from featcache.store.cache import Cache
from featcache.store.claims import living_owner
from featcache.store.feature_set import is_sealed
from featcache.store.files import (
    TEMPORARY_PREFIX,
    disk_errors,
    has_living_writer,
    temporary_path,
)

FRESH_S = 3600.0
"""Seconds for which a thing is left alone when nothing tells whether somebody still works on it."""
INCOMING, CHUNKS = "incoming", "chunks"
_ROOMS = ("analysis", "features", "fits", "heads", "results", INCOMING, CHUNKS)

Kind = Literal["temporary", "work", "unsealed", "incoming", "chunk", "fit", "sealed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """One file or directory that can go."""

    path: Path
    kind: Kind
    why: str
    """Why it can go, for people."""
    bytes: int
    """Bytes that removing it frees."""
    touched: float
    """When it was last changed or used, in seconds since 1970."""


def plan(
    cache: Cache, *, older_than_s: float | None = None, max_bytes: int | None = None, now: float
) -> list[Leftover]:
    """Return what can be removed, in the order of removal; nothing is changed.

    Always: temporary files of processes that have ended, work directories of sealed sets, unsealed
    sets without a single row, pulls that were given up, fetched chunks nobody uses. Unsealed sets
    with rows stay, unless they are older than `older_than_s`.

    Args:
        cache: The cache.
        older_than_s: Remove also sets, sealed or not, and fits that were not used for this long,
            in seconds.
        max_bytes: Remove also sealed sets, least recently used first, until features, pulls and
            chunks together take no more than this, in bytes.
        now: The present, in seconds since 1970.

    Raises:
        OptionError: If there is no cache, or a limit is negative or no number.
        StoreError: If the cache cannot be read.
    """
    _check(cache, older_than_s, max_bytes)
    with disk_errors(cache.root, "look through"):
        found: list[Leftover] = []
        for path in _set_paths(cache):
            with suppress(FileNotFoundError):  # it was completed or removed just now
                found += _of_set(path, older_than_s, now)
        idle_s = max(FRESH_S, older_than_s or 0)
        pulls, chunks = _children(cache.root / INCOMING), _files(cache.root / CHUNKS)
        found += _idle(pulls, "incoming", "a pull that was given up", idle_s, now)
        found += _idle(chunks, "chunk", "fetched, and in nobody's use", idle_s, now)
        if older_than_s is not None:
            fits = _files(cache.root / "fits")
            found += _idle(fits, "fit", "can be computed again", older_than_s, now)
        found += _temporaries(cache.root, {one.path for one in found}, now)
        if max_bytes is not None:
            found += _least_used(cache, found, max_bytes)
    return found


def collect(leftovers: Sequence[Leftover]) -> list[Leftover]:
    """Remove what `plan` found, and return what was removed.

    What was touched since, or is claimed by a living process, stays. A directory vanishes from its
    place at once, so that no reader finds half of it.

    Raises:
        StoreError: If something cannot be removed; what was removed before is gone.
    """
    removed = []
    for one in leftovers:
        with disk_errors(one.path, "remove"), suppress(FileNotFoundError):
            if _is_still(one):
                _remove(one)
                removed.append(one)
    return removed


def used_bytes(cache: Cache) -> int:
    """Return the bytes of everything in the cache but results: what `max_bytes` limits."""
    return sum(_size(cache.root / room) for room in ("features", INCOMING, CHUNKS))


def _check(cache: Cache, older_than_s: float | None, max_bytes: int | None) -> None:
    if not cache.root.is_dir():
        raise OptionError(
            f"A cache must lie at {cache.root}; there is none. Give the one to tidy up with "
            "--cache or FEATCACHE_CACHE."
        )
    for name, value in (("older_than_s", older_than_s), ("max_bytes", max_bytes)):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise OptionError(f"`{name}` must be a number of at least 0; got {value!r}. Raise it.")


def _set_paths(cache: Cache) -> list[Path]:
    """Return every set's directory, even if only its work directory is there."""
    works = (cache.root / "features").glob("*/*/*/*.work")
    return sorted({*cache.paths(), *(work.with_suffix(".zarr") for work in works)})


def _of_set(path: Path, older_than_s: float | None, now: float) -> Iterator[Leftover]:
    work = path.with_suffix(".work")
    try:
        sealed = is_sealed(path)
    except FeatcacheError:  # damaged: `cache verify` names it
        return
    touched = path.stat().st_mtime if sealed else max(_touched(path), _touched(work))
    age_s = now - touched
    is_old = older_than_s is not None and age_s >= older_than_s
    if not sealed:
        is_empty = not _has_rows(path, work) and age_s >= FRESH_S
        if not (is_old or is_empty) or living_owner(work):
            return
        why = f"never completed, untouched for {_age(age_s)}" if is_old else "has no row yet"
        for part in (work, path):  # in this order: a record must not outlive its shard
            if part.exists():
                yield _leftover(part, "unsealed", why, touched)
        return
    if living_owner(work):
        return
    if work.exists():
        yield _leftover(work, "work", "its set is complete", _touched(work))
    if is_old:
        yield _leftover(path, "sealed", f"unused for {_age(age_s)}", touched)


def _has_rows(path: Path, work: Path) -> bool:
    spooled = any(file.stat().st_size for file in (work / "spool").glob("*.bin"))
    return spooled or (path / "features" / "c").exists()


def _idle(
    paths: Iterable[Path], kind: Kind, why: str, idle_s: float, now: float
) -> Iterator[Leftover]:
    """Yield what was not touched for a while and is not being written; temporary files aside."""
    for path in paths:
        touched = _touched(path)
        is_temporary = path.name.startswith(TEMPORARY_PREFIX)
        if now - touched >= idle_s and not is_temporary and not _is_written(path):
            yield _leftover(path, kind, f"{why}, untouched for {_age(now - touched)}", touched)


def _children(room: Path) -> list[Path]:
    return sorted(room.iterdir()) if room.is_dir() else []


def _files(room: Path) -> list[Path]:
    return [path for path in _walk(room) if not path.is_dir()]


def _is_written(path: Path) -> bool:
    return any(has_living_writer(one) for one in _walk(path))


def _temporaries(root: Path, covered: set[Path], now: float) -> Iterator[Leftover]:
    """Yield the temporary files and directories of the dead, but those inside what goes anyway."""
    for path in [*root.iterdir(), *(one for room in _ROOMS for one in _walk(root / room))]:
        if not path.name.startswith(TEMPORARY_PREFIX) or covered.intersection(path.parents):
            continue
        touched, is_alive = _touched(path), has_living_writer(path)
        if is_alive is False:
            yield _leftover(path, "temporary", "its process has ended", touched)
        elif is_alive is None and now - touched >= FRESH_S:
            why = f"unfinished, untouched for {_age(now - touched)}"
            yield _leftover(path, "temporary", why, touched)


def _least_used(cache: Cache, found: Sequence[Leftover], max_bytes: int) -> Iterator[Leftover]:
    """Yield the sealed sets that must go for the rest to fit, least recently used first."""
    going = {one.path for one in found}
    excess = used_bytes(cache) - sum(
        one.bytes for one in found if cache.root / "results" not in one.path.parents
    )
    sealed = (one.path for one in cache.stored() if one.sealed is not None)
    sets = [
        (path.stat().st_mtime, path)
        for path in sealed
        if path not in going and not living_owner(path.with_suffix(".work"))
    ]
    for touched, path in sorted(sets):
        if excess <= max_bytes:
            return
        why = f"least recently used, and features take more than {max_bytes} bytes"
        one = _leftover(path, "sealed", why, touched)
        excess -= one.bytes
        yield one


def _leftover(path: Path, kind: Kind, why: str, touched: float) -> Leftover:
    return Leftover(path=path, kind=kind, why=why, bytes=_size(path), touched=touched)


def _is_still(one: Leftover) -> bool:
    """Tell whether a leftover is as it was planned, and nobody has taken it up."""
    if one.kind in ("unsealed", "work", "sealed"):
        work, path = one.path.with_suffix(".work"), one.path.with_suffix(".zarr")
        if living_owner(work):
            return False
        if one.kind == "sealed":
            return path.exists() and path.stat().st_mtime == one.touched
        if one.kind == "unsealed":
            return not is_sealed(path) and max(_touched(path), _touched(work)) <= one.touched
        return True
    is_written = has_living_writer(one.path)
    if is_written or _is_written(one.path):
        return False
    return is_written is False or _touched(one.path) == one.touched


def _remove(one: Leftover) -> None:
    if not one.path.is_dir() or one.path.is_symlink():
        one.path.unlink()
        return
    aside = temporary_path(one.path.parent)
    one.path.rename(aside)
    shutil.rmtree(aside)


def _walk(path: Path) -> Iterator[Path]:
    """Yield everything below `path`, links not followed and temporary directories not entered."""
    for folder, folders, files in os.walk(path):
        yield from (Path(folder, name) for name in sorted([*folders, *files]))
        folders[:] = [name for name in folders if not name.startswith(TEMPORARY_PREFIX)]


def _touched(path: Path) -> float:
    """Return when the newest file below `path` was written, but temporary ones; 0 without `path`.

    A directory's own time counts only where it holds no file: looking after it changes it.
    """
    times = []
    for file in _walk(path) if path.is_dir() else [path]:
        with suppress(FileNotFoundError):
            is_temporary = file != path and file.name.startswith(TEMPORARY_PREFIX)
            if not file.is_dir() and not is_temporary:
                times.append(file.lstat().st_mtime)
    with suppress(FileNotFoundError):
        return max(times, default=path.lstat().st_mtime)
    return 0.0


def _size(path: Path) -> int:
    """Return the bytes that removing `path` frees: none for a file with a second name elsewhere."""
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            with suppress(FileNotFoundError):
                total += Path(folder, name).lstat().st_size
    if not path.is_dir():
        with suppress(FileNotFoundError):
            stat = path.lstat()
            total += stat.st_size if stat.st_nlink == 1 else 0
    return total


def _age(seconds: float) -> str:
    """Render an age in days, or hours below two days."""
    return f"{seconds / 86400:.0f} days" if seconds >= 2 * 86400 else f"{seconds / 3600:.0f} hours"
