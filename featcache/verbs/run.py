"""Run a suite: extract what is missing, score what is missing, and remember what failed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, cast

from featcache.digest import Json
from featcache.errors import FeatcacheError, StoreError
from featcache.extraction.options import Options
from featcache.extraction.progress import Progress, Silent
from featcache.result_store import Result
from featcache.store.cache import Cache, slug
from featcache.store.files import disk_errors, json_bytes, read_json, write_replacing
from featcache.verbs.extract import BackboneRequest, extract
from featcache.verbs.networks import Networks
from featcache.verbs.plan import Extraction, Plan, Step, plan
from featcache.verbs.probe import probe
from featcache.verbs.suite import Cell, Suite


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What became of a cell."""

    cell: Cell
    status: str
    """`done` now, `stored` before, or `failed`."""
    result: Result | None = None
    reason: str = ""
    seconds: float = 0.0


class Watcher(Protocol):
    """Is told how a run goes on."""

    def begin(self, number: int, total: int, name: str) -> None:
        """Hear of a cell that begins, counted from 1."""

    def end(self, ended: Ended) -> None:
        """Hear what became of it."""


class _Nobody:
    def begin(self, number: int, total: int, name: str) -> None:
        pass

    def end(self, ended: Ended) -> None:
        pass


@dataclass(slots=True)
class _Run:
    """One run of a plan."""

    cache: Cache
    device: str
    options: Options
    progress: Progress
    is_rehearsal: bool
    extracted: dict[Extraction, str] = field(default_factory=dict)
    """Extraction to why it failed; '' if it did not."""
    networks: Networks = field(default_factory=Networks)
    heads: dict[str, str] = field(default_factory=dict)
    """Id of a cell to the key of the classifier that it fitted."""

    def cell(self, step: Step) -> Ended:
        began = time.perf_counter()
        try:
            result, was_stored = (step.stored, True) if step.stored else self._score(step)
        except FeatcacheError as error:
            return self._failed(step.cell, str(error), began)
        except Exception as error:  # of a user's own network, or a library; the rest goes on
            return self._failed(step.cell, f"{type(error).__name__}: {error}", began)
        if key := cast("str", result.record["details"].get("head_key", "")):
            self.heads[step.cell.id] = key
        status = "stored" if was_stored else "done"
        seconds = time.perf_counter() - began
        return Ended(cell=step.cell, status=status, result=result, seconds=seconds)

    def _failed(self, cell: Cell, reason: str, began: float) -> Ended:
        seconds = time.perf_counter() - began
        return Ended(cell=cell, status="failed", reason=reason, seconds=seconds)

    def _score(self, step: Step) -> tuple[Result, bool]:
        for one in step.needs:
            self._extract(one)
        cell = step.cell
        head = None
        if step.after is not None:
            head = self.heads.get(step.after.id)
            if head is None:
                raise StoreError(
                    f"The classifier of {step.after.name} must be there; that cell gave none. "
                    "See why it failed, then run the suite again."
                )
        return probe(
            backbone=cell.backbone,
            dataset=cell.dataset,
            protocol=cell.protocol,
            tap=cell.tap,
            train_split=cell.train_split,
            test_split=cell.test_split,
            val_split=cell.val_split,
            ood_datasets=cell.ood,
            head=head,
            seed=cell.seed,
            device=self.device,
            cache=self.cache.root,
            is_rehearsal=self.is_rehearsal,
        )

    def _extract(self, one: Extraction) -> None:
        """Embed once a run; what is sealed is taken as it is, what failed is not tried again.

        Raises:
            StoreError: With the reason, if it failed before.
        """
        if one.is_done:
            return
        if one not in self.extracted:
            try:
                extract(
                    backbone=BackboneRequest(name=one.backbone, protocol=one.protocol),
                    dataset=one.dataset,
                    splits=one.splits,
                    taps=one.taps,
                    cache=self.cache.root,
                    options=self.options,
                    progress=self.progress,
                    networks=self.networks,
                )
            except Exception as error:
                self.extracted[one] = str(error) or type(error).__name__
                raise
            self.extracted[one] = ""
        if why := self.extracted[one]:
            raise StoreError(f"Features of {one.name} could not be extracted: {why}")


class Ledger:
    """What became of each cell: `<cache>/runs/<suite>-<id>/<cell id>.json`, one file a cell.

    Several processes may run one suite; each writes the cells that it ran.
    """

    def __init__(self, root: Path, planned: Plan) -> None:
        """Use the folder of a plan; nothing is created yet."""
        self.folder = root / "runs" / f"{slug(planned.suite.name)}-{planned.id}"

    def write(self, ended: Ended) -> None:
        """Remember what became of a cell.

        Raises:
            StoreError: If it cannot be written.
        """
        record: dict[str, Json] = {
            "cell": ended.cell.name,
            "status": "failed" if ended.status == "failed" else "done",
            "reason": ended.reason,
            "result": ended.result.id if ended.result else None,
            "seconds": round(ended.seconds, 3),
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        with disk_errors(self.folder, "keep what became of a cell in"):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_replacing(self.folder / f"{ended.cell.id}.json", json_bytes(record))

    def failures(self) -> dict[str, str]:
        """Return the cells that failed last time, with the reason."""
        records = [read_json(path) for path in sorted(self.folder.glob("*.json"))]
        return {one["cell"]: one["reason"] for one in records if one["status"] == "failed"}


def run(
    suite: str | Suite | Plan,
    *,
    cache: Path | str | None = None,
    only: Sequence[str] = (),
    limit: int | None = None,
    twins: bool = False,
    shuffle_seed: int | None = None,
    device: str = "auto",
    options: Options | None = None,
    progress: Progress | None = None,
    watcher: Watcher | None = None,
) -> list[Ended]:
    """Run every cell of a suite; what is in the cache is not computed again.

    A cell that fails is kept in the ledger with its reason, and the rest goes on. Stop it whenever
    you like: the same call goes on where it was.

    Args:
        suite: A name, a YAML file, a suite, or what `plan` returned; then the options up to
            `shuffle_seed` are those of the plan.
        cache: Root of the cache.
        only: Shell patterns of `backbone/dataset/protocol`.
        limit: A rehearsal on this many rows per split.
        twins: Take untrained networks of the same architectures.
        shuffle_seed: Another order of the backbones.
        device: 'auto', 'cpu' or 'cuda'.
        options: How to extract; `device` goes before its own.
        progress: Receives the events of extractions.
        watcher: Is told of cells.

    Returns:
        What became of each cell, in order.

    Raises:
        UnknownNameError: If a name is not known.
        OptionError: If the suite or an option is not as it must be.
        StoreError: If the ledger cannot be written.
    """
    planned = suite
    if not isinstance(planned, Plan):
        planned = plan(
            planned, cache=cache, only=only, limit=limit, twins=twins, shuffle_seed=shuffle_seed
        )
    store = Cache(cache)
    ledger = Ledger(store.root, planned)
    one = _Run(
        cache=store,
        device=device,
        options=replace(options or Options(), device=device),
        progress=progress or Silent(),
        is_rehearsal=planned.is_rehearsal,
    )
    watcher, ended = watcher or _Nobody(), []
    for number, step in enumerate(planned.steps, start=1):
        watcher.begin(number, len(planned.steps), step.cell.name)
        ended.append(one.cell(step))
        ledger.write(ended[-1])
        watcher.end(ended[-1])
    return ended
