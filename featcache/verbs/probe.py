"""Score a task from cached features: choose the sets, run the protocol, keep the answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from featcache.digest import Json
from featcache.errors import FeatcacheError, OptionError, ProtocolError, StoreError
from featcache.result_store import Question, Result, ResultStore
from featcache.spec import ExtractionSpec
from featcache.store.cache import Cache, Stored
from featcache.store.feature_set import FeatureSet
from featcache.verbs.extract import DIGESTS, FILE_SCHEMES
from featcache.verbs.selection import WHOLE, Role, choose_splits, select
from featcache.verbs.share import Sources

if TYPE_CHECKING:
    from featcache.probes.protocol import Protocol
    from featcache.probes.tasks import TaskInputs

HELD_OUT = 0.2
"""Part of a dataset without splits that becomes its test rows, stratified by class."""


def probe(
    *,
    backbone: str,
    dataset: str,
    task: str | None = None,
    protocol: str | None = None,
    tap: str | None = None,
    key: str | None = None,
    train_split: str | None = None,
    test_split: str | None = None,
    ood_datasets: Sequence[str] = (),
    seed: int = 0,
    device: str = "auto",
    cache: Path | str | None = None,
    remotes: Sequence[str] | None = (),
    note: Callable[[str], None] = lambda _: None,
) -> tuple[Result, bool]:
    """Score one task from cached features; no image is opened.

    A dataset cached as one split `all` is cut into 80 % train and 20 % test, stratified by class
    and seeded; the result says so.

    Args:
        backbone: Name under which features are cached.
        dataset: Dataset the task is about.
        task: 'linear', 'knn', 'retrieval' or 'ood'; from the protocol if that is given.
        protocol: Name with version; the task's default if None.
        tap: Tap to read, if several are cached.
        key: Key (prefix) of a feature set, if several recipes are cached.
        train_split: Split to fit on; chosen among the cached ones if None.
        test_split: Split to score; chosen among the cached ones if None.
        ood_datasets: Datasets to tell from `dataset`; only for 'ood'.
        seed: Seed of everything random in the probe.
        device: 'auto', 'cpu' or 'cuda'.
        cache: Root of the cache.
        remotes: Where to fetch what the cache lacks; None: those of the configuration.
        note: Told in a line what was fetched.

    Returns:
        The result, and whether it was stored already.

    Raises:
        StoreError: If a feature set is missing; the message gives the `extract` command.
        ProtocolError: If the cached features are not what the protocol requires.
    """
    from featcache.datasets.catalog import dataset_name
    from featcache.probes.catalog import default_protocol, load_protocol
    from featcache.probes.protocol import check

    if protocol is None and task is None:
        raise OptionError("A probe needs a task or a protocol; got neither. Add --task linear.")
    chosen = load_protocol(protocol) if protocol is not None else default_protocol(str(task))
    if task is not None and chosen.task != task:
        raise OptionError(
            f"Protocol {chosen.name} is for task {chosen.task!r}; got --task {task}. Leave one out."
        )
    store = Cache(cache)
    sources = Sources(remotes, note=note)

    def choose(offered: Sequence[ExtractionSpec] = ()) -> dict[str, Stored]:
        asked = (train_split, test_split, ood_datasets)
        roles = _roles(store, offered, chosen, backbone, dataset, *asked)
        for spec in offered:
            if any(_is_for(role, spec, store) for role in roles):
                sources.fetch(spec, store)
        return select(
            store,
            roles,
            backbone=backbone,
            tap=tap,
            key=key,
            check=lambda spec: check(chosen, spec),
            protocol=chosen.name,
            identify=lambda role: _fingerprint(store, role),
        )

    try:
        sets = choose()
    except (StoreError, ProtocolError):
        names = [dataset_name(source) for source in (dataset, *ood_datasets)]
        offers = [spec for name in names for spec in sources.offer(name, backbone)]
        fitting = [spec for spec in offers if tap in (None, spec.tap) and not check(chosen, spec)]
        if not fitting:
            raise
        sets = choose(fitting)
    question = _question(chosen, backbone, sets, seed)
    kept = ResultStore(store.root)
    if stored := kept.find(question):
        return stored, True
    return _answer(kept, question, chosen, sets, seed, device), False


def _is_for(role: Role, spec: ExtractionSpec, cache: Cache) -> bool:
    """Tell whether a set that a remote offers is one for a role."""
    one = spec.dataset
    if (one.name, one.split) != (role.dataset, role.split):
        return False
    return _fingerprint(cache, role) in (None, one.fingerprint)


def _roles(
    cache: Cache,
    offered: Sequence[ExtractionSpec],
    protocol: Protocol,
    backbone: str,
    dataset: str,
    train_split: str | None,
    test_split: str | None,
    ood_datasets: Sequence[str],
) -> list[Role]:
    from featcache.datasets.catalog import dataset_name
    from featcache.probes.tasks import TASKS

    needs = TASKS[protocol.task]
    if needs.needs_ood and not ood_datasets:
        raise OptionError(
            f"Task {protocol.task!r} needs a dataset to tell apart; got none. Add --ood-dataset D."
        )
    if ood_datasets and not needs.needs_ood:
        raise OptionError(f"Task {protocol.task!r} takes no --ood-dataset; leave it out.")

    def splits(name: str) -> set[str]:
        found = {spec.dataset.split for spec in offered if spec.dataset.name == name}
        return found | cache.splits(name, backbone)

    if train_split and not protocol.needs_train:
        raise OptionError(f"Protocol {protocol.name} takes no --train-split; leave it out.")
    name = dataset_name(dataset)
    train, test = choose_splits(splits(name), needs_train=protocol.needs_train)
    train = train_split or train
    test = test_split or test
    roles = [Role(name="test", dataset=name, source=dataset, split=test)]
    if protocol.needs_train and train is not None:
        roles.insert(0, Role(name="train", dataset=name, source=dataset, split=train))
    for source in ood_datasets:
        other = dataset_name(source)
        if other == name:
            raise OptionError(f"The OOD dataset must be another than {name!r}; got the same.")
        _, split = choose_splits(splits(other), needs_train=False)
        roles.append(Role(name=f"ood:{other}", dataset=other, source=source, split=split))
    return roles


def _fingerprint(cache: Cache, role: Role) -> str | None:
    """Return the fingerprint of a role's folder or table as it is now.

    Unchanged files cost a `stat` each. Another source, or one whose images are gone, gives None.
    """
    from featcache.datasets.catalog import open_dataset
    from featcache.datasets.memo import FileDigestMemo

    if role.source.partition(":")[0] not in FILE_SCHEMES:
        return None
    try:
        with FileDigestMemo(cache.root / DIGESTS) as memo:
            return open_dataset(role.source).load(role.split).identity(memo).fingerprint
    except FeatcacheError:
        return None


def _question(protocol: Protocol, backbone: str, sets: Mapping[str, Stored], seed: int) -> Question:
    inputs: dict[str, Json] = {}
    for role, one in sets.items():
        entry = {
            "key": one.spec.key,
            "digest": (one.sealed or {})["digest"],
            "dataset": one.spec.dataset.name,
            "split": one.spec.dataset.split,
            "rows": one.spec.dataset.rows,
            "fingerprint": one.spec.dataset.fingerprint,
        }
        kind, _, name = role.partition(":")
        if name:
            inputs.setdefault(kind, {})[name] = entry
        else:
            inputs[kind] = entry
    test = sets["test"].spec
    carved = "train" in sets and sets["train"].spec.key == test.key
    return Question(
        task=protocol.task,
        protocol=protocol.name,
        backbone=backbone,
        dataset=test.dataset.name,
        tap=test.tap,
        inputs={**inputs, **({"held_out": HELD_OUT} if carved else {})},
        options=dict(protocol.options),
        seed=seed,
    )


def _answer(
    store: ResultStore,
    question: Question,
    protocol: Protocol,
    sets: Mapping[str, Stored],
    seed: int,
    device: str,
) -> Result:
    from featcache.extraction.embedding import resolve_device
    from featcache.extraction.provenance import environment
    from featcache.probes.run import run_task

    on = resolve_device(device)
    began = time.perf_counter()
    inputs = _inputs(sets, seed, on)
    loaded = time.perf_counter()
    outcome = run_task(protocol, inputs)
    ended = time.perf_counter()
    how = {
        "created": datetime.now(UTC).isoformat(timespec="microseconds"),
        "seconds": round(ended - began, 4),
        "read_seconds": round(loaded - began, 4),
        "extraction_seconds": {
            one.spec.key: (one.provenance or {}).get("extraction_seconds", 0.0)
            for one in sets.values()
        },
        "environment": environment(on),
    }
    return store.save(question, outcome, how)


def _inputs(sets: Mapping[str, Stored], seed: int, device: str) -> TaskInputs:
    import numpy as np

    from featcache.probes.splits import stratified_split
    from featcache.probes.tasks import TaskInputs

    tables = {role: FeatureSet(one.path).table() for role, one in sets.items()}
    train, test = tables.get("train"), tables["test"]
    if train is not None and sets["train"].path == sets["test"].path:
        if sets["train"].spec.dataset.split != WHOLE:
            raise OptionError(
                "Train and test rows must differ; both are split "
                f"{sets['test'].spec.dataset.split!r}. Choose another --train-split."
            )
        rest, held_out = stratified_split(test.labels, HELD_OUT, np.random.default_rng(seed))
        train, test = test.take(rest), test.take(held_out)
    ood = {role.partition(":")[2]: one for role, one in tables.items() if role.startswith("ood:")}
    return TaskInputs(train=train, test=test, ood=ood, seed=seed, device=device)
