"""Fetch sets that others pushed. What arrives is hostile until it is checked.

Everything lands in `<cache>/incoming/`; a set gets its name in the cache only when every byte
agrees with the manifest, the manifest with the pointer, and the pointer with what was asked for.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blake3

from featcache.digest import blake3_bytes, blake3_file, sha256_json
from featcache.errors import CorruptError, FeatcacheError, RemoteError, SpecError, StoreError
from featcache.remotes.pointer import (
    DIGEST_DIGITS,
    Pointer,
    read_pointer,
    set_name_beside,
)
from featcache.remotes.push import PARALLEL, Transferred
from featcache.remotes.transport import Transport, read_small
from featcache.spec import ExtractionSpec
from featcache.store.cache import Cache
from featcache.store.claims import living_owner
from featcache.store.feature_set import FeatureSet, is_sealed
from featcache.store.files import disk_errors, parse_json, sync_directory, temporary_path
from featcache.store.manifest import GROUP_FILE, MAX_METADATA_BYTES, check_files
from featcache.store.verify import verify

INCOMING = "incoming"
"""Directory of a cache for sets that are on their way."""

Trust = Callable[[Pointer, str], None]
"""Raises if a pointer from this URL is not to be trusted."""


def pull(
    name: str,
    transport: Transport,
    cache: Cache,
    *,
    spec: ExtractionSpec | None = None,
    trust: Trust = lambda _pointer, _url: None,
    advance: Callable[[int], None] = lambda _: None,
) -> Transferred | None:
    """Fetch the set that a pointer names, unless the cache has it. An interrupted pull goes on.

    Args:
        name: The pointer's name at the remote.
        transport: The remote.
        cache: Where the set goes.
        spec: What is wanted; a set of another spec is refused. None takes any.
        trust: Judges the pointer before anything else is read.
        advance: Told the bytes that arrived, or were there already.

    Returns:
        What arrived; None if the remote has no such pointer.

    Raises:
        CorruptError: If anything is not what it claims to be; nothing of it becomes visible.
        RemoteError: If the remote cannot be reached.
        StoreError: If the cache cannot take the set.
    """
    arrived = arrive(name, transport, cache, INCOMING, spec=spec, trust=trust)
    if arrived is None:
        return None
    folder, pointer, staging = arrived
    one = FeatureSet(staging)
    target = cache.path_of(one.spec)
    if is_sealed(target):
        shutil.rmtree(staging.parent, ignore_errors=True)
        return _present(name, FeatureSet(target), pointer, transport)
    _check_space(one, staging)
    sizes = fetch_files(folder, one, one.sealed["files"], transport, advance)
    listed = frozenset(str(file["path"]) for file in one.sealed["files"])
    if problems := verify(staging, hashed=listed):
        shutil.rmtree(staging.parent, ignore_errors=True)
        raise _corrupt(transport, folder, f"does not agree with itself: {problems[0]}")
    settle(staging, target)
    return Transferred(
        name=name,
        key=one.key,
        digest=one.digest,
        path=target,
        files=sum(size > 0 for size in sizes),
        bytes=sum(sizes),
    )


def arrive(
    name: str,
    transport: Transport,
    cache: Cache,
    room: str,
    *,
    spec: ExtractionSpec | None,
    trust: Trust,
) -> tuple[str, Pointer, Path] | None:
    """Fetch what says what a set is: pointer, manifest and layout, each checked.

    Args:
        name: The pointer's name at the remote.
        transport: The remote.
        cache: Where it goes.
        room: Directory of the cache to gather the set in.
        spec: What is wanted; None takes any.
        trust: Judges the pointer before anything else is read.

    Returns:
        The set's directory at the remote, its pointer, and its directory in the room; None if
        there is no such pointer.

    Raises:
        CorruptError: If anything is not what it claims to be.
        RemoteError: If the remote cannot be reached.
    """
    pointer = read_pointer(transport, name)
    if pointer is None:
        return None
    trust(pointer, transport.url)
    if spec is not None and pointer.key != spec.key:
        raise _corrupt(transport, name, f"leads to key {pointer.key[:12]}, not {spec.key[:12]}")
    folder = set_name_beside(name, pointer.digest)
    return folder, pointer, _stage(folder, pointer, transport, cache, room)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A remote set's `zarr.json`, checked."""

    data: bytes
    spec: ExtractionSpec
    digest: str
    default_tap: str | None
    """The tap that the backbone gives by default, as far as it is recorded."""


