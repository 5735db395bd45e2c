"""Datasets that are a row of data: where the files lie, how they are read, what must be there.

A row names the module under `readers` that knows its layout. `NAME` looks below `$FEATCACHE_DATA`,
`NAME@DIR` in DIR. Nothing is downloaded; what is missing is named with the way to get it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from featcache.datasets.dataset import Dataset, Split
from featcache.datasets.named import DATA_VARIABLE, data_root
from featcache.datasets.source import LoadedDataset, Source, order_splits
from featcache.digest import Json
from featcache.errors import DatasetError
from featcache.registry import load_target


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What a row says of a dataset."""

    name: str
    reader: str
    """Module under `featcache.datasets.readers`."""
    folder: str
    """Where the files lie below `$FEATCACHE_DATA`."""
    get: str
    """How to get them, a sentence; and how they must lie, if that is not obvious."""
    splits: Mapping[str, Mapping[str, Json]]
    """Split to what the reader needs to know of it, such as its folder."""
    rows: Mapping[str, int] = field(default_factory=dict)
    """Split to the number of images that it must have."""
    facts: Mapping[str, Json] = field(default_factory=dict)
    """The whole row but `splits`; recorded with each feature set."""

    @classmethod
    def of(cls, name: str, facts: Mapping[str, Json]) -> Record:
        """Return the record of a row that names a reader."""
        return cls(
            name=name,
            reader=facts["reader"],
            folder=facts["folder"],
            get=facts["get"],
            splits={split: dict(given or {}) for split, given in facts["splits"].items()},
            rows=facts.get("rows", {}),
            facts={key: value for key, value in facts.items() if key not in _NOT_FACTS},
        )


_NOT_FACTS = ("splits", "get", "reader", "folder")

Reader = Callable[[Record, Path, str], Split]
"""(record, folder of the files, split) to the split; raises a DatasetError if files are missing."""


def source_of(record: Record, *, is_part: bool = False) -> Source:
    """Return what opens a record.

    Args:
        record: What is known of the dataset.
        is_part: Whether fewer rows than the record says are fine; the name then says so.
    """
    name = part_name(record.name) if is_part else record.name
    return Source(
        name=lambda _rest: name,
        open=lambda rest: open_record(record, rest, name=name, is_part=is_part),
    )


def part_name(name: str) -> str:
    """Return the name in the cache of a dataset of which only a part is there."""
    return f"{name}-part"


def open_record(record: Record, rest: str, *, name: str, is_part: bool) -> Dataset:
    """Open a record; its files are read when a split is loaded.

    Raises:
        DatasetError: If no folder is known, or if it is not there.
    """
    root = find_root(record, rest)
    order = order_splits(set(record.splits))
    return LoadedDataset(name, order, lambda split: _load(record, root, split, name, is_part))


def find_root(record: Record, rest: str) -> Path:
    """Return the folder of a record's files: `rest`, or its folder below `$FEATCACHE_DATA`.

    Raises:
        DatasetError: If no folder is known, or if it is not there.
    """
    root = Path(rest).expanduser() if rest else data_root()
    if root is not None and not rest:
        root = root / record.folder
    if root is None or not root.is_dir():
        got = "no folder is known" if root is None else f"there is no folder {str(root)!r}"
        raise DatasetError(
            f"The files of {record.name} must lie in {record.folder!r} below ${DATA_VARIABLE}; "
            f"{got}. {record.get} Then set {DATA_VARIABLE}, or write {record.name}@DIR."
        )
    return root


def _load(record: Record, root: Path, split: str, name: str, is_part: bool) -> Split:
    from dataclasses import replace

    read = cast(Reader, load_target(f"featcache.datasets.readers.{record.reader}:read"))
    found = read(record, root, split)
    wanted = record.rows.get(split, len(found))
    if len(found) != wanted and not (is_part and 0 < len(found) < wanted):
        raise DatasetError(
            f"Split {split!r} of {record.name} must have {wanted} images; {str(root)!r} holds "
            f"{len(found)}. {record.get} To use what is there, write {record.name}?part."
        )
    return replace(found, dataset=name)
