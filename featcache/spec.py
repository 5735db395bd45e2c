"""What names a feature set: everything that changes a feature, and nothing else.

`ExtractionSpec.key` is the SHA-256 of the canonical JSON of these fields. Library versions,
device, batch size, time and cost are provenance: recorded beside it, never part of it.
"""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Self, get_args

from featcache.digest import Json, canonical_json, sha256_json
from featcache.errors import SpecError

FORMAT = 1
"""Bumped whenever the same spec would give other features or another store layout."""

KEY_DIGITS = 20
"""Hex digits of the key that stand in a path: 80 bits, no clash below 10^11 sets."""

ComputeDtype = Literal["fp32", "tf32", "bf16", "fp16"]
StoredDtype = Literal["float16", "float32", "uint8"]
"""`uint8` holds the codes of a quantised set; networks give the other two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetIdentity:
    """Which rows, in which order, with which labels."""

    name: str
    split: str
    rows: int
    fingerprint: str
    """Digest of the ordered list of (id, content digest); never of a path or a time."""
    label_set: str
    """Digest of the ordered class names and the label of each row."""

    def __post_init__(self) -> None:
        """Refuse a set without rows."""
        if self.rows < 1:
            raise SpecError(
                f"A split must have at least one row; {self.name!r} split {self.split!r} has "
                f"{self.rows}. Check the dataset's path and split."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneIdentity:
    """Which network: its name, architecture and the digest of the weights really loaded."""

    name: str
    architecture: str
    weights: str
    """BLAKE3 of the loaded tensors (name, dtype, shape, bytes); empty string if it has none."""
    options: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformSpec:
    """How a decoded image becomes the network's input, as data."""

    resize: int | tuple[int, int]
    """Side in pixels: an int scales the shorter side (`resize_mode='shorter'`)."""
    resize_mode: Literal["shorter", "squash", "none"] = "shorter"
    crop: int | None = None
    """Centre crop side in pixels; None keeps the resized image (mode 'squash')."""
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bicubic"
    antialias: bool = True
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    engine: str = "pil"
    decode: str = "pil-rgb8@1"
    """Colour and orientation policy of `featcache.datasets.decode`."""

    def to_json(self) -> dict[str, Json]:
        """Return the fields as plain JSON."""
        return _fields(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Numerics:
    """In which precision features are computed and stored."""

    compute: ComputeDtype = "fp32"
    stored: StoredDtype = "float16"

    def __post_init__(self) -> None:
        """Refuse names outside the closed lists."""
        for name, got, allowed in (
            ("compute", self.compute, get_args(ComputeDtype)),
            ("stored", self.stored, get_args(StoredDtype)),
        ):
            if got not in allowed:
                raise SpecError(f"`{name}` must be one of {', '.join(allowed)}; got {got!r}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """How many deterministic views of each image; one is the transform itself."""

    count: int = 1
    augmentation: Mapping[str, Json] | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        """Refuse no views."""
        if self.count < 1:
            raise SpecError(f"`count` of views must be at least 1; got {self.count}. Use 1.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractionSpec:
    """The exact name of a feature set."""

    dataset: DatasetIdentity
    backbone: BackboneIdentity
    transform: Mapping[str, Json]
    """`TransformSpec.to_json()`, or the spec of a user's own transform."""
    tap: str
    views: Views = Views()
    numerics: Numerics = Numerics()
    derived: Mapping[str, Json] | None = None
    """How the set was computed from others (`featcache.derived`); None: by the network."""
    format: int = FORMAT

    def to_json(self) -> dict[str, Json]:
        """Return the spec as plain JSON, the form that is stored and hashed.

        `derived` is left out where it is None.
        """
        fields = _fields(self)
        if self.derived is None:
            del fields["derived"]
        return fields

    @property
    def view(self) -> str:
        """The tap, and the recipe of a derived set: `pooled`, `pooled|pca:128`."""
        return f"{self.tap}|{self.derived['recipe']}" if self.derived else self.tap

    @classmethod
    def from_json(cls, data: Mapping[str, Json]) -> Self:
        """Rebuild a spec from its stored JSON.

        Raises:
            SpecError: If a field is missing, unknown or of another type, or the format is newer.
        """
        got = data.get("format") if isinstance(data, Mapping) else FORMAT
        if type(got) is not int or got != FORMAT:
            raise SpecError(
                f"This featcache reads format {FORMAT}; the feature set has format "
                f"{reprlib.repr(got)}. Upgrade featcache, or extract the set again."
            )
        _check_stored(data, _STORED)
        try:
            return cls(
                dataset=DatasetIdentity(**data["dataset"]),
                backbone=BackboneIdentity(**data["backbone"]),
                transform=dict(data["transform"]),
                tap=data["tap"],
                views=Views(**data["views"]),
                numerics=Numerics(**data["numerics"]),
                derived=data.get("derived"),
                format=data["format"],
            )
        except ValueError as error:
            raise SpecError(
                f"A stored spec must hold what a spec may; got other values: {error}"
            ) from error

    @property
    def key(self) -> str:
        """SHA-256 of the canonical JSON, 64 hex digits."""
        return sha256_json(self.to_json())


_TEXT, _WHOLE, _OBJECT = ("a text", str), ("a whole number", int), ("an object", Mapping)
_STORED: Mapping[str, Json] = {
    "dataset": {
        "name": _TEXT,
        "split": _TEXT,
        "rows": _WHOLE,
        "fingerprint": _TEXT,
        "label_set": _TEXT,
    },
    "backbone": {"name": _TEXT, "architecture": _TEXT, "weights": _TEXT, "options": _OBJECT},
    "transform": _OBJECT,
    "tap": _TEXT,
    "views": {
        "count": _WHOLE,
        "augmentation": ("an object or null", Mapping | None),
        "seed": ("a whole number or null", int | None),
    },
    "numerics": {"compute": _TEXT, "stored": _TEXT},
    "derived": _OBJECT,
    "format": _WHOLE,
}
"""What each field of a stored spec is. `1`, `1.0` and `true` are told apart, as keys of sets."""
_OPTIONAL = {"derived"}


def _check_stored(data: Json, expected: Json, where: str = "") -> None:
    """Refuse a stored spec with a field too many, too few or of another type.

    What stands inside a transform, a backbone's options or an augmentation is theirs.
    """
    kind, types = ("an object", Mapping) if isinstance(expected, Mapping) else expected
    if isinstance(data, bool) or not isinstance(data, dict if types is Mapping else types):
        what = f"{kind} as `{where}`" if where else f"all fields of a spec in {kind}"
        raise SpecError(
            f"A stored spec must have {what}; got {reprlib.repr(data)}. Extract the set again."
        )
    if not isinstance(expected, Mapping):
        if where == "derived" and not isinstance(data.get("recipe"), str):
            raise SpecError(
                "A stored spec must have a text as `derived.recipe`; got "
                f"{reprlib.repr(data.get('recipe'))}. Derive the set again."
            )
        return
    if wrong := (expected.keys() - _OPTIONAL - data.keys()) | (data.keys() - expected.keys()):
        raise SpecError(
            f"A stored spec must have all fields of a spec and no others; got {where or 'one'} "
            f"with one too few or too many: {reprlib.repr(sorted(map(str, wrong)))}. "
            "Extract the set again."
        )
    for name, value in data.items():
        _check_stored(value, expected[name], f"{where}.{name}" if where else name)


def without_dataset(spec: ExtractionSpec) -> dict[str, Json]:
    """Return a spec's JSON without the dataset: how features were made, not of what."""
    return {name: value for name, value in spec.to_json().items() if name != "dataset"}


def explain(first: Mapping[str, Json], second: Mapping[str, Json]) -> list[tuple[str, Json, Json]]:
    """List the fields in which two spec JSONs differ.

    Returns:
        (dotted field, value in `first`, value in `second`), sorted by field; a field that one
        side lacks has None there. Empty when the specs are equal.
    """
    left, right = _flatten(first), _flatten(second)
    return [
        (name, left.get(name), right.get(name))
        for name in sorted(left.keys() | right.keys())
        if canonical_json(left.get(name)) != canonical_json(right.get(name))
    ]


def _flatten(value: Mapping[str, Json], prefix: str = "") -> dict[str, Json]:
    flat: dict[str, Json] = {}
    for name, item in value.items():
        if isinstance(item, Mapping) and item:
            flat |= _flatten(item, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = item
    return flat


def _fields(value: Json) -> dict[str, Json]:
    return {item.name: _to_json(getattr(value, item.name)) for item in dataclasses.fields(value)}


def _to_json(value: Json) -> Json:
    if value is None or isinstance(value, str | int | float):
        return value
    if dataclasses.is_dataclass(value):
        return _fields(value)
    if isinstance(value, Mapping):
        return {name: _to_json(item) for name, item in value.items()}
    return [_to_json(item) for item in value] if isinstance(value, tuple | list) else value
