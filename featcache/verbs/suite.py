"""A suite: backbones times datasets times tasks, as data."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib.resources import files
from pathlib import Path

from featcache.backbones.catalog import BACKBONES
from featcache.datasets.catalog import dataset_name
from featcache.digest import Json, sha256_json
from featcache.errors import OptionError, UnknownNameError, did_you_mean
from featcache.probes.catalog import default_protocol, load_protocol
from featcache.registry import read_yaml

_SUITE = ("description", "citation", "note", "includes", "backbones", "seeds", "cells")
_CELL = (
    *("datasets", "tasks", "tap", "ood", "head"),
    *("train_split", "test_split", "val_split"),
)
_PATTERN = set("*?[")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One number of a suite: a task on a dataset with a backbone and a seed."""

    backbone: str
    dataset: str
    """What is extracted: a name, or a source such as `imagefolder:DIR`."""
    protocol: str
    seed: int = 0
    tap: str | None = None
    train_split: str | None = None
    test_split: str | None = None
    val_split: str | None = None
    ood: tuple[str, ...] = ()
    """Datasets to be told apart, or to be scored beside."""
    head: tuple[str, str] | None = None
    """Dataset and protocol of the cell whose classifier is applied."""

    @property
    def name(self) -> str:
        """`backbone/dataset/protocol`, with the seed if it is not 0."""
        seed = f"/seed{self.seed}" if self.seed else ""
        return f"{self.backbone}/{dataset_name(self.dataset)}/{self.protocol}{seed}"

    @property
    def datasets(self) -> tuple[str, ...]:
        """Every dataset that must be extracted for it."""
        fitted_on = (self.head[0],) if self.head else ()
        return tuple(dict.fromkeys((self.dataset, *self.ood, *fitted_on)))

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits of `dataset` that it names; none if it takes the usual ones."""
        named = (self.train_split, self.val_split, self.test_split)
        return tuple(dict.fromkeys(split for split in named if split))

    @property
    def id(self) -> str:
        """Twelve hex digits that stand for everything in it."""
        return sha256_json([getattr(self, item.name) for item in fields(self)])[:12]


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """Cells under a name."""

    name: str
    description: str = ""
    citation: str = ""
    note: str = ""
    cells: tuple[Cell, ...] = field(default_factory=tuple)


def shipped() -> dict[str, Path]:
    """Return the suites that come with featcache, by name."""
    folder = Path(str(files("featcache.suites")))
    found = sorted(folder.glob("*.yaml"))
    return {file.stem: file for file in found if file.stem != "speeds"}


def load_suite(name: str) -> Suite:
    """Return the suite of a name, or of a YAML file of your own.

    Raises:
        UnknownNameError: If there is no such suite, backbone, dataset or protocol.
        OptionError: If the file is not what a suite must be.
    """
    known = shipped()
    path = known.get(name, Path(name))
    if name not in known and path.suffix not in (".yaml", ".yml"):
        raise UnknownNameError(
            f"A suite must be one of {', '.join(known)}, or a YAML file; got {name!r}. "
            f"{did_you_mean(name, known)}List them with: featcache ls suites"
        )
    try:
        data = read_yaml(path.read_text(encoding="utf-8"))
    except Exception as error:  # the disk's or the parser's
        raise OptionError(
            f"A suite must be a YAML file that can be read; got {path}: {error}. Correct it."
        ) from error
    try:
        return _suite(path.stem, data)
    except (OptionError, UnknownNameError) as error:
        raise type(error)(f"Suite {path}: {error}") from error


def _suite(name: str, data: Json) -> Suite:
    own = isinstance(data, dict) and not ("includes" in data and "cells" not in data)
    _check_fields("a suite", data, _SUITE, required=("backbones", "cells") if own else ())
    included = [load_suite(one) for one in _texts("includes", data.get("includes", []), least=0)]
    cells = [cell for one in included for cell in one.cells]
    if own:
        cells += _cells(data)
    seen: dict[str, Cell] = {}
    for cell in cells:
        if cell.id in seen:
            raise OptionError(f"Each cell must occur once; got {cell.name} twice. Drop one.")
        seen[cell.id] = cell
    texts = {key: str(data.get(key, "")) for key in ("description", "citation", "note")}
    return Suite(name=name, cells=tuple(cells), **texts)


def _cells(data: Mapping[str, Json]) -> list[Cell]:
    """Return the cells of a suite's own backbones and groups."""
    backbones = _backbones(_texts("backbones", data["backbones"]))
    seeds = data.get("seeds", [0])
    if not isinstance(seeds, list) or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise OptionError(f"`seeds` must be whole numbers of at least 0; got {seeds!r}.")
    if not isinstance(data["cells"], list) or not data["cells"]:
        raise OptionError(f"`cells` must be a list, at least one; got {data['cells']!r}.")
    groups = [_group(one) for one in data["cells"]]
    return [
        Cell(backbone=backbone, seed=seed, **cell)
        for backbone in backbones
        for group in groups
        for cell in group
        for seed in seeds
    ]


