"""Choose the feature sets a probe reads: never a guess, never a mix of two setups.

A setup is a spec without its dataset: backbone weights, transform, tap, views, numerics. All sets
of one probe must share it.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from featcache.digest import sha256_json
from featcache.errors import OptionError, ProtocolError, StoreError
from featcache.spec import ExtractionSpec, explain, without_dataset
from featcache.store.cache import Cache, Stored, slug

WHOLE = "all"
"""Split of a dataset that has only one; a probe that needs two carves them out of it."""

QUERY, GALLERY = "query", "gallery"
"""Splits of a dataset for retrieval: what asks, and what is searched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """One feature set a probe needs."""

    name: str
    """'train', 'test' or 'ood:<dataset>'."""
    dataset: str
    source: str
    """What the user called the dataset, for the command that would extract it."""
    split: str


def recipe_of(spec: ExtractionSpec) -> str | None:
    """Return the recipe of a derived set; None for one that a network gave."""
    return None if spec.derived is None else str(spec.derived["recipe"])


def choose_splits(available: set[str], *, needs_train: bool) -> tuple[str | None, str]:
    """Choose (train, test) among the cached splits of a dataset.

    Test is the first of test, query, val, all, train that is cached. Train is 'train', 'gallery'
    beside queries, or 'all' if that is the only split (a part of it is then carved out); None if
    the probe needs none. Nothing cached gives the usual names.
    """
    order = ("test", QUERY, "val", WHOLE, "train")
    test = next((name for name in order if name in available), min(available, default="test"))
    if not needs_train:
        return None, test
    if test == WHOLE:
        return WHOLE, WHOLE
    if test == QUERY:
        return GALLERY, QUERY
    return "train", ("test" if test == "train" else test)


def select(
    cache: Cache,
    roles: Sequence[Role],
    *,
    backbone: str,
    tap: str | None,
    key: str | None,
    check: Callable[[ExtractionSpec], list[str]],
    protocol: str,
    identify: Callable[[Role], str | None],
    recipe: str | None = None,
    attached: Sequence[Stored] = (),
) -> dict[str, Stored]:
    """Return the sealed set for each role, all made alike.

    Args:
        cache: Where to look.
        roles: What is needed.
        backbone: Name of the backbone.
        tap: Tap to use; None: the one a protocol requires, else the backbone's default.
        key: Key (prefix) of one of the sets, to choose among setups.
        check: Gives the protocol's objections to a spec, empty if it fits.
        protocol: Its name, for messages.
        identify: Gives the fingerprint that a role's source has now; None if it cannot be read,
            so that features outlive their images.
        recipe: Recipe of the derived sets to look for; None: sets as the network gave them.
        attached: Sets at a remote that can be read like those in the cache.

    Raises:
        StoreError: If a role has no sealed set; the message gives the `extract` command.
        ProtocolError: If there are sets, and none is what the protocol requires.
        OptionError: If several setups fit.
    """
    found = {role.name: _candidates(cache, role, backbone, tap, attached) for role in roles}
    for name, sets in found.items():
        found[name] = [one for one in sets if recipe_of(one.spec) == recipe]
    for role in roles:
        if key is not None and any(one.spec.key.startswith(key) for one in found[role.name]):
            found[role.name] = [one for one in found[role.name] if one.spec.key.startswith(key)]
        elif (fingerprint := identify(role)) is not None:
            found[role.name] = [
                one for one in found[role.name] if one.spec.dataset.fingerprint == fingerprint
            ]
        if not found[role.name]:
            raise StoreError(_missing(cache, role, roles, backbone, tap, protocol))
    setups = _shared_setups(found)
    if key is not None:
        setups = {
            name: sets
            for name, sets in setups.items()
            if any(one.spec.key.startswith(key) for one in sets.values())
        }
    fitting = {name: sets for name, sets in setups.items() if not _objections(sets, check)}
    if not fitting:
        raise _refusal(cache, setups, roles, backbone, check, protocol, key)
    if len(fitting) > 1 and tap is None:
        fitting = _with_default_tap(fitting) or fitting
    if len(fitting) > 1:
        raise OptionError(_ambiguous(list(fitting.values())))
    return next(iter(fitting.values()))


def _candidates(
    cache: Cache, role: Role, backbone: str, tap: str | None, attached: Sequence[Stored]
) -> list[Stored]:
    asked = (role.dataset, role.split, backbone)
    found = cache.find(dataset=role.dataset, split=role.split, backbone=backbone, tap=tap)
    keys = {one.spec.key for one in found}
    for one in attached:
        named = (one.spec.dataset.name, one.spec.dataset.split, one.spec.backbone.name)
        if named == asked and tap in (None, one.spec.tap) and one.spec.key not in keys:
            found.append(one)
    return found


