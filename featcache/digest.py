"""Canonical JSON and the two hashes: SHA-256 names values, BLAKE3 checks bytes."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from featcache.errors import SpecError

Json = Any
"""A plain JSON value: None, bool, int, float, str, list or dict with string keys."""

_READ_BYTES = 1 << 22


def canonical_json(value: Json) -> str:
    """Write a plain JSON value in the one form that is hashed.

    Keys are sorted, nothing is indented, text stays UTF-8, and a float with an integral
    value is written as an integer, so that `1.0` and `1` are one value in every language.

    Raises:
        SpecError: If `value` holds NaN, infinity, a non-string key or a non-JSON type.
    """
    return json.dumps(
        _plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def _plain(value: Json) -> Json:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise SpecError(f"Spec values must be finite numbers; got {value!r}. Leave it out.")
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    if isinstance(value, dict) or isinstance(value, Mapping):  # noqa: SIM101  quick one first
        if bad := [key for key in value if not isinstance(key, str)]:
            raise SpecError(f"Spec keys must be strings; got {bad[0]!r}. Use its name.")
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [item if type(item) is str else _plain(item) for item in value]
    raise SpecError(
        f"Spec values must be plain JSON; got {type(value).__name__} {value!r}. Convert it first."
    )


def sha256_json(value: Json) -> str:
    """Return the SHA-256 of the canonical JSON of `value`, 64 hex digits.

    Raises:
        SpecError: As `canonical_json`, or if a text is not Unicode.
    """
    try:
        data = canonical_json(value).encode()
    except UnicodeEncodeError as error:
        raise SpecError(f"Spec values must be Unicode text; {error}. Rename it.") from error
    return hashlib.sha256(data).hexdigest()


def blake3_bytes(*parts: bytes | memoryview) -> str:
    """Return the BLAKE3 digest of the concatenated `parts`, 64 hex digits."""
    import blake3

    hasher = blake3.blake3()
    for part in parts:
        hasher.update(part)
    return hasher.hexdigest()


def blake3_file(path: Path) -> str:
    """Return the BLAKE3 digest of a file's bytes, 64 hex digits.

    Raises:
        OSError: If the file cannot be read.
    """
    import blake3

    hasher = blake3.blake3()
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            hasher.update(block)
    return hasher.hexdigest()