def read_manifest(folder: str, pointer: Pointer, transport: Transport) -> Manifest:
    """Return a remote set's `zarr.json`.

    Raises:
        CorruptError: If it is not the one the pointer names.
        RemoteError: If the remote cannot be reached.
    """
    name = f"{folder}/{GROUP_FILE}"
    data = read_small(transport, name, MAX_METADATA_BYTES)
    if data is None:
        raise RemoteError(f"{name} must lie at {transport.url}; it does not. Push the set again.")
    if blake3_bytes(data) != pointer.manifest:
        raise _corrupt(transport, name, "is not the manifest that its pointer names")
    return parse_manifest(data, f"{name} at {transport.url}", pointer)


def parse_manifest(data: bytes, where: str, pointer: Pointer) -> Manifest:
    """Read a sealed set's `zarr.json` that may come from anybody.

    Args:
        data: The bytes.
        where: What they are called in a message.
        pointer: What they must agree with.

    Raises:
        CorruptError: If they do not.
    """
    try:
        attributes = parse_json(data, where)["attributes"]
        unsigned = {part: attributes[part] for part in ("spec", "provenance", "sealed")}
        if sha256_json(unsigned) != attributes["checksum"]:
            raise CorruptError(f"{where} must match its own checksum; it does not. Push it again.")
        spec = ExtractionSpec.from_json(attributes["spec"])
        digest = attributes["sealed"]["digest"]
        tap = attributes["provenance"].get("default_tap")
        if not isinstance(tap, str | None):
            raise TypeError("the default tap is not a text")  # noqa: TRY301
    except SpecError as error:
        raise CorruptError(
            f"{where} must be a set that can be read here; it is not. {error}"
        ) from error
    except (KeyError, TypeError, AttributeError) as error:
        raise CorruptError(
            f"{where} must be a sealed feature set's; {error!r}. Do not use this remote."
        ) from error
    if (spec.key, digest) != (pointer.key, pointer.digest):
        raise CorruptError(
            f"{where} must belong to key {pointer.key[:12]} with content {pointer.digest[:12]}; it "
            "does not. Do not use this remote."
        )
    return Manifest(data=data, spec=spec, digest=digest, default_tap=tap)


def _stage(folder: str, pointer: Pointer, transport: Transport, cache: Cache, room: str) -> Path:
    """Put the checked manifest and the features' metadata where the set will be gathered."""
    manifest = read_manifest(folder, pointer, transport)
    cache.create()
    staging = cache.root / room / manifest.digest[:DIGEST_DIGITS]
    staging /= cache.path_of(manifest.spec).name
    with disk_errors(staging, "write"):
        staging.mkdir(parents=True, exist_ok=True)
        _write(staging / GROUP_FILE, manifest.data)
        if not (staging / "features" / "zarr.json").exists():
            name = f"{folder}/features/zarr.json"
            layout = read_small(transport, name, 1 << 16)
            if layout is None:
                raise _corrupt(transport, name, "is missing")
            (staging / "features").mkdir(exist_ok=True)
            _write(staging / "features" / "zarr.json", layout)
    try:
        one = FeatureSet(staging)
        wrong = check_files(one.sealed["files"], one.layout)
    except (FeatcacheError, KeyError, TypeError, AttributeError) as error:
        wrong = str(error)
    if wrong:
        shutil.rmtree(staging.parent, ignore_errors=True)
        raise _corrupt(transport, f"{folder}/{GROUP_FILE}", wrong)
    return staging


