"""Samples of a shard in the WebDataset format: files that share their name up to the first dot."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NoReturn

from featcache.datasets.folders import EXTENSIONS
from featcache.datasets.source import some_of
from featcache.datasets.tar import Member, members, read_member
from featcache.errors import DatasetError

Label = int | str
"""A number, or the name of a class."""

_PARTS = re.compile(r"((?:.*/|)[^.]+)\.([^/]*)", re.DOTALL)  # name and extension, as the format has
_ABOUT = re.compile(r"__[^/]*__($|/)")  # files about the shard, which the format passes over
_INTEGER = re.compile(r"-?[0-9]{1,18}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which files of a sample are its image and its label."""

    label: str = ""
    """Field of `json` that holds the label; `cls` holds it if empty."""
    image: str = ""
    """Extension of the image; the one known extension that a sample has if empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One row of a split."""

    name: str
    """Name of its files up to the first dot, with their folder."""
    image: Member | None
    label: Label | None
    ignored: tuple[str, ...] = ()
    """Extensions of its other files."""


@dataclass(slots=True)
class _Group:
    name: str
    parts: dict[str, Member] = field(default_factory=dict)
    """Extension in lower case to file."""


def read_samples(path: str, wanted: Wanted) -> list[Sample]:
    """Return the samples of a shard in their order; of the files, only labels are read.

    Args:
        path: The archive.
        wanted: What is image and what is label.

    Raises:
        DatasetError: If the archive is damaged, if two samples have one name, if a sample has two
            files of one extension or several images, or if a label cannot be read.
    """
    groups = list(_groups(path))
    count = Counter(one.name for one in groups)
    if len(count) < len(groups):
        twice = [name for name, times in count.items() if times > 1]
        _refuse(path, f"{some_of(twice, 3)} come again after other samples")
    with Path(path).open("rb") as file:
        return [_sample(path, file, one, wanted) for one in groups]


def _groups(path: str) -> Iterator[_Group]:
    """Yield files that lie side by side and share their name, as the format has it."""
    group: _Group | None = None
    for member in members(path):
        parts = _PARTS.fullmatch(member.name)
        if parts is None or _ABOUT.match(member.name):
            continue
        name, extension = parts[1], parts[2].lower()
        if group is None or name != group.name:
            if group is not None:
                yield group
            group = _Group(name)
        if extension in group.parts:
            _refuse(path, f"{name!r} has two files .{extension}")
        group.parts[extension] = member
    if group is not None:
        yield group


def _sample(path: str, file: IO[bytes], group: _Group, wanted: Wanted) -> Sample:
    image = _image(path, group, wanted)
    source = "json" if wanted.label else "cls"
    label = None
    if source in group.parts:
        data = read_member(file, group.parts[source])
        label = _field(path, group.name, data, wanted.label) if wanted.label else _number(data)
        if label is None:
            what = f"no field {wanted.label!r}, a number or a text" if wanted.label else "no number"
            _refuse(path, f"the .{source} of {group.name!r} holds {what}: {data[:40]!r}")
    used = {image, source}
    return Sample(
        name=group.name,
        image=None if image is None else group.parts[image],
        label=label,
        ignored=tuple(one for one in group.parts if one not in used),
    )


def _image(path: str, group: _Group, wanted: Wanted) -> str | None:
    """Return the extension of the image; None if there is none."""
    if wanted.image:
        return wanted.image if wanted.image in group.parts else None
    found = [one for one in group.parts if f".{one}" in EXTENSIONS]
    if len(found) > 1:
        _refuse(
            path,
            f"{group.name!r} has several images, {some_of(found)}; say which one is meant: "
            f"PATTERN#image={found[0]}",
        )
    return found[0] if found else None


def _number(data: bytes) -> int | None:
    text = data.decode("ascii", "replace").strip()
    return int(text) if _INTEGER.fullmatch(text) else None


def _field(path: str, name: str, data: bytes, key: str) -> Label | None:
    try:
        record = json.loads(data)
    except ValueError as error:
        _refuse(path, f"the .json of {name!r} is no JSON: {error}")
    value = record.get(key) if isinstance(record, Mapping) else None
    is_label = isinstance(value, int | str) and not isinstance(value, bool) and value != ""
    return value if is_label else None


def _refuse(path: str, got: str) -> NoReturn:
    raise DatasetError(
        "Samples must be files side by side that share their name up to the first dot; in "
        f"{path!r}, {got}. Write the shard again, sorted by name (tar --sort=name)."
    )
