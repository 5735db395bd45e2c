"""Score a task from cached features: choose the sets, run the protocol, keep the answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

from featcache.derived.recipe import Recipe
from featcache.digest import Json
from featcache.errors import OptionError, ProtocolError, StoreError
from featcache.fit_store import Fit, FitQuestion, FitStore
from featcache.result_store import Question, Result, ResultStore
from featcache.store.cache import Cache
from featcache.verbs.captions import at_the_texts_tap, choose_texts, needs_texts
from featcache.verbs.change import change_against
from featcache.verbs.head_choice import at_the_heads_tap, choose_head
from featcache.verbs.heads import keep_fitted
from featcache.verbs.inputs import HELD_OUT, Finder, Readable, Wanted, carve, identity
from featcache.verbs.selection import WHOLE
from featcache.verbs.share import Sources

if TYPE_CHECKING:
    from featcache.head_store import StoredHead
    from featcache.probes.tasks import TaskInputs
    from featcache.result_store import Outcome
    from featcache.store.feature_set import FeatureSet


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
    val_split: str | None = None,
    ood_datasets: Sequence[str] = (),
    head: str | None = None,
    seed: int = 0,
    device: str = "auto",
    cache: Path | str | None = None,
    derive: str | None = None,
    concat: Sequence[str] = (),
    stream: bool = False,
    remotes: Sequence[str] | None = (),
    note: Callable[[str], None] = lambda _: None,
    is_rehearsal: bool = False,
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
        key: Key (prefix) of a feature set, if several setups are cached.
        train_split: Split to fit on; chosen among the cached ones if None.
        test_split: Split to score; chosen among the cached ones if None.
        val_split: Split on which hyper-parameters are chosen; None: held-out train rows.
        ood_datasets: Datasets to tell from `dataset`; only for 'ood'.
        head: Key (prefix) of a stored classifier to start from, or its kind ('native', 'probe' or
            'text') if there is one of that kind for these features. A task that needs one takes
            the only one there is; one of the dataset's class names is made if it is missing.
        seed: Seed of everything random in the probe.
        device: 'auto', 'cpu' or 'cuda'.
        cache: Root of the cache.
        derive: Recipe that features are seen through, such as 'pca:128|l2', learnt from training
            rows; the result then tells what it changed against the features as stored.
        concat: Backbones whose features are put beside those of `backbone`.
        stream: Read what a remote has chunk by chunk instead of fetching whole sets.
        remotes: Where to fetch what the cache lacks; None: those of the configuration.
        note: Told in a line what was fetched.
        is_rehearsal: Whether another number of train rows than the protocol asks for is fine, as
            where a suite is tried out on a part of each dataset; names of parts say so.

    Returns:
        The result, and whether it was stored already.

    Raises:
        StoreError: If a feature set or a head is missing; the message gives the command for it.
        ProtocolError: If the cached features are not what the protocol requires.
        OptionError: If several sets or heads fit, or if the head reads other features.
    """
    from featcache.probes.catalog import default_protocol, load_protocol

    if protocol is None and task is None:
        raise OptionError("A probe needs a task or a protocol; got neither. Add --task linear.")
    chosen = load_protocol(protocol) if protocol is not None else default_protocol(str(task))
    if task is not None and chosen.task != task:
        raise OptionError(
            f"Protocol {chosen.name} is for task {chosen.task!r}; got --task {task}. Leave one out."
        )
    if is_rehearsal:
        chosen = replace(chosen, requires=replace(chosen.requires, train_rows=0))
    wanted = Wanted(
        protocol=chosen,
        backbone=backbone,
        dataset=dataset,
        tap=tap,
        key=key,
        train_split=train_split,
        test_split=test_split,
        val_split=val_split,
        ood_datasets=tuple(ood_datasets),
        recipe=Recipe.parse(derive or ""),
        concat=tuple(concat),
        seed=seed,
        head=head,
    )
    store = Cache(cache)
    sources = Sources(remotes, note=note, stream=stream)
    return _probe(wanted, store, sources, device)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What was asked, and what was found to answer it with."""

    wanted: Wanted
    sets: Mapping[str, Readable]
    head: StoredHead | None = None
    texts: FeatureSet | None = None
    """Captions of the test images."""


def _probe(wanted: Wanted, cache: Cache, sources: Sources, device: str) -> tuple[Result, bool]:
    wanted = at_the_texts_tap(at_the_heads_tap(wanted, cache), cache)
    finder = Finder(wanted, cache, sources)
    sets = finder.find()
    head = choose_head(wanted, sets["test"], cache, device=device)
    texts = None
    if needs_texts(wanted):
        texts = choose_texts(wanted, sets["test"], cache, device=device)
    asked = _Asked(wanted=wanted, sets=sets, head=head, texts=texts)
    if stored := ResultStore(cache.root).find(_question(asked)):
        return stored, True
    baseline = _baseline(wanted, cache, finder.extracted, device) if wanted.is_derived else None
    return _answer(cache, asked, device, baseline), False


def _baseline(
    wanted: Wanted, cache: Cache, extracted: Mapping[str, Readable] | None, device: str
) -> Result | None:
    """Return the result without recipe, from the sets at hand; nothing is fetched for it."""
    plain = wanted.plain()
    if extracted is None:
        try:
            extracted = Finder(plain, cache, Sources((), note=lambda _: None)).find()
        except (StoreError, ProtocolError):  # views may be all that is here
            return None
    asked = _Asked(wanted=plain, sets=extracted)
    return ResultStore(cache.root).find(_question(asked)) or _answer(cache, asked, device, None)


def _question(asked: _Asked) -> Question:
    wanted, sets, head = asked.wanted, asked.sets, asked.head
    inputs: dict[str, Json] = {}
    for role, one in sets.items():
        kind, _, name = role.partition(":")
        if name:
            inputs.setdefault(kind, {})[name] = identity(one)
        else:
            inputs[kind] = identity(one)
    if _is_carved(sets):
        inputs["held_out"] = HELD_OUT
    if head is not None:
        inputs["head"] = {"key": head.key, "kind": head.kind, "digest": head.digest}
    if asked.texts is not None:
        inputs["texts"] = identity(asked.texts)
    test = sets["test"].spec
    recipe = (test.derived or {}).get("recipe")
    return Question(
        task=wanted.protocol.task,
        protocol=wanted.protocol.name,
        backbone=f"{test.backbone.name}|{recipe}" if recipe else test.backbone.name,
        dataset=test.dataset.name,
        tap=test.tap,
        inputs=inputs,
        options=dict(wanted.protocol.options),
        seed=wanted.seed,
    )


def _is_carved(sets: Mapping[str, Readable]) -> bool:
    return "train" in sets and sets["train"].key == sets["test"].key


def _answer(cache: Cache, asked: _Asked, device: str, baseline: Result | None) -> Result:
    from featcache.extraction.embedding import resolve_device
    from featcache.extraction.provenance import environment
    from featcache.probes.run import run_task

    on, question = resolve_device(device), _question(asked)
    began = time.perf_counter()
    earlier = _earlier(cache, question)
    inputs = replace(_inputs(asked, on), earlier=earlier)
    loaded = time.perf_counter()
    outcome = run_task(asked.wanted.protocol, inputs)
    ended = time.perf_counter()
    if baseline is not None:
        change = change_against(baseline, outcome, asked.wanted.seed)
        outcome = replace(outcome, details={**outcome.details, "change": change})
    if said := _fitted_on_test(asked):
        warned = [*cast("list[Json]", outcome.details.get("warnings", [])), said]
        outcome = replace(outcome, details={**outcome.details, "warnings": warned})
    outcome = _with_head_kept(cache, asked, question, outcome)
    _keep_fit(cache, question, outcome, earlier)
    how = {
        "created": datetime.now(UTC).isoformat(timespec="microseconds"),
        "seconds": round(ended - began, 4),
        "read_seconds": round(loaded - began, 4),
        "extraction_seconds": {
            one.key: one.provenance.get("extraction_seconds", 0.0) for one in asked.sets.values()
        },
        "environment": environment(on),
    }
    return ResultStore(cache.root).save(question, outcome, how)


def _fitted_on_test(asked: _Asked) -> str:
    """Return a warning if the head was fitted on rows of the test set; '' if not."""
    origin = {} if asked.head is None else asked.head.origin
    fitted = cast("dict[str, dict[str, Json]]", origin.get("inputs") or {})
    used = {fitted[role].get("key") for role in ("train", "val") if role in fitted}
    if asked.sets["test"].key not in used:
        return ""
    return "The classifier was fitted on rows of the very set that it is scored on."


def _with_head_kept(cache: Cache, asked: _Asked, question: Question, outcome: Outcome) -> Outcome:
    """Keep the classifier that was fitted, if there is one; one on views of features is not."""
    spec = asked.sets["test"].spec
    if outcome.head is None or spec.derived is not None:
        return outcome
    kept = keep_fitted(cache, outcome.head, question, spec)
    return replace(outcome, details={**outcome.details, "head_key": kept.key})


def _fit_question(question: Question) -> FitQuestion | None:
    """Return what decides that part of an answer which is learnt of train alone, if there is one.

    Test and OOD sets have no part in it, so that one fit serves any number of them.
    """
    from featcache.probes.tasks import TASKS

    decide = TASKS[question.task].fit_options
    if not decide:
        return None
    return FitQuestion(
        task=question.task,
        backbone=question.backbone,
        inputs={
            role: question.inputs[role]
            for role in ("train", "held_out", "head")
            if role in question.inputs
        },
        options={name: question.options[name] for name in decide},
        seed=question.seed,
    )


def _earlier(cache: Cache, question: Question) -> Fit | None:
    asked = _fit_question(question)
    return None if asked is None else FitStore(cache.root).find(asked)


def _keep_fit(cache: Cache, question: Question, outcome: Outcome, earlier: Fit | None) -> None:
    """Keep what was learnt of train, if it is more than what was there."""
    asked, fit = _fit_question(question), outcome.fit
    if asked is None or fit is None or earlier is None:
        return
    if fit.arrays.keys() != earlier.arrays.keys():
        named = {name: outcome.details[name] for name in ("head_key",) if name in outcome.details}
        kept = replace(fit, details={**earlier.details, **fit.details, **named})
        FitStore(cache.root).save(asked, kept)


def _inputs(asked: _Asked, device: str) -> TaskInputs:
    from featcache.probes.tasks import TaskInputs

    sets, seed = asked.sets, asked.wanted.seed
    tables = {role: one.table() for role, one in sets.items()}
    train, test = tables.get("train"), tables["test"]
    if train is not None and _is_carved(sets):
        if sets["train"].spec.dataset.split != WHOLE:
            raise OptionError(
                "Train and test rows must differ; both are split "
                f"{sets['test'].spec.dataset.split!r}. Choose another --train-split."
            )
        rest, held_out = carve(test.labels, seed)
        train, test = test.take(rest), test.take(held_out)
    ood = {role.partition(":")[2]: one for role, one in tables.items() if role.startswith("ood:")}
    return TaskInputs(
        train=train,
        validation=tables.get("val"),
        test=test,
        ood=ood,
        head=asked.head,
        texts=None if asked.texts is None else asked.texts.table(),
        pretraining=pretraining_of(sets["test"].spec.backbone.name),
        seed=seed,
        device=device,
    )


def pretraining_of(backbones: str) -> str:
    """Return the names of the backbones and what the registry tells of their training data."""
    from featcache.backbones.catalog import BACKBONES

    known = [name for name in backbones.split("+") if name in BACKBONES]
    return "; ".join([backbones, *(str(BACKBONES.get(name).facts.get("data")) for name in known)])
