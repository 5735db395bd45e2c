"""Fetch sets that others pushed. What arrives is hostile until it is checked.

Everything lands in `<cache>/incoming/`; a set gets its name in the cache only when every byte
agrees with the manifest, the manifest with the pointer, and the pointer with what was asked for.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import blake3

from featcache.digest import blake3_file
from featcache.errors import StoreError
from featcache.remotes.arrival import Trust, arrive, not_as_pushed
from featcache.remotes.pointer import Pointer
from featcache.remotes.push import PARALLEL, Transferred
from featcache.remotes.transport import Transport
from featcache.spec import ExtractionSpec
from featcache.store.cache import Cache
from featcache.store.claims import living_owner
from featcache.store.feature_set import FeatureSet, is_sealed
from featcache.store.files import disk_errors, sync_directory, temporary_path
from featcache.store.verify import verify

INCOMING = "incoming"
"""Directory of a cache for sets that are on their way."""


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
        raise not_as_pushed(transport, folder, f"does not agree with itself: {problems[0]}")
    settle(staging, target)
    return Transferred(
        name=name,
        key=one.key,
        digest=one.digest,
        path=target,
        files=sum(size > 0 for size in sizes),
        bytes=sum(sizes),
    )


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
            raise not_as_pushed(transport, name, "is not the file that was sealed")
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
