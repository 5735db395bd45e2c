"""Find the sets a probe reads: in the cache, at a remote, or as views of other sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featcache.derived.recipe import Recipe
from featcache.derived.view import DerivedSet, fit_recipe
from featcache.digest import Json
from featcache.errors import FeatcacheError, OptionError, ProtocolError, StoreError
from featcache.spec import ExtractionSpec, without_dataset
from featcache.store.cache import Cache, Stored
from featcache.store.feature_set import FeatureSet
from featcache.verbs.extract import DIGESTS, FILE_SCHEMES
from featcache.verbs.selection import WHOLE, Role, choose_splits, recipe_of, select
from featcache.verbs.share import Offer, Sources

if TYPE_CHECKING:
    from featcache.probes.protocol import Protocol

HELD_OUT = 0.2
"""Part of a dataset without splits that becomes its test rows, stratified by class."""

Readable = FeatureSet | DerivedSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What was asked of a probe, as far as it decides which sets are read."""

    protocol: Protocol
    backbone: str
    dataset: str
    tap: str | None = None
    key: str | None = None
    train_split: str | None = None
    test_split: str | None = None
    val_split: str | None = None
    ood_datasets: tuple[str, ...] = ()
    recipe: Recipe = field(default_factory=Recipe)
    concat: tuple[str, ...] = ()
    """Backbones whose features are put beside those of `backbone`."""
    seed: int = 0
    """Draws the held-out part of a dataset without splits."""
    head: str | None = None
    """Key (prefix) or kind of the stored classifier to start from."""

    @property
    def is_derived(self) -> bool:
        """Whether features are seen other than as they were extracted."""
        return bool(self.recipe.steps or self.concat)

    def plain(self) -> Wanted:
        """Return the same without recipe and other backbones."""
        return replace(self, recipe=Recipe(), concat=())


