"""What is known about datasets with a name: the rows of `records`, read once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path

from featcache.datasets.source import class_facts
from featcache.digest import Json
from featcache.registry import read_yaml

DATA_VARIABLE = "FEATCACHE_DATA"
"""Environment variable: the folder that holds downloaded datasets, as torchvision lays them out."""


@cache
def named() -> Mapping[str, Mapping[str, Json]]:
    """Return the records of all datasets with a name, by name."""
    records: dict[str, dict[str, Json]] = {}
    for file in sorted(files("featcache.datasets.records").iterdir(), key=lambda file: file.name):
        if file.name.endswith(".yaml"):
            records |= read_yaml(file.read_text(encoding="utf-8"))
    return {
        name: {**class_facts(record.get("classes", 0)), **record}  # a row may have its own chance
        for name, record in records.items()
    }


def facts_of(name: str) -> dict[str, Json]:
    """Return what is recorded with each feature set of a named dataset."""
    return {key: value for key, value in named()[name].items() if key != "splits"}


def data_root() -> Path | None:
    """Return `$FEATCACHE_DATA` as a folder, or None if it is not set."""
    value = os.environ.get(DATA_VARIABLE)
    return Path(value).expanduser() if value else None
