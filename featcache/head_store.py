"""Linear classifiers beside the features they read: fitted, native, or of a text tower.

A head is one file, `<cache>/heads/<backbone>/<kind>-<key>.safetensors`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from featcache.digest import Json
from featcache.errors import FeatcacheError, OptionError, ShapeError
from featcache.spec import KEY_DIGITS, BackboneIdentity
from featcache.store.cache import slug
from featcache.store.files import disk_errors, write_once
from featcache.store.head_file import HeadFile, digest_of, encode_head, key_of, refuse

HeadKind = Literal["native", "probe", "text"]
"""The network's own classifier; one that a probe fitted; class prompts through a text tower."""

MAX_CLASSES = MAX_DIM = 1 << 20
DTYPES = ("float16", "float32", "float64")
"""What weights may be stored in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredHead:
    """A linear classifier on the features of one backbone at one tap."""

    kind: HeadKind
    weights: NDArray[np.floating]
    """Shape (D, C). Of a text head the unit class vectors, not yet multiplied by `scale`."""
    bias: NDArray[np.floating]
    """Shape (C,)."""
    class_names: tuple[str, ...]
    """The C columns, in order."""
    backbone: BackboneIdentity
    """Of the network whose features it reads; its weights' digest must be that of the features."""
    tap: str
    is_unit_norm: bool = False
    """Whether rows are scaled to unit norm first."""
    scale: float = 1.0
    """Multiplies the logits: 100 for CLIP's cosines, 1 for others."""
    origin: Mapping[str, Json] = field(default_factory=dict)
    """Where it came from: protocol, seed and sets of a probe; prompts of a text head."""
    descriptions: tuple[str, ...] = ()
    """What each class is in words, where the names are codes such as `n01440764`; or empty."""

    @property
    def key(self) -> str:
        """SHA-256 of everything that decides the head, 64 hex digits; its numbers follow."""
        return key_of(_facts(self))

    @property
    def digest(self) -> str:
        """BLAKE3 of the facts and the numbers, 64 hex digits."""
        return digest_of(_facts(self), self.weights, self.bias)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadEntry:
    """A stored head as a listing shows it; its numbers are not read yet."""

    path: Path
    key: str
    kind: HeadKind
    backbone: BackboneIdentity
    tap: str
    dim: int
    class_names: tuple[str, ...]
    descriptions: tuple[str, ...]
    origin: Mapping[str, Json]

    @property
    def known(self) -> frozenset[str]:
        """Names and descriptions of its classes."""
        return frozenset((*self.class_names, *self.descriptions))


class HeadStore:
    """The heads below a cache's root."""

    def __init__(self, root: Path) -> None:
        """Use `<root>/heads`; nothing is created yet."""
        self._root = root / "heads"

    def path_of(self, head: StoredHead) -> Path:
        """Return where a head lies, whether or not it exists."""
        name = f"{head.kind}-{head.key[:KEY_DIGITS]}.safetensors"
        return self._root / slug(head.backbone.name) / name

    def save(self, head: StoredHead) -> StoredHead:
        """Write a head unless one with its key is there; the first writer wins.

        Returns:
            The head as it is stored: that of the first writer.

        Raises:
            ShapeError: If its arrays do not fit together or are not finite.
            StoreError: If it cannot be written.
            CorruptError: If the one that is there is damaged.
        """
        check_head(head)
        path = self.path_of(head)
        if not path.exists():
            data = encode_head(_facts(head), head.weights, head.bias)
            with disk_errors(path.parent, "write a head to"):
                path.parent.mkdir(parents=True, exist_ok=True)
                if write_once(path, data):
                    return head
        return read_head(path)

    def find(self, reference: str) -> StoredHead:
        """Return the head whose key starts with `reference`.

        Raises:
            OptionError: If none, or more than one, does.
            CorruptError: If it is damaged.
        """
        fitting = [one for one in self.entries() if one.key.startswith(reference)]
        if len({one.key for one in fitting}) == 1 and reference:
            return read_head(fitting[0].path)
        got = f"{len(fitting)} do" if fitting else "none does"
        raise OptionError(
            f"One head in {self._root.parent} must have a key that starts with {reference!r}; "
            f"{got}. List the keys with: featcache ls heads"
        )

    def entries(
        self, *, backbone: str | None = None, kind: HeadKind | None = None
    ) -> list[HeadEntry]:
        """Return what heads there are, by backbone, kind and key, without their numbers.

        A file that is no head, or a newer format's, is passed over.

        Args:
            backbone: Name of the backbone; None: all.
            kind: Kind of the head; None: all.
        """
        folder = "*" if backbone is None else slug(backbone)
        found = []
        for path in sorted(self._root.glob(f"{folder}/{kind or '*'}-*.safetensors")):
            try:
                one = _entry(HeadFile.open(path))
            except FeatcacheError:
                continue
            if backbone in (None, one.backbone.name) and kind in (None, one.kind):
                found.append(one)
        return found


