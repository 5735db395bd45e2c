"""What a suite needs, in order, and what it costs: each feature set once, then what reads it."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache as remember
from importlib.resources import files
from pathlib import Path

from featcache.backbones.catalog import BACKBONES
from featcache.datasets.catalog import DATASETS, dataset_name, open_dataset
from featcache.datasets.subset import parse_suffix
from featcache.digest import Json, sha256_json
from featcache.errors import FeatcacheError, OptionError
from featcache.probes.catalog import load_protocol
from featcache.registry import read_yaml
from featcache.result_store import Result, ResultStore
from featcache.store.cache import Cache, slug
from featcache.verbs.suite import Cell, Suite, load_suite

DEFAULT_DIM = 1024
"""Values of a feature where the registry does not say; only the price rests on it."""
_STORED_BYTES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Extraction:
    """All splits of a dataset that a backbone embeds in one go."""

    backbone: str
    dataset: str
    splits: tuple[str, ...] = ()
    """None: all there are."""
    taps: tuple[str, ...] = ()
    """None: the backbone's default, or the protocol's."""
    protocol: str | None = None
    """Whose transform and tap are required, if they differ from the backbone's own."""
    rows: int | None = None
    """Images; None where nobody knows before the files are read."""
    is_done: bool = False

    @property
    def name(self) -> str:
        """`backbone/dataset`, and the protocol if it asks for features of its own."""
        own = f"/{self.protocol}" if self.protocol else ""
        return f"{self.backbone}/{dataset_name(self.dataset)}{own}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One cell, and the extractions and the cell it waits for."""

    cell: Cell
    needs: tuple[Extraction, ...]
    after: Cell | None = None
    """The cell whose classifier it applies."""
    stored: Result | None = None
    """Its result, if that is in the cache already."""

    @property
    def is_done(self) -> bool:
        """Whether there is nothing to do."""
        return self.stored is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What is still to be done."""

    images: int
    bytes: int
    seconds: Mapping[str, float]
    """Kind of device to estimated seconds of extraction on one of it."""
    extractions: int
    runs: int
    unknown: tuple[str, ...]
    """Extractions whose images or cost nobody knows beforehand; they are not in the sums."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The steps of a suite, in order."""

    suite: Suite
    steps: tuple[Step, ...]
    is_rehearsal: bool = False
    """Whether datasets are cut to fewer rows than they have."""

    @property
    def id(self) -> str:
        """Twelve hex digits that stand for the suite's cells."""
        return sha256_json(sorted(step.cell.id for step in self.steps))[:12]

    @property
    def extractions(self) -> list[Extraction]:
        """Every extraction once, in the order in which it is first needed."""
        return list(dict.fromkeys(one for step in self.steps for one in step.needs))

    def price(self) -> Price:
        """Return what is still to be done and what that costs."""
        needed = dict.fromkeys(one for step in self.steps if not step.is_done for one in step.needs)
        missing = [one for one in needed if not one.is_done]
        images, size, seconds = 0, 0, dict.fromkeys(speeds(), 0.0)
        unknown = []
        for one in missing:
            facts = facts_of_backbone(one.backbone)
            gflops = facts.get("gflops")
            if one.rows is None or gflops is None:
                unknown.append(one.name)
            if one.rows is None:
                continue
            images += one.rows
            values = int(facts.get("dim", DEFAULT_DIM)) * max(1, len(one.taps))
            size += one.rows * values * _STORED_BYTES
            for device, speed in speeds().items():
                computed = float(gflops or 0) / speed["gflops_per_second"]
                seconds[device] += one.rows * max(computed, 1 / speed["images_per_second"])
        return Price(
            images=images,
            bytes=size,
            seconds=seconds,
            extractions=len(missing),
            runs=sum(not step.is_done for step in self.steps),
            unknown=tuple(unknown),
        )


@remember
def speeds() -> Mapping[str, Mapping[str, Json]]:
    """Return for each kind of device what it computes and decodes in a second."""
    text = (files("featcache.suites") / "speeds.yaml").read_text(encoding="utf-8")
    found: Mapping[str, Mapping[str, Json]] = read_yaml(text)
    return found


