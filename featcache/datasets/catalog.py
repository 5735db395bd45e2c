"""The registry of datasets: schemes (`imagefolder:DIR`) and names (`digits`)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from featcache.datasets.dataset import Dataset
from featcache.datasets.named import named
from featcache.datasets.recorded import Record, source_of
from featcache.datasets.source import Source
from featcache.datasets.subset import SubsetDataset, parse_suffix, subset_name
from featcache.errors import OptionError, UnknownNameError
from featcache.registry import Entry, Registry

_SCHEMES = {
    "imagefolder": "Folders of images, one per class: imagefolder:DIR",
    "csv": "A table with the columns path, label, split, id: csv:FILE",
    "hf": "Hugging Face datasets or Parquet files: hf:REPO[@REVISION][#CONFIG], hf:PATH",
    "wds": "Tar archives in the WebDataset format: wds:DIR, wds:shard-{000..009}.tar",
    "torchvision": "torchvision's datasets below $FEATCACHE_DATA: torchvision:CLASS[@ROOT]",
}
_MODULES = {"fashion-mnist": "fashion_mnist", "wds": "webdataset"}
_SCHEME = re.compile(r"([A-Za-z][\w+.-]+):(.*)", re.DOTALL)
_PATH_LIKE = re.compile(r"[/\\~]|^\.|^[A-Za-z]:")

DATASETS: Registry[Source] = Registry(
    "dataset", "featcache.datasets", list_command="featcache ls datasets"
)
"""All schemes and names; each loads as a `Source`."""


def entries() -> dict[str, Entry]:
    """Return the built-in schemes and names, without importing what they need."""
    found = {
        scheme: Entry(_target(scheme), {"description": description})
        for scheme, description in _SCHEMES.items()
    }
    for name, facts in named().items():
        if "reader" in facts:
            found[name] = Entry("featcache.datasets.recorded:source_of", facts)
            continue
        found[name] = Entry(_target(name.partition(":")[0]), facts)
    return found


def _target(name: str) -> str:
    return f"featcache.datasets.{_MODULES.get(name, name)}:SOURCE"


def open_dataset(source: str) -> Dataset:
    """Open a dataset by what a user writes.

    Args:
        source: `SCHEME:REST` or a name, maybe followed by `?rows=N` for a part of each split, or by
            `?part` for a named dataset of which only a part is there.

    Raises:
        UnknownNameError: If the scheme or the name is not known; with the nearest ones.
        OptionError: If an option is not one the dataset has.
        DatasetError: If the dataset cannot be opened.
        MissingDependencyError: If it needs a package that is not installed.
    """
    base, rows, is_part = parse_suffix(source)
    name, rest = _parse(base)
    if name and name not in DATASETS and Path(base).is_dir():
        raise UnknownNameError(_path_message(base))
    dataset = _source(name, is_part).open(rest)
    return dataset if rows is None else SubsetDataset(dataset, rows, lambda: _first(name, base))


def dataset_name(source: str) -> str:
    """Return the name in the cache of what a user writes; opens nothing.

    Equal to `open_dataset(source).name`. A plain name that is not registered is returned as it
    is: it may be a name in the cache.

    Raises:
        UnknownNameError: If the scheme is not known, or `source` looks like a path.
        OptionError: If the `?` suffix is not one there is.
    """
    base, rows, is_part = parse_suffix(source)
    name, rest = _parse(base)
    is_cached_name = name == base and name not in DATASETS and not is_part
    found = name if is_cached_name else _source(name, is_part).name(rest)
    return found if rows is None else subset_name(found, rows)


def parse_source(source: str) -> tuple[str, str]:
    """Split what a user writes into a name (or scheme) and the rest; its `?` suffix is dropped.

    Raises:
        UnknownNameError: If it looks like a path.
        OptionError: If the `?` suffix is not one there is.
    """
    return _parse(parse_suffix(source)[0])


def _source(name: str, is_part: bool) -> Source:
    facts = DATASETS.get(name).facts
    if "reader" in facts:
        return source_of(Record.of(name, facts), is_part=is_part)
    if is_part:
        raise OptionError(
            f"`?part` must follow a dataset with a known number of rows; {name!r} has none. "
            "Leave it out."
        )
    return DATASETS.load(name)


def _first(name: str, source: str) -> Sequence[str]:
    """Return the ids that a part of a gallery begins with, where queries have a ground truth."""
    from featcache.datasets.ground_truth import FIELD, first_answers, ground_truth

    return first_answers(ground_truth(source)) if FIELD in DATASETS.get(name).facts else ()


def _parse(source: str) -> tuple[str, str]:
    """Split `SCHEME:REST` or `NAME[@REST]`; a drive letter is no scheme."""
    if found := _SCHEME.fullmatch(source):
        return found[1], found[2]
    name, _, rest = source.partition("@")
    if _PATH_LIKE.search(name):
        raise UnknownNameError(_path_message(source))
    return name, rest


def _path_message(path: str) -> str:
    if path.lower().endswith((".csv", ".tsv")):
        return f"A dataset must be a name or SCHEME:REST; got the path {path!r}. Write csv:{path}"
    return (
        f"A dataset must be a name or SCHEME:REST; got the path {path!r}. Write imagefolder:{path}"
    )
