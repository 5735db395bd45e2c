"""Run every protocol that the cached features allow: how much a score depends on the protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featcache.errors import FeatcacheError, OptionError
from featcache.result_store import Result
from featcache.verbs.probe import probe


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One protocol: its result, or why there is none."""

    protocol: str
    task: str
    result: Result | None = None
    was_stored: bool = False
    reason: str = ""


def probe_all(
    *,
    backbone: str,
    dataset: str,
    task: str | None = None,
    ood_datasets: Sequence[str] = (),
    cache: Path | str | None = None,
    note: Callable[[str], None] = lambda _: None,
    **others: Any,  # noqa: ANN401  what `probe` takes
) -> list[Tried]:
    """Score a dataset by every registered protocol, or by all of one task.

    Protocols that need OOD datasets are run if some are given. One that the features do not fit is
    told with its reason; the others go on.

    Args:
        backbone: Name under which features are cached.
        dataset: Dataset the task is about.
        task: Only protocols of this task; None: of all.
        ood_datasets: Datasets to tell from `dataset`, for those protocols that need some.
        cache: Root of the cache.
        note: Told in a line what is run.
        others: Further arguments of `probe`.

    Returns:
        One entry per protocol, by name.

    Raises:
        OptionError: If there is no such task.
    """
    from featcache.probes.catalog import PROTOCOLS, load_protocol
    from featcache.probes.options import check_choice
    from featcache.probes.tasks import TASKS

    if task is not None:
        check_choice("task", task, list(TASKS))
    tried = []
    for name in PROTOCOLS.names("*"):
        protocol = load_protocol(name)
        facts = TASKS[protocol.task]
        if task not in (None, protocol.task):
            continue
        needs_ood = facts.needs_ood or protocol.options.get("background") == "other"
        note(name)
        given = dict(others)
        if not (facts.takes_head or facts.needs_head):
            given.pop("head", None)
        if not facts.takes_validation:
            given.pop("val_split", None)
        try:
            if needs_ood and not ood_datasets:
                raise OptionError("It needs --ood-dataset.")
            result, was_stored = probe(
                backbone=backbone,
                dataset=dataset,
                protocol=name,
                ood_datasets=ood_datasets if needs_ood else (),
                cache=cache,
                **given,
            )
            tried.append(
                Tried(protocol=name, task=protocol.task, result=result, was_stored=was_stored)
            )
        except FeatcacheError as error:
            reason = str(error).splitlines()[0]
            tried.append(Tried(protocol=name, task=protocol.task, reason=reason))
    return tried