def facts_of_backbone(name: str) -> Mapping[str, Json]:
    """Return what the registry says of a name, also of its untrained twin; {} if nothing."""
    known = name.removeprefix("random:")
    return BACKBONES.get(known).facts if known in BACKBONES else {}


def plan(
    suite: str | Suite,
    *,
    cache: Path | str | None = None,
    only: Sequence[str] = (),
    limit: int | None = None,
    twins: bool = False,
    shuffle_seed: int | None = None,
) -> Plan:
    """Return the steps of a suite, and which of them are done already.

    Args:
        suite: A name (`featcache ls suites`), a YAML file, or a suite.
        cache: Root of the cache.
        only: Shell patterns; cells whose `backbone/dataset/protocol` matches one are kept.
        limit: A rehearsal on this many rows per split; names in the cache say so.
        twins: Take for each backbone an untrained network of its architecture.
        shuffle_seed: Put the backbones in another order, so that several machines begin with
            different ones.

    Raises:
        UnknownNameError: If there is no such suite, or a name in it is not known.
        OptionError: If an option is out of range, or nothing is left to do.
    """
    if limit is not None and limit < 1:
        raise OptionError(f"`limit` must be at least 1 row; got {limit}. Leave it out for all.")
    chosen = load_suite(suite) if isinstance(suite, str) else suite
    cells = [_rehearsed(cell, limit, twins=twins) for cell in chosen.cells]
    kept = [cell for cell in cells if not only or _matches(cell, only)]
    if not kept:
        raise OptionError(
            f"`only` must match a cell of {chosen.name}; {', '.join(only)} matches none of "
            f"{len(cells)}, such as {cells[0].name}. Write backbone/dataset/protocol patterns."
        )
    fitted = [one for cell in kept if (one := _fitted(cell)) is not None]
    every = list({cell.id: cell for cell in [*fitted, *kept]}.values())
    stored = Stored(Cache(cache))
    steps = [_step(cell, every, stored) for cell in _ordered(every, shuffle_seed)]
    return Plan(suite=chosen, steps=tuple(steps), is_rehearsal=limit is not None)


def _matches(cell: Cell, patterns: Iterable[str]) -> bool:
    return any(
        fnmatchcase(cell.name, one) or fnmatchcase(cell.name, f"{one}/*") for one in patterns
    )


def _rehearsed(cell: Cell, limit: int | None, *, twins: bool) -> Cell:
    """Return a cell on fewer rows, and with an untrained network, as asked."""
    if limit is not None:
        head = cell.head and (_limited(cell.head[0], limit), cell.head[1])
        ood = tuple(_limited(one, limit) for one in cell.ood)
        cell = replace(cell, dataset=_limited(cell.dataset, limit), ood=ood, head=head)
    is_twin = twins and cell.backbone != "pixels" and not cell.backbone.startswith("random:")
    return replace(cell, backbone=f"random:{cell.backbone}") if is_twin else cell


def _limited(source: str, limit: int) -> str:
    """Return a source of at most `limit` rows per split; of a recorded one a part will do."""
    base, rows, is_part = parse_suffix(source)
    name = base.partition("@")[0]
    is_recorded = name in DATASETS and "reader" in DATASETS.get(name).facts
    part = "part&" if is_part or is_recorded else ""
    return f"{base}?{part}rows={limit if rows is None else min(limit, rows)}"


def _fitted(cell: Cell) -> Cell | None:
    """Return the cell that fits the classifier which `cell` applies."""
    if cell.head is None:
        return None
    dataset, protocol = cell.head
    return Cell(
        backbone=cell.backbone, dataset=dataset, protocol=protocol, seed=cell.seed, tap=cell.tap
    )


def _ordered(cells: Sequence[Cell], shuffle_seed: int | None) -> list[Cell]:
    """Go through one backbone after the other, so that each set is read while it is fresh."""
    backbones = list(dict.fromkeys(cell.backbone for cell in cells))
    if shuffle_seed is not None:
        random.Random(shuffle_seed).shuffle(backbones)
    place = {name: number for number, name in enumerate(backbones)}
    return sorted(cells, key=lambda cell: (place[cell.backbone], cell.head is not None))