def read_head(path: Path) -> StoredHead:
    """Read one file; nothing in it is executed, and torch is not imported.

    Raises:
        CorruptError: If it is not a whole head of this format, or if a byte of it differs.
        StoreError: If it cannot be read.
    """
    file = HeadFile.open(path)
    weights, bias = file.arrays()
    facts = file.facts
    try:
        scale = float(facts["scale"])
    except OverflowError as error:  # JSON's whole numbers may be of any size
        refuse(path, "a head that can be used: its scale is larger than any float", error)
    head = StoredHead(
        kind=facts["kind"],
        weights=weights,
        bias=bias,
        class_names=tuple(facts["class_names"]),
        backbone=BackboneIdentity(**facts["backbone"]),
        tap=facts["tap"],
        is_unit_norm=facts["is_unit_norm"],
        scale=scale,
        origin=facts["origin"],
        descriptions=tuple(facts["descriptions"]),
    )
    try:
        check_head(head)
    except ShapeError as error:
        refuse(path, f"a head that can be used: {error}", error)
    return head


def check_head(head: StoredHead) -> None:
    """Refuse a head that its own file would contradict.

    Raises:
        ShapeError: If the shapes do not fit, values are not finite, or names repeat.
    """
    shape, n_names = head.weights.shape, len(head.class_names)
    problem = ""
    if len(shape) != 2 or not 1 <= shape[0] <= MAX_DIM or not 1 <= shape[1] <= MAX_CLASSES:
        problem = f"weights of shape (D, C), each from 1 to {MAX_DIM}; got {shape}"
    elif head.bias.shape != shape[1:] or n_names != shape[1]:
        problem = (
            f"one bias and one name for each of {shape[1]} columns; got a bias of shape "
            f"{head.bias.shape} and {n_names} names"
        )
    elif len(set(head.class_names)) != n_names:
        problem = f"a name of its own for each class; got {_repeated(head.class_names)!r} twice"
    elif len(head.descriptions) not in (0, n_names):
        problem = f"a description for each of {n_names} classes; got {len(head.descriptions)}"
    elif not {head.weights.dtype.name, head.bias.dtype.name} <= set(DTYPES):
        got = f"{head.weights.dtype.name} and {head.bias.dtype.name}"
        problem = f"weights and bias in one of {', '.join(DTYPES)}; got {got}"
    elif not (np.isfinite(head.weights).all() and np.isfinite(head.bias).all()):
        problem = "finite weights and biases; got NaN or infinity"
    elif not (np.isfinite(head.scale) and head.scale > 0):
        problem = f"a positive finite scale; got {head.scale!r}"
    if problem:
        raise ShapeError(f"A head must have {problem}. Correct what it was made of.")


def _facts(head: StoredHead) -> dict[str, Json]:
    """Return everything but the numbers, as plain JSON."""
    one = head.backbone
    return {
        "kind": head.kind,
        "class_names": list(head.class_names),
        "descriptions": list(head.descriptions),
        "backbone": {
            "name": one.name,
            "architecture": one.architecture,
            "weights": one.weights,
            "options": dict(one.options),
        },
        "tap": head.tap,
        "is_unit_norm": head.is_unit_norm,
        "scale": float(head.scale),
        "origin": dict(head.origin),
    }


def _entry(file: HeadFile) -> HeadEntry:
    facts = file.facts
    return HeadEntry(
        path=file.path,
        key=file.key,
        kind=facts["kind"],
        backbone=BackboneIdentity(**facts["backbone"]),
        tap=facts["tap"],
        dim=file.shape[0],
        class_names=tuple(facts["class_names"]),
        descriptions=tuple(facts["descriptions"]),
        origin=facts["origin"],
    )


def _repeated(names: tuple[str, ...]) -> str:
    return next(name for row, name in enumerate(names) if name in names[:row])