class Finder:
    """Finds the sets of one probe."""

    def __init__(self, wanted: Wanted, cache: Cache, sources: Sources) -> None:
        """Look in `cache`, then at the remotes of `sources`."""
        self._wanted, self._cache, self._sources = wanted, cache, sources
        self._fingerprints: dict[Role, str | None] = {}
        self.extracted: dict[str, Readable] | None = None
        """After `find`: the sets that views were made of, if it came to that."""

    def find(self) -> dict[str, Readable]:
        """Return the set for each role: 'train', 'test' and 'ood:<dataset>'.

        Raises:
            StoreError: If a set is missing; the message gives the `extract` command.
            ProtocolError: If the sets there are not what the protocol requires.
            OptionError: If several fit, or if the recipe cannot be had.
        """
        wanted = self._wanted
        if not wanted.is_derived:
            return dict(self._extracted(wanted.backbone, wanted.key))
        try:
            return self._materialised(remote=False) or self._views(remote=False)
        except (StoreError, ProtocolError):
            return self._materialised() or self._views()

    def _extracted(
        self, backbone: str, key: str | None, *, remote: bool = True
    ) -> dict[str, FeatureSet]:
        """Return sets as the network gave them."""
        return self._sets(backbone, self._wanted.tap, key, None, remote=remote)

    def _sets(
        self, backbone: str, tap: str | None, key: str | None, recipe: str | None, *, remote: bool
    ) -> dict[str, FeatureSet]:
        """Return the set for each role, with `remote` also those that the cache lacks."""

        def choose(offers: Sequence[Offer] = ()) -> dict[str, FeatureSet]:
            roles = self._roles(backbone, [one.spec for one in offers])
            fitting = [one for one in offers if any(self._is_for(r, one.spec) for r in roles)]
            fetched = [self._sources.take(one.spec, self._cache) for one in _default_taps(fitting)]
            attached = [one for one in fetched if one is not None]
            return self._select(roles, backbone, tap, key, recipe, attached)

        try:
            return choose()
        except (StoreError, ProtocolError):
            offers = self._offers(backbone, tap, recipe) if remote else []
            if key is not None:
                offers = _alike(offers, key)
            if not offers:
                raise
            return choose(offers)

    def _select(
        self,
        roles: Sequence[Role],
        backbone: str,
        tap: str | None,
        key: str | None,
        recipe: str | None,
        attached: Sequence[Stored],
    ) -> dict[str, FeatureSet]:
        from featcache.probes.protocol import check

        protocol = self._wanted.protocol
        chosen = select(
            self._cache,
            roles,
            backbone=backbone,
            tap=tap,
            key=key,
            check=lambda spec: check(protocol, spec),
            protocol=protocol.name,
            identify=self._fingerprint,
            recipe=recipe,
            attached=attached,
        )
        return {role: one.open() for role, one in chosen.items()}

    def _offers(self, backbone: str, tap: str | None, recipe: str | None) -> list[Offer]:
        """Return what the remotes have that the protocol can read."""
        from featcache.datasets.catalog import dataset_name
        from featcache.probes.protocol import check

        wanted = self._wanted
        names = [dataset_name(source) for source in (wanted.dataset, *wanted.ood_datasets)]
        offers = [one for name in names for one in self._sources.offer(name, backbone)]
        return [
            one
            for one in offers
            if tap in (None, one.spec.tap)
            and recipe_of(one.spec) == recipe
            and not check(wanted.protocol, one.spec)
        ]

    def _materialised(self, *, remote: bool = True) -> dict[str, Readable] | None:
        """Return stored sets of the recipe, learnt from the train split; None if there are none."""
        wanted = self._wanted
        if wanted.key is not None:  # it names an extracted set; a stored view may be of another
            return None
        name = "+".join((wanted.backbone, *wanted.concat))
        tap = None if wanted.concat else wanted.tap
        try:
            sets = self._sets(name, tap, None, str(wanted.recipe), remote=remote)
            roles = self._roles(name, ())
        except (StoreError, ProtocolError, OptionError):
            return None
        learnt = next((role for role in roles if role.name in {"train", "fit"}), None)
        for one in sets.values():
            source = (one.spec.derived or {}).get("learnt_from")
            if source is None:
                continue
            if learnt is None or learnt.split == WHOLE or source["part"] is not None:
                return None
            if (source["dataset"], source["split"]) != (learnt.dataset, learnt.split):
                return None
        return {role: one for role, one in sets.items() if role != "fit"}

    def _views(self, *, remote: bool = True) -> dict[str, Readable]:
        """Return views of extracted sets, learnt from the training rows alone."""
        wanted = self._wanted
        parts = [self._extracted(wanted.backbone, wanted.key, remote=remote)]
        parts += [self._extracted(other, None, remote=remote) for other in wanted.concat]
        self.extracted = {role: one for role, one in parts[0].items() if role != "fit"}
        sets = {role: [part[role] for part in parts] for role in parts[0]}
        learn = sets.get("train") or sets.get("fit") or sets["test"]
        rows, part = None, None
        if "train" in sets and sets["train"][0].key == sets["test"][0].key:
            valid = np.all([one.valid for one in learn], axis=0)
            rest, _ = carve(learn[0].labels[valid], wanted.seed)
            rows = np.flatnonzero(valid)[rest]
            part = {"held_out": HELD_OUT, "seed": wanted.seed}
        fitted = fit_recipe(wanted.recipe, learn, rows=rows, part=part)
        return {role: DerivedSet(one, fitted) for role, one in sets.items() if role != "fit"}

    def _roles(self, backbone: str, offered: Sequence[ExtractionSpec]) -> list[Role]:
        from featcache.datasets.catalog import dataset_name

        wanted, needs_train = self._wanted, self._wanted.protocol.needs_train
        _check_roles(wanted)

        def splits(name: str) -> set[str]:
            found = {spec.dataset.split for spec in offered if spec.dataset.name == name}
            return found | self._cache.splits(name, backbone)

        name = dataset_name(wanted.dataset)
        train, test = choose_splits(splits(name), needs_train=needs_train)
        train = wanted.train_split or train or "train"
        test = wanted.test_split or test
        roles = [Role(name="test", dataset=name, source=wanted.dataset, split=test)]
        if wanted.val_split:
            if wanted.val_split in (test, train):
                raise OptionError(
                    f"`--val-split` must be a split of its own; got {wanted.val_split!r}, with "
                    f"{train!r} for train and {test!r} for test. Name the test rows with "
                    "--test-split, or leave --val-split out."
                )
            val = Role(name="val", dataset=name, source=wanted.dataset, split=wanted.val_split)
            roles.append(val)
        if needs_train or wanted.recipe.is_fitted:
            kind = "train" if needs_train else "fit"
            roles.insert(0, Role(name=kind, dataset=name, source=wanted.dataset, split=train))
        for source in wanted.ood_datasets:
            other = dataset_name(source)
            if other == name:
                raise OptionError(f"The OOD dataset must be another than {name!r}; got the same.")
            _, split = choose_splits(splits(other), needs_train=False)
            roles.append(Role(name=f"ood:{other}", dataset=other, source=source, split=split))
        return roles

    def _is_for(self, role: Role, spec: ExtractionSpec) -> bool:
        """Tell whether a set that a remote offers is one for a role."""
        one = spec.dataset
        if (one.name, one.split) != (role.dataset, role.split):
            return False
        return self._fingerprint(role) in (None, one.fingerprint)

    def _fingerprint(self, role: Role) -> str | None:
        """Return the fingerprint of a role's folder or table as it is now.

        Unchanged files cost a `stat` each. Another source, or one whose images are gone, gives
        None.
        """
        if role not in self._fingerprints:
            self._fingerprints[role] = read_fingerprint(self._cache, role)
        return self._fingerprints[role]


