"""What a probe learnt of its train rows, kept for the next run on the same rows.

A fit is one file, `<cache>/fits/<backbone>/<task>-<key>.safetensors`. It can always be computed
again: a file that is missing, damaged or of another format is no error, only work.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featcache.digest import Json, blake3_bytes, canonical_json, sha256_json
from featcache.spec import KEY_DIGITS
from featcache.store.cache import slug
from featcache.store.files import disk_errors, parse_json, write_replacing

FIT_FORMAT = 1
"""Bumped when the meaning of a statistic changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Arrays by name, and what else is to be known of them."""

    arrays: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    details: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class FitQuestion:
    """Everything that decides a fit."""

    task: str
    backbone: str
    inputs: Mapping[str, Json]
    """Role ('train', 'head') to what names it in a result."""
    options: Mapping[str, Json]
    """The options that the fit depends on."""
    seed: int

    def to_json(self) -> dict[str, Json]:
        """Return the fields, and the format, as plain JSON."""
        return {
            "format": FIT_FORMAT,
            "task": self.task,
            "inputs": dict(self.inputs),
            "options": dict(self.options),
            "seed": self.seed,
        }


class FitStore:
    """The fits below a cache's root."""

    def __init__(self, root: Path) -> None:
        """Use `<root>/fits`; nothing is created yet."""
        self._root = root / "fits"

    def path_of(self, question: FitQuestion) -> Path:
        """Return where a fit lies, whether or not it exists."""
        key = sha256_json(question.to_json())[:KEY_DIGITS]
        return self._root / slug(question.backbone) / f"{question.task}-{key}.safetensors"

    def find(self, question: FitQuestion) -> Fit:
        """Return what earlier runs kept; an empty fit if that is nothing, or not whole."""
        from safetensors import safe_open

        path = self.path_of(question)
        try:
            with safe_open(path, framework="numpy") as file:
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                record = parse_json(file.metadata()["featcache"].encode(), "its metadata")
            details = record["details"]
            is_whole = record["question"] == question.to_json()
            is_whole = is_whole and record["digest"] == _digest(arrays, details)
        except Exception:  # no file, or whatever the parsers say of bytes that are no fit
            return Fit()
        if not is_whole:
            return Fit()
        with suppress(OSError):
            os.utime(path)  # the last use, by which `cache gc` goes
        return Fit(arrays=arrays, details=details)

    def save(self, question: FitQuestion, fit: Fit) -> None:
        """Write a fit; one that is there is replaced.

        Raises:
            StoreError: If it cannot be written.
        """
        from safetensors.numpy import save

        arrays = {name: np.asarray(one, order="C") for name, one in fit.arrays.items()}
        record = {
            "question": question.to_json(),
            "details": dict(fit.details),
            "digest": _digest(arrays, fit.details),
        }
        path = self.path_of(question)
        with disk_errors(path.parent, "write a fit to"):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_replacing(path, save(arrays, {"featcache": canonical_json(record)}))


def _digest(arrays: Mapping[str, NDArray[np.generic]], details: Mapping[str, Json]) -> str:
    """Return the BLAKE3 of names, types, shapes, numbers and details, 64 hex digits."""
    parts: list[bytes | memoryview] = [canonical_json(dict(details)).encode()]
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")
        parts.append(canonical_json([name, array.dtype.name, list(array.shape)]).encode())
        parts.append(array.reshape(-1).view(np.uint8).data)
    return blake3_bytes(*parts)
