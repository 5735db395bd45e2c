"""Pointer and manifest of a remote set: fetched and checked before anything else is."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from featcache.digest import blake3_bytes, sha256_json
from featcache.errors import CorruptError, FeatcacheError, RemoteError, SpecError
from featcache.remotes.pointer import DIGEST_DIGITS, Pointer, read_pointer, set_name_beside
from featcache.remotes.transport import Transport, read_small
from featcache.spec import ExtractionSpec
from featcache.store.cache import Cache
from featcache.store.feature_set import FeatureSet
from featcache.store.files import disk_errors, parse_json, temporary_path
from featcache.store.manifest import GROUP_FILE, MAX_METADATA_BYTES, check_files

Trust = Callable[[Pointer, str], None]
"""Raises if a pointer from this URL is not to be trusted."""


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
        raise not_as_pushed(
            transport, name, f"leads to key {pointer.key[:12]}, not {spec.key[:12]}"
        )
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
        raise not_as_pushed(transport, name, "is not the manifest that its pointer names")
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
                raise not_as_pushed(transport, name, "is missing")
            (staging / "features").mkdir(exist_ok=True)
            _write(staging / "features" / "zarr.json", layout)
    try:
        one = FeatureSet(staging)
        wrong = check_files(one.sealed["files"], one.layout)
    except (FeatcacheError, KeyError, TypeError, AttributeError) as error:
        wrong = str(error)
    if wrong:
        shutil.rmtree(staging.parent, ignore_errors=True)
        raise not_as_pushed(transport, f"{folder}/{GROUP_FILE}", wrong)
    return staging


def _write(path: Path, data: bytes) -> None:
    temporary = temporary_path(path.parent)
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def not_as_pushed(transport: Transport, name: str, what: str) -> CorruptError:
    """Return the error for what a remote gives and nobody pushed."""
    return CorruptError(
        f"What a remote gives must be what was pushed; {name} at {transport.url} {what}. Nothing "
        "was kept of it: push the set again, or do not use this remote."
    )