def carve(labels: NDArray[np.int64], seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Cut the rows of a dataset without splits into train and test, stratified by class."""
    from featcache.probes.splits import stratified_split

    return stratified_split(labels, HELD_OUT, np.random.default_rng(seed))


def identity(one: Readable) -> Mapping[str, Json]:
    """Return what names a set among the inputs of a result.

    A stored view is named like the view, so that storing it changes no result.
    """
    data = one.spec.dataset
    return {
        "key": one.key,
        "digest": one.provenance.get("view", one.digest) if one.spec.derived else one.digest,
        "dataset": data.name,
        "split": data.split,
        "rows": data.rows,
        "fingerprint": data.fingerprint,
    }


def _check_roles(wanted: Wanted) -> None:
    from featcache.probes.tasks import TASKS

    protocol = wanted.protocol
    needs_ood = TASKS[protocol.task].needs_ood or protocol.options.get("background") == "other"
    if needs_ood and not wanted.ood_datasets:
        raise OptionError(
            f"Task {protocol.task!r} needs a dataset to tell apart; got none. Add --ood-dataset D."
        )
    if wanted.ood_datasets and not needs_ood:
        raise OptionError(f"Task {protocol.task!r} takes no --ood-dataset; leave it out.")
    if wanted.val_split and not TASKS[protocol.task].takes_validation:
        raise OptionError(f"Task {protocol.task!r} takes no --val-split; leave it out.")
    if wanted.train_split and not (protocol.needs_train or wanted.recipe.is_fitted):
        raise OptionError(f"Protocol {protocol.name} takes no --train-split; leave it out.")


def _default_taps(offers: Sequence[Offer]) -> Sequence[Offer]:
    """Return the offers at their backbone's default tap; all if none is."""
    return [one for one in offers if one.is_default_tap] or offers


def _alike(offers: Sequence[Offer], key: str) -> list[Offer]:
    """Return the offers that were made like the one with this key."""
    made = [without_dataset(one.spec) for one in offers if one.spec.key.startswith(key)]
    return [one for one in offers if without_dataset(one.spec) in made]


def read_fingerprint(cache: Cache, role: Role) -> str | None:
    """Return the fingerprint that a role's folder or table has now.

    None for another source, or for one whose images are gone.
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
