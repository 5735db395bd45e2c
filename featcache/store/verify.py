"""Check a sealed set against its own manifest: every bit of every file."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featcache.digest import blake3_file, sha256_json
from featcache.errors import FeatcacheError
from featcache.spec import KEY_DIGITS
from featcache.store.feature_set import FeatureSet, read_group
from featcache.store.files import json_bytes
from featcache.store.manifest import GROUP_FILE, check_files, content_digest, group_metadata
from featcache.store.shard import MappedShard

LAYOUT_FILE = "features/zarr.json"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is not as the manifest says."""

    path: str
    """Path of the file inside the set."""
    what: str
    rows: tuple[int, int] | None = None
    """First and last damaged row, where rows can be named."""

    def __str__(self) -> str:
        where = f" rows {self.rows[0]} to {self.rows[1]}" if self.rows else ""
        return f"{self.path}{where}: {self.what}"


def verify(path: Path, *, hashed: Collection[str] = ()) -> list[Problem]:
    """Re-read every file of the sealed set at `path` and return what is wrong; empty if nothing.

    Args:
        path: The set's directory.
        hashed: Files whose bytes were just compared with the manifest's BLAKE3.

    Raises:
        UnsealedError: If the set is not sealed.
        StoreError: If there is no set at `path`.
    """
    try:
        attributes = read_group(path)
        if attributes["sealed"] is None:
            FeatureSet(path)  # raises with what to do
        if problems := _check_group(path, attributes):
            return problems
        sealed = attributes["sealed"]
        files = [file for file in sealed["files"] if file["path"] not in hashed]
        problems = [problem for file in files for problem in _check_file(path, file)]
        problems += _check_extra(path, sealed["files"])
        return problems or _check_digest(path)
    except FeatcacheError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return [Problem(GROUP_FILE, f"is damaged: {error!r}")]


def _check_group(path: Path, attributes: dict[str, Any]) -> list[Problem]:
    unsigned = {name: attributes[name] for name in ("spec", "provenance", "sealed")}
    if sha256_json(unsigned) != attributes.get("checksum"):
        return [Problem(GROUP_FILE, "does not match its own checksum")]
    one = FeatureSet(path)
    for file in one.sealed["files"]:  # before it decides what the other files must be
        if file["path"] == LAYOUT_FILE and (problems := _check_file(path, file)):
            return problems
    try:
        wrong = check_files(one.sealed["files"], one.layout)
    except (FeatcacheError, FileNotFoundError) as error:
        return [Problem(LAYOUT_FILE, f"is damaged: {error}")]
    if wrong:
        return [Problem(GROUP_FILE, wrong)]
    expected = group_metadata(one.spec, provenance=one.provenance, sealed=one.sealed)
    if (path / GROUP_FILE).read_bytes() != json_bytes(expected):
        return [Problem(GROUP_FILE, "is not what featcache writes")]
    if path.stem.rpartition("-")[2] != one.key[:KEY_DIGITS]:
        return [
            Problem(GROUP_FILE, f"belongs to key {one.key[:KEY_DIGITS]}, not to this directory")
        ]
    return []


def _check_file(root: Path, file: dict[str, Any]) -> list[Problem]:
    name = file["path"]
    path = root / name
    if not path.is_file():
        return [Problem(name, "is missing", _shard_rows(root, name))]
    if path.stat().st_size != file["bytes"]:
        what = f"has {path.stat().st_size} bytes instead of {file['bytes']}"
        return [Problem(name, what, _shard_rows(root, name))]
    if blake3_file(path) == file["blake3"]:
        return []
    return _damaged_rows(root, name) or [Problem(name, "does not match its BLAKE3 digest")]


def _shard_number(name: str) -> int | None:
    parts = name.split("/")
    return int(parts[2]) if parts[:2] == ["features", "c"] and parts[2].isdigit() else None


def _shard_rows(root: Path, name: str) -> tuple[int, int] | None:
    shard = _shard_number(name)
    try:
        if shard is None:
            return None
        start, stop = FeatureSet(root).layout.bounds(shard)
    except FeatcacheError:
        return None
    return start, stop - 1


def _damaged_rows(root: Path, name: str) -> list[Problem]:
    shard = _shard_number(name)
    if shard is None:
        return []
    try:
        ranges = MappedShard(root / name, FeatureSet(root).layout, shard).damaged_chunks()
    except FeatcacheError:
        ranges = []
    if not ranges:  # the index is damaged, or another shard's file lies here
        return [Problem(name, "is not the file that was sealed", _shard_rows(root, name))]
    return [Problem(name, "do not match their CRC-32C", rows) for rows in ranges]


def _check_extra(root: Path, files: list[dict[str, Any]]) -> list[Problem]:
    known = {file["path"] for file in files} | {GROUP_FILE}
    found = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    return [Problem(name, "is not in the manifest") for name in sorted(found - known)]


def _check_digest(path: Path) -> list[Problem]:
    one = FeatureSet(path)
    shards = {
        number: file["blake3"]
        for file in one.sealed["files"]
        if (number := _shard_number(file["path"])) is not None
    }
    if sorted(shards) != list(range(one.layout.n_shards)):
        return [Problem(GROUP_FILE, "does not list every shard")]
    ordered = [shards[number] for number in sorted(shards)]
    if content_digest(one.spec, one.layout, ordered, one.arrays) != one.digest:
        return [Problem(GROUP_FILE, "has a content digest that its files do not give")]
    if (one.sealed["rows"], one.sealed["readable"]) != (one.rows, int(one.valid.sum())):
        return [Problem(GROUP_FILE, "counts other rows than its files hold")]
    return []