def _shared_setups(found: Mapping[str, list[Stored]]) -> dict[str, dict[str, Stored]]:
    """Group by setup, and keep those that every role has.

    Raises:
        OptionError: If several versions of a dataset are cached and nothing tells which is meant.
    """
    grouped: dict[str, dict[str, Stored]] = {}
    for role, sets in found.items():
        for one in sets:
            other = grouped.setdefault(sha256_json(without_dataset(one.spec)), {}).setdefault(
                role, one
            )
            if other is not one:
                name = f"{one.spec.dataset.name}/{one.spec.dataset.split}"
                raise OptionError(
                    f"One version of {name} must be meant; several are cached under that name, "
                    f"with keys {other.spec.key[:12]} and {one.spec.key[:12]}. Give the dataset as "
                    "it was given to extract (imagefolder:DIR), or choose with --key."
                )
    return {name: sets for name, sets in grouped.items() if sets.keys() == found.keys()}


def _objections(
    sets: Mapping[str, Stored], check: Callable[[ExtractionSpec], list[str]]
) -> list[str]:
    return check(next(iter(sets.values())).spec)


def _with_default_tap(fitting: dict[str, dict[str, Stored]]) -> dict[str, dict[str, Stored]]:
    return {
        name: sets
        for name, sets in fitting.items()
        if all(one.spec.tap == (one.provenance or {}).get("default_tap") for one in sets.values())
    }


def extract_command(
    backbone: str,
    roles: Sequence[Role],
    *,
    tap: str | None = None,
    protocol: str | None = None,
    all_splits: bool = False,
) -> str:
    """Return the command line(s) that extract what `roles` need."""
    sources: dict[str, list[str]] = {}
    for role in roles:
        splits = sources.setdefault(role.source, [])
        if role.split not in splits:
            splits.append(role.split)
    lines = []
    for source, splits in sources.items():
        words = ["featcache", "extract", "--backbone", backbone, "--dataset", source]
        if not all_splits:
            words += [word for split in splits for word in ("--split", split)]
        words += ["--tap", tap] if tap else []
        words += ["--protocol", protocol] if protocol and not tap else []
        lines.append(shlex.join(words))
    return "\n  ".join(lines)


def _missing(
    cache: Cache,
    role: Role,
    roles: Sequence[Role],
    backbone: str,
    tap: str | None,
    protocol: str,
) -> str:
    splits = cache.splits(role.dataset, backbone)
    others = sorted(
        {one.spec.backbone.name for one in cache.stored(f"{slug(role.dataset)}/*/*") if one.sealed}
    )
    got = "it has none"
    if splits:
        got = f"it has splits {', '.join(sorted(splits))}"
    elif others:
        got = f"it has those of {', '.join(others)}"
    with_tap = f" at tap {tap!r}" if tap else ""
    return (
        f"The cache {cache.root} must hold a sealed feature set of {role.dataset}/{role.split} by "
        f"{backbone!r}{with_tap}; {got}. Extract it with:\n  "
        + extract_command(
            backbone,
            _openable(cache, roles),
            tap=tap,
            protocol=protocol,
            all_splits=not splits,
        )
    )


def _openable(cache: Cache, roles: Sequence[Role]) -> list[Role]:
    """Return roles whose source is what was extracted under that name, where the cache knows.

    `digits-300` names a set in the cache, but only `digits?rows=300` can be extracted.
    """
    found = []
    for role in roles:
        known = (
            (one.provenance or {}).get("dataset_source")
            for one in cache.stored(f"{slug(role.dataset)}/*/*")
            if one.sealed and one.spec.dataset.name == role.dataset
        )
        source = next((one for one in known if one), role.source)
        found.append(replace(role, source=str(source)) if role.source == role.dataset else role)
    return found


def _refusal(
    cache: Cache,
    setups: Mapping[str, Mapping[str, Stored]],
    roles: Sequence[Role],
    backbone: str,
    check: Callable[[ExtractionSpec], list[str]],
    protocol: str,
    key: str | None,
) -> ProtocolError:
    command = extract_command(backbone, _openable(cache, roles), protocol=protocol)
    if not setups:
        chosen = f" and a key that starts with {key!r}" if key else ""
        return ProtocolError(
            f"All feature sets of a probe must share weights, transform, tap and precision{chosen};"
            f" those in {cache.root} do not. Extract them alike with:\n  {command}"
        )
    reasons = sorted({text for sets in setups.values() for text in _objections(sets, check)})
    return ProtocolError(
        f"Protocol {protocol} does not fit the cached features of {backbone!r}: "
        f"{' '.join(reasons)} Extract what it requires with:\n  {command}"
    )


def _ambiguous(candidates: list[dict[str, Stored]]) -> str:
    specs = [next(iter(sets.values())).spec for sets in candidates]
    fields = explain(without_dataset(specs[0]), without_dataset(specs[1]))
    differ = "; ".join(f"{name}: {a!r} or {b!r}" for name, a, b in fields)
    keys = ", ".join(spec.key[:12] for spec in specs)
    return (
        f"One setup must fit; {len(specs)} cached ones do, which differ in {differ}. "
        f"Choose with --tap, or with --key and one of {keys}."
    )
