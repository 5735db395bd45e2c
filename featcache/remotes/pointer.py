"""Where a set lies at a remote, and the small object that says so.

    features/<dataset>/<split>/<backbone>/
        <tap>-<key>.json              the pointer: what the key means here
        <tap>-<key>.<digest>.json     the pointer to one content of it
        <tap>-<key>.<digest>.zarr/    the files of that content, plain Zarr

Files lie under the digest of their content, so two pushes of different content never mix. The
pointer is written last and only if there is none: the first push of a key decides what it means.
"""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass

from featcache.digest import Json, canonical_json
from featcache.errors import CorruptError
from featcache.remotes.transport import Transport, read_small
from featcache.spec import KEY_DIGITS, ExtractionSpec
from featcache.store.cache import slug
from featcache.store.files import json_bytes, parse_json

DIGEST_DIGITS = 16
"""Hex digits of the content digest that stand in a name: 64 bits within one key."""
MAX_POINTER_BYTES = 1 << 16
_HEX = re.compile(r"[0-9a-f]{64}")
_PART = r"(?!\.)[A-Za-z0-9._=-]+"
"""What `slug` gives: it never starts with a dot, so no name leads out of the remote."""
_NAME = re.compile(
    rf"(?P<folder>features/{_PART}/{_PART}/{_PART})/"
    rf"(?P<tap>{_PART})-(?P<key>[0-9a-f]{{{KEY_DIGITS}}})\.json"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointer:
    """One sealed set at a remote."""

    key: str
    """Spec key, 64 hex digits."""
    digest: str
    """Content digest, 64 hex digits."""
    manifest: str
    """BLAKE3 of the set's `zarr.json`."""
    signatures: tuple[dict[str, str], ...] = ()
    """Who vouches for it: `public_key` and `signature`, both hex."""

    def payload(self) -> bytes:
        """Return the bytes that a signature covers."""
        named = {"key": self.key, "digest": self.digest, "manifest": self.manifest}
        return b"featcache set\n" + canonical_json(named).encode()

    def encode(self) -> bytes:
        """Return the pointer as it is stored."""
        return json_bytes(
            {
                "key": self.key,
                "digest": self.digest,
                "manifest": self.manifest,
                "signatures": list(self.signatures),
            }
        )

    @classmethod
    def decode(cls, data: bytes, where: str) -> Pointer:
        """Read a pointer.

        Raises:
            CorruptError: If it is not one.
        """
        value: Json = parse_json(data, where)
        names = ("key", "digest", "manifest")
        try:
            found = {name: value[name] for name in names}
            if not isinstance(value["signatures"], list):
                raise TypeError("the signatures are not a list")  # noqa: TRY301
            signatures = tuple(
                {"public_key": one["public_key"], "signature": one["signature"]}
                for one in value["signatures"]
            )
            texts = [*found.values(), *(text for one in signatures for text in one.values())]
            if not all(isinstance(text, str) for text in texts):
                raise TypeError("a text is not a text")  # noqa: TRY301
            if not all(_HEX.fullmatch(text) for text in found.values()):
                raise ValueError("a digest is not 64 hex digits")  # noqa: TRY301
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptError(
                f"{where} must name a feature set; {error!r}. Do not use this remote, or push the "
                "set there again."
            ) from error
        return cls(**found, signatures=signatures)


def folder(dataset: str, split: str, backbone: str) -> str:
    """Return the directory of the sets of one dataset split and backbone."""
    return f"features/{slug(dataset)}/{slug(split)}/{slug(backbone)}"


def pointer_name(spec: ExtractionSpec, digest: str | None = None) -> str:
    """Return the name of the pointer to a key, or to one content of it."""
    one = spec.dataset
    stem = f"{slug(spec.view)}-{spec.key[:KEY_DIGITS]}"
    variant = f".{digest[:DIGEST_DIGITS]}" if digest else ""
    return f"{folder(one.name, one.split, spec.backbone.name)}/{stem}{variant}.json"


def set_name(spec: ExtractionSpec, digest: str) -> str:
    """Return the directory of a set's files."""
    return pointer_name(spec, digest).removesuffix(".json") + ".zarr"


def set_name_beside(pointer: str, digest: str) -> str:
    """Return the directory of the files that the pointer called `pointer` leads to."""
    stem = pointer.removesuffix(".json").removesuffix(f".{digest[:DIGEST_DIGITS]}")
    return f"{stem}.{digest[:DIGEST_DIGITS]}.zarr"


def read_pointer(transport: Transport, name: str) -> Pointer | None:
    """Return the pointer called `name`; None if there is none.

    Raises:
        CorruptError: If it is not a pointer.
        RemoteError: If the remote cannot be reached.
    """
    data = read_small(transport, name, MAX_POINTER_BYTES)
    return None if data is None else Pointer.decode(data, f"{name} at {transport.url}")


INDEX_NAME = "features/index.json"
"""Names of all pointers below a directory that is served by a web server."""
MAX_INDEX_BYTES = 64 << 20


def list_pointers(transport: Transport, pattern: str = "*", prefix: str = "features") -> list[str]:
    """Return the names of the pointers to keys, sorted; those to single contents are left out.

    Args:
        transport: The remote.
        pattern: Shell pattern on `dataset/split/backbone`, or the start of a key.
        prefix: Directory to look in.

    Raises:
        RemoteError: If the remote cannot be listed and has no index.
    """
    index = read_small(transport, INDEX_NAME, MAX_INDEX_BYTES)
    if index is not None:
        names = parse_json(index, f"{INDEX_NAME} at {transport.url}")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise CorruptError(
                f"{INDEX_NAME} at {transport.url} must be a list of names; it is not. Make it "
                "again with `featcache cache index DIR`."
            )
    else:
        names = list(transport.names(prefix))
    found = []
    for name in names:
        if not name.startswith(prefix) or not (match := _NAME.fullmatch(name)):
            continue
        path = match["folder"].removeprefix("features/")
        if fnmatch.fnmatchcase(path, pattern) or match["key"].startswith(pattern[:KEY_DIGITS]):
            found.append(name)
    return sorted(found)