def fetch_files(
    folder: str,
    one: FeatureSet,
    files: Sequence[dict[str, Any]],
    transport: Transport,
    advance: Callable[[int], None],
) -> list[int]:
    """Fetch what is missing of some files, several at a time; return the bytes that travelled."""

    def fetch(file: dict[str, Any]) -> int:
        target, size = one.path / file["path"], int(file["bytes"])
        is_whole = target.exists() and target.stat().st_size == size
        if is_whole and blake3_file(target) == file["blake3"]:
            advance(size)
            return 0
        with disk_errors(target, "write"):
            target.parent.mkdir(parents=True, exist_ok=True)
            _download(f"{folder}/{file['path']}", size, file["blake3"], target, transport, advance)
        return size

    with ThreadPoolExecutor(PARALLEL) as pool:
        return list(pool.map(fetch, files))


def _download(
    name: str,
    size: int,
    digest: str,
    target: Path,
    transport: Transport,
    advance: Callable[[int], None],
) -> None:
    """Write one object to `target` once every byte is there and right."""
    temporary = temporary_path(target.parent)
    hasher, left = blake3.blake3(), size
    try:
        with temporary.open("xb") as file:
            for block in transport.blocks(name):
                left -= len(block)
                if left < 0:
                    break
                hasher.update(block)
                file.write(block)
                advance(len(block))
            file.flush()
            os.fsync(file.fileno())
        if left or hasher.hexdigest() != digest:
            raise _corrupt(transport, name, "is not the file that was sealed")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def settle(staging: Path, target: Path) -> None:
    """Give a complete set its name, and remove the directory it was gathered in.

    Args:
        staging: The set; its parent holds nothing else.
        target: Its place in the cache; a sealed set there is kept, an unsealed one gives way.

    Raises:
        StoreError: If a living process extracts the set here, or if it cannot be moved.
    """
    with disk_errors(target, "move the set to"):
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and not is_sealed(target):
            if owner := living_owner(target.with_suffix(".work")):
                raise StoreError(
                    f"A set must not be extracted while it is pulled; {owner} extracts {target}. "
                    "Wait for it, or stop it, and pull again."
                )
            aside = temporary_path(staging.parent)
            target.rename(aside)
            shutil.rmtree(target.with_suffix(".work"), ignore_errors=True)
            shutil.rmtree(aside, ignore_errors=True)
        try:
            staging.rename(target)
        except OSError:
            if not is_sealed(target):  # another process put it there just now
                raise
        sync_directory(target.parent)
    shutil.rmtree(staging.parent, ignore_errors=True)


def _present(name: str, local: FeatureSet, pointer: Pointer, transport: Transport) -> Transferred:
    if local.digest != pointer.digest:
        raise StoreError(
            f"Key {local.key[:12]} must mean one content in a cache; here it has "
            f"{local.digest[:12]}, at {transport.url} {pointer.digest[:12]}. Keep yours, or delete "
            f"{local.path} and pull again."
        )
    return Transferred(
        name=name, key=local.key, digest=local.digest, path=local.path, files=0, bytes=0
    )


def _check_space(one: FeatureSet, staging: Path) -> None:
    needed = sum(
        int(file["bytes"]) for file in one.sealed["files"] if not (staging / file["path"]).exists()
    )
    free = shutil.disk_usage(staging).free
    if needed > free:
        raise StoreError(
            f"The disk must have {needed} bytes free for the set; {staging} has {free}. "
            "Free some space, or choose another place with --cache."
        )


def _write(path: Path, data: bytes) -> None:
    temporary = temporary_path(path.parent)
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _corrupt(transport: Transport, name: str, what: str) -> CorruptError:
    return CorruptError(
        f"What a remote gives must be what was pushed; {name} at {transport.url} {what}. Nothing "
        "was kept of it: push the set again, or do not use this remote."
    )
