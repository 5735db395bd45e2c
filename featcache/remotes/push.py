"""Put sealed sets where others can fetch them: files first, what names them last."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featcache.digest import blake3_bytes, blake3_file
from featcache.errors import CorruptError, RemoteError
from featcache.remotes.pointer import Pointer, pointer_name, read_pointer, set_name
from featcache.remotes.transport import Transport
from featcache.store.feature_set import FeatureSet
from featcache.store.manifest import GROUP_FILE

PARALLEL = 8
"""Files that travel at the same time."""

Sign = Callable[[bytes], dict[str, str]]
"""From the bytes to sign to `public_key` and `signature`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transferred:
    """What became of one set."""

    name: str
    """Its pointer's name at the remote."""
    key: str
    digest: str
    path: Path
    files: int
    """Files that travelled now; 0 if all were there."""
    bytes: int
    """Their size."""


def push(
    path: Path,
    transport: Transport,
    *,
    as_variant: bool = False,
    sign: Sign | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> Transferred:
    """Push one sealed set. What is there already is not sent again.

    Args:
        path: The set's directory in the local cache.
        transport: The remote.
        as_variant: Keep this content beside another that the key already has there.
        sign: Signs the pointer.
        advance: Told the bytes that were sent, or were there already.

    Returns:
        What was sent.

    Raises:
        UnsealedError: If the set is not complete.
        CorruptError: If a local file is not what was sealed; nothing of it is sent.
        RemoteError: If the key has another content there, or if the remote cannot be written.
    """
    one = FeatureSet(path)
    name = pointer_name(one.spec)
    _refuse_other(read_pointer(transport, name), one, transport, as_variant=as_variant)
    folder = set_name(one.spec, one.digest)
    sent = 0

    def send(file: dict[str, Any]) -> int:
        target = f"{folder}/{file['path']}"
        moved = 0
        if transport.size(target) != file["bytes"]:
            if blake3_file(path / file["path"]) != file["blake3"]:
                raise CorruptError(
                    f"{path / file['path']} must be the file that was sealed; it was changed. Run: "
                    "featcache cache verify"
                )
            transport.put(target, path / file["path"])
            moved = int(file["bytes"])
        advance(int(file["bytes"]))
        return moved

    with ThreadPoolExecutor(PARALLEL) as pool:
        moved = list(pool.map(send, one.sealed["files"]))
    manifest = _manifest(transport, f"{folder}/{GROUP_FILE}", (path / GROUP_FILE).read_bytes())
    pointer = Pointer(key=one.key, digest=one.digest, manifest=blake3_bytes(manifest))
    if sign is not None:
        pointer = Pointer(
            key=one.key,
            digest=one.digest,
            manifest=pointer.manifest,
            signatures=(sign(pointer.payload()),),
        )
    transport.create(pointer_name(one.spec, one.digest), pointer.encode())
    if not transport.create(name, pointer.encode()):
        other = read_pointer(transport, name)
        _refuse_other(other, one, transport, as_variant=as_variant)
        if other is not None and other.digest != one.digest:
            name = pointer_name(one.spec, one.digest)
    sent = sum(moved)
    return Transferred(
        name=name,
        key=one.key,
        digest=one.digest,
        path=path,
        files=sum(size > 0 for size in moved),
        bytes=sent,
    )


def _manifest(transport: Transport, name: str, data: bytes) -> bytes:
    """Store the manifest unless there is one, and return the one that is there.

    Two machines that computed the same content differ in provenance only: the first is kept.
    """
    if transport.create(name, data):
        return data
    size = transport.size(name)
    return transport.read(name, 0, size) if size else data


def _refuse_other(
    found: Pointer | None, one: FeatureSet, transport: Transport, *, as_variant: bool
) -> None:
    if found is None or found.digest == one.digest or as_variant:
        return
    raise RemoteError(
        f"Key {one.key[:12]} must mean one content; at {transport.url} it has "
        f"{found.digest[:12]}, here {one.digest[:12]}. Machines that round differently "
        f"give such pairs; `featcache cache verify --recompute 256 {one.key[:12]}` tells whether "
        "yours is right. Pull theirs, or keep both with --as-variant."
    )