def _step(cell: Cell, every: Sequence[Cell], stored: Stored) -> Step:
    after = _fitted(cell)
    needs = [_extraction(cell, dataset, every, stored) for dataset in cell.datasets]
    return Step(
        cell=cell,
        needs=tuple(needs),
        after=after,
        stored=stored.result(cell),
    )


def _extraction(cell: Cell, dataset: str, every: Sequence[Cell], stored: Stored) -> Extraction:
    """Return the extraction of a dataset that serves every cell of the backbone."""
    requires = load_protocol(cell.protocol).requires
    tap = cell.tap or facts_of_backbone(cell.backbone).get("default_tap", "pooled")
    has_own_tap = bool(requires.taps) and tap not in requires.taps
    own = cell.protocol if requires.transform or requires.numerics or has_own_tap else None
    alike = [one for one in every if one.backbone == cell.backbone and dataset in one.datasets]
    splits: dict[str, None] = {}
    for one in alike:
        if one.dataset != dataset or not one.splits:
            splits = {}
            break
        splits |= dict.fromkeys(one.splits)
    taps = () if own else tuple(dict.fromkeys(one.tap for one in alike if one.tap))
    names = tuple(splits) or _splits(dataset)
    found = Extraction(
        backbone=cell.backbone,
        dataset=dataset,
        splits=tuple(splits),
        taps=taps,
        protocol=own,
        rows=_rows(dataset, names),
    )
    return replace(found, is_done=own is None and stored.has_sets(found, names))


@remember
def _splits(dataset: str) -> tuple[str, ...]:
    """Return the splits of a dataset as far as they are known without its files."""
    name = parse_suffix(dataset)[0].partition("@")[0]
    if name in DATASETS and "splits" in DATASETS.get(name).facts:
        return tuple(DATASETS.get(name).facts["splits"])
    try:
        return open_dataset(dataset).splits
    except FeatcacheError:
        return ()


@remember
def _rows(dataset: str, splits: tuple[str, ...]) -> int | None:
    """Return how many images there are, by what is recorded or by looking; None if neither."""
    base, limit, _ = parse_suffix(dataset)
    name = base.partition("@")[0]
    recorded = DATASETS.get(name).facts.get("rows", {}) if name in DATASETS else {}
    if splits and all(split in recorded for split in splits):
        sizes = [int(recorded[split]) for split in splits]
        return sum(size if limit is None else min(size, limit) for size in sizes)
    try:
        opened = open_dataset(dataset)
        return sum(len(opened.load(split)) for split in splits or opened.splits)
    except FeatcacheError:
        return None


class Stored:
    """What a cache holds already, read once."""

    def __init__(self, cache: Cache) -> None:
        """Index the results; sets are looked up one by one."""
        self._cache = cache
        self._results: dict[tuple[str, ...], list[Result]] = {}
        for one in ResultStore(cache.root).all():
            parts = (one.record[name] for name in ("backbone", "dataset", "protocol"))
            self._results.setdefault(tuple(parts), []).append(one)

    def result(self, cell: Cell) -> Result | None:
        """Return a cell's latest result, if there is one."""
        wanted = {dataset_name(one) for one in cell.ood}
        place = (cell.backbone, dataset_name(cell.dataset), cell.protocol)
        for one in reversed(self._results.get(place, [])):
            record = one.record
            if (
                record["seed"] == cell.seed
                and cell.tap in (None, record["tap"])
                and set(record["inputs"].get("ood", {})) == wanted
            ):
                return one
        return None

    def has_sets(self, one: Extraction, splits: Sequence[str]) -> bool:
        """Tell whether sealed sets of all splits and taps are there."""
        name = dataset_name(one.dataset)
        for split in splits:
            found = [
                entry
                for entry in self._cache.stored(f"{slug(name)}/{slug(split)}/{slug(one.backbone)}")
                if entry.sealed and not entry.spec.derived
            ]
            default = {(entry.provenance or {}).get("default_tap") for entry in found}
            there = {entry.spec.tap for entry in found if entry.spec.backbone.name == one.backbone}
            if not (set(one.taps) <= there if one.taps else there & default):
                return False
        return bool(splits)
