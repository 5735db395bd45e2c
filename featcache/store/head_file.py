"""The file of a classifier: two arrays and facts in safetensors, checked wherever they come from.

Its tensors are `weights` and `bias`; everything else is JSON under `featcache` in its metadata:
the format, the facts, the key that follows from them, and a digest of facts and numbers.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from featcache.digest import Json, blake3_bytes, canonical_json, sha256_json
from featcache.errors import CorruptError, FeatcacheError, StoreError
from featcache.store.files import is_same_json, parse_json

HEAD_FORMAT = 1
"""Bumped when the meaning of a field changes."""
MAX_BYTES = 4 << 30  # 21843 classes on 16384 dimensions in float64 take 2.9 GB
KINDS = ("native", "probe", "text")

Array = NDArray[np.floating]


def key_of(facts: Mapping[str, Json]) -> str:
    """Hash what decides a head, 64 hex digits; a backbone is its weights, under whatever name."""
    backbone = facts["backbone"]
    named = {name: backbone[name] for name in ("architecture", "weights")}
    decide = {name: value for name, value in facts.items() if name != "descriptions"}
    return sha256_json({"format": HEAD_FORMAT, **decide, "backbone": named})


def digest_of(facts: Mapping[str, Json], weights: Array, bias: Array) -> str:
    """Return the BLAKE3 of facts and numbers, 64 hex digits; memory layout does not count."""
    parts: list[bytes | memoryview] = [canonical_json(facts).encode()]
    for array in (weights, bias):
        parts.append(canonical_json([array.dtype.name, list(array.shape)]).encode())
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        parts.append(little.reshape(-1).view(np.uint8).data)
    return blake3_bytes(*parts)


def encode_head(facts: Mapping[str, Json], weights: Array, bias: Array) -> bytes:
    """Return the bytes of a head's file; whether facts and arrays fit is for the caller."""
    from safetensors.numpy import save

    record = {
        "format": HEAD_FORMAT,
        "key": key_of(facts),
        "digest": digest_of(facts, weights, bias),
        "facts": facts,
    }
    tensors = {"weights": np.ascontiguousarray(weights), "bias": np.ascontiguousarray(bias)}
    return bytes(save(tensors, {"featcache": canonical_json(record)}))


@dataclass(frozen=True, slots=True)
class HeadFile:
    """A file whose facts are read and checked; its numbers are not yet."""

    path: Path
    facts: Mapping[str, Json]
    key: str
    shape: tuple[int, int]
    """Of the weights: (D, C)."""
    digest: str

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read and check everything but the numbers; torch is not imported.

        Raises:
            CorruptError: If it is not a head of this format.
            StoreError: If it cannot be read.
        """
        from safetensors import safe_open

        _check_size(path)
        try:
            with safe_open(path, framework="numpy") as file:
                text = (file.metadata() or {}).get("featcache", "")
                shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        except Exception as error:  # the parser's class, or numpy's for a type it does not have
            refuse(path, f"a safetensors file; {type(error).__name__}: {error}", error)
        if shapes.keys() != {"weights", "bias"} or len(shapes["weights"]) != 2:
            refuse(path, f"the file of a head; it holds {reprlib.repr(shapes)}")
        try:
            record = parse_json(text.encode(), "its metadata")
            _check_record(record)
        except (FeatcacheError, UnicodeEncodeError) as error:
            refuse(path, f"a head of format {HEAD_FORMAT}; {error}", error)
        if record["key"] != key_of(record["facts"]):
            refuse(path, "what its key says; its facts give another key")
        return cls(path, record["facts"], record["key"], shapes["weights"], record["digest"])

    def arrays(self) -> tuple[Array, Array]:
        """Read weights and bias, and check facts and numbers against the digest.

        Raises:
            CorruptError: If a byte differs from what was written.
        """
        from safetensors import safe_open

        try:
            with safe_open(self.path, framework="numpy") as file:
                weights, bias = file.get_tensor("weights"), file.get_tensor("bias")
            digest = digest_of(self.facts, weights, bias)
        except Exception as error:  # the same
            refuse(self.path, f"a whole file; {type(error).__name__}: {error}", error)
        if digest != self.digest:
            refuse(self.path, "as it was written; its digest differs")
        return weights, bias


def refuse(path: Path, what: str, error: Exception | None = None) -> NoReturn:
    """Raise the `CorruptError` of a head's file.

    Raises:
        CorruptError: Always; `what` says what the file must be, and what it is.
    """
    raise CorruptError(
        f"{path} must be {what}. Delete the file and make the head again."
    ) from error


def _check_size(path: Path) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise StoreError(
            f"A head must lie at {path}; {error.strerror}. List them with: featcache ls heads"
        ) from error
    if size > MAX_BYTES:
        refuse(path, f"at most {MAX_BYTES} bytes long; it has {size}")


_RECORD: Mapping[str, type] = {"format": int, "key": str, "digest": str, "facts": dict}
_FACTS: Mapping[str, type | tuple[type, ...]] = {
    "kind": str,
    "class_names": list,
    "descriptions": list,
    "backbone": dict,
    "tap": str,
    "is_unit_norm": bool,
    "scale": (int, float),
    "origin": dict,
}
_BACKBONE: Mapping[str, type] = {"name": str, "architecture": str, "weights": str, "options": dict}


def _check_record(record: Json) -> None:
    """Refuse metadata with a field too many, too few or of another type.

    Raises:
        CorruptError: With the first such field.
    """
    got = record.get("format") if isinstance(record, dict) else record
    if not is_same_json(got, HEAD_FORMAT):
        raise CorruptError(f"its format is {reprlib.repr(got)}")
    _check_fields(record, _RECORD)
    facts = record["facts"]
    _check_fields(facts, _FACTS)
    _check_fields(facts["backbone"], _BACKBONE)
    if facts["kind"] not in KINDS:
        raise CorruptError(f"its kind is {reprlib.repr(facts['kind'])}")
    for name in ("class_names", "descriptions"):
        if not all(isinstance(item, str) for item in facts[name]):
            raise CorruptError(f"`{name}` holds what is no text")


def _check_fields(values: Mapping[str, Json], types: Mapping[str, type | tuple[type, ...]]) -> None:
    if wrong := values.keys() ^ types.keys():
        raise CorruptError(f"a field is missing or unknown: {reprlib.repr(sorted(wrong))}")
    for name, kind in types.items():
        value = values[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise CorruptError(f"`{name}` is {reprlib.repr(value)}")