def _group(data: Json) -> list[dict[str, Json]]:
    """Return the cells of one entry, without backbone and seed."""
    _check_fields("a cell", data, _CELL, required=("datasets", "tasks"))
    fields: dict[str, Json] = {
        name: str(data[name])
        for name in ("tap", "train_split", "test_split", "val_split")
        if name in data
    }
    fields["ood"] = _datasets("ood", data.get("ood", []), least=0)
    if "head" in data:
        _check_fields("`head`", data["head"], ("dataset", "task"), required=("dataset", "task"))
        fitted_on = _datasets("head.dataset", [data["head"]["dataset"]])[0]
        fields["head"] = (fitted_on, _protocol(str(data["head"]["task"])))
    return [
        {"dataset": dataset, "protocol": _protocol(task), **fields}
        for dataset in _datasets("datasets", data["datasets"])
        for task in _texts("tasks", data["tasks"])
    ]


def _backbones(given: Sequence[str]) -> list[str]:
    """Return names; a pattern stands for all registered names that match it."""
    found: dict[str, None] = {}
    for one in given:
        if not _PATTERN & set(one):
            if ":" not in one:
                BACKBONES.get(one)
            found[one] = None
            continue
        names = [name for name in BACKBONES.names() if fnmatch.fnmatchcase(name, one)]
        if not names:
            raise UnknownNameError(
                f"A pattern must match a backbone; {one!r} matches none. "
                "List them with: featcache ls backbones"
            )
        found |= dict.fromkeys(names)
    return list(found)


def _datasets(field: str, given: Json, *, least: int = 1) -> tuple[str, ...]:
    from featcache.datasets.catalog import DATASETS

    names = _texts(field, given, least=least)
    for name in names:
        if ":" not in name:
            DATASETS.get(name.partition("?")[0].partition("@")[0])
        dataset_name(name)
    return tuple(names)


def _protocol(task: str) -> str:
    return (load_protocol(task) if "@" in task else default_protocol(task)).name


def _texts(field: str, given: Json, *, least: int = 1) -> list[str]:
    if (
        not isinstance(given, list)
        or len(given) < least
        or not all(isinstance(one, str) and one for one in given)
        or len(set(given)) != len(given)
    ):
        raise OptionError(f"`{field}` must be a list of distinct texts; got {given!r}.")
    return given


def _check_fields(what: str, data: Json, known: Sequence[str], *, required: Sequence[str]) -> None:
    if not isinstance(data, dict):
        raise OptionError(f"{what} must be a mapping of {', '.join(known)}; got {data!r}.")
    missing = [name for name in required if name not in data]
    unknown = [str(name) for name in data if name not in known]
    if missing or unknown:
        got = f"no {missing[0]!r}" if missing else f"{unknown[0]!r}"
        hint = "" if missing else did_you_mean(unknown[0], known)
        raise OptionError(f"{what} must have the fields {', '.join(known)}; got {got}. {hint}")
