"""Choose the stored head that a probe starts from: never one of other features."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast, get_args

from featcache.errors import OptionError, StoreError
from featcache.head_store import HeadEntry, HeadKind, HeadStore, StoredHead, read_head
from featcache.store.cache import Cache
from featcache.verbs import zero_shot

if TYPE_CHECKING:
    from featcache.spec import BackboneIdentity, ExtractionSpec
    from featcache.verbs.inputs import Readable, Wanted

KINDS: tuple[str, ...] = get_args(HeadKind)


def at_the_heads_tap(wanted: Wanted, cache: Cache) -> Wanted:
    """Return what is wanted with the tap that its head reads, where that leaves no doubt."""
    kind = _kind(wanted)
    if wanted.tap is not None or wanted.key is not None or kind is None:
        return wanted
    if kind == "text" and zero_shot.has_text_tower(wanted.backbone):
        from featcache.backbones.text import IMAGE_TAP

        return replace(wanted, tap=IMAGE_TAP)
    entries = HeadStore(cache.root).entries(backbone=wanted.backbone)
    if kind in KINDS or kind == "any":
        entries = [one for one in entries if kind in (one.kind, "any")]
    else:
        entries = [one for one in entries if one.key.startswith(kind)]
    taps = {one.tap for one in entries}
    return replace(wanted, tap=taps.pop()) if len(taps) == 1 else wanted


def choose_head(
    wanted: Wanted, test: Readable, cache: Cache, *, device: str = "auto"
) -> StoredHead | None:
    """Return the head that was asked for, or the only one a task can mean; None if it needs none.

    Of several that fit, those that know all classes of the test set are preferred. A text head is
    that of the dataset's own prompts, then the only one of a user's prompts; if neither is there,
    the first is made.

    Raises:
        OptionError: If the head reads other features, or another kind is needed, if several fit,
            or if a task takes none.
        StoreError: If there is none; the message gives the command that makes one.
        BackboneError: If class names are needed, and the backbone has no text tower.
        FeatcacheError: As `embed_texts`, if a text head is made.
    """
    from featcache.backbones.factory import backbone_request
    from featcache.backbones.text import refuse_without_text

    if (kind := _kind(wanted)) is None:
        return None
    store = HeadStore(cache.root)
    if kind not in KINDS and kind != "any":
        return _checked(store.find(kind), wanted, test.spec)
    entries = [one for one in store.entries() if kind in (one.kind, "any")]
    entries = list({one.key: one for one in entries}.values())
    fitting = [one for one in entries if _reads(one.backbone, one.tap, test.spec)]
    if kind == "text" and zero_shot.has_text_tower(wanted.backbone):
        prompts = zero_shot.own_prompts(test)
        fitting = zero_shot.meant(fitting, prompts)
        if not fitting and zero_shot.can_be_made(test.spec):
            return zero_shot.make(prompts, test.spec, cache, device)
    if not fitting:
        if kind == "text":
            refuse_without_text(backbone_request(wanted.backbone))
        raise StoreError(_missing(wanted, kind, test.spec, entries))
    if len(fitting) > 1:
        names = set(test.class_names)
        fitting = [one for one in fitting if names <= one.known] or fitting
    if len(fitting) > 1:
        listed = ", ".join(f"{one.key[:12]} ({one.kind})" for one in fitting)
        raise OptionError(
            f"One head must be meant; {len(fitting)} fit the features of {wanted.backbone!r}: "
            f"{listed}. Choose one with --head KEY."
        )
    return read_head(fitting[0].path)


def _kind(wanted: Wanted) -> str | None:
    """Return the kind or key of the head to look for; None for none."""
    from featcache.probes.tasks import TASKS

    facts = TASKS[wanted.protocol.task]
    if wanted.head is not None and not (facts.needs_head or facts.takes_head):
        raise OptionError(f"Task {facts.name!r} takes no --head; leave it out.")
    needed = facts.needs_head
    if wanted.head in KINDS and needed not in ("", "any", wanted.head):
        raise OptionError(
            f"Task {facts.name!r} needs a head of kind {needed!r}; got --head {wanted.head}. "
            "Leave it out."
        )
    kind = wanted.head or needed or None
    if kind is not None and wanted.is_derived:
        raise OptionError(
            "A head reads features as the network gave them; got a recipe or several backbones. "
            "Leave --derive and --concat out."
        )
    return kind


def _checked(head: StoredHead, wanted: Wanted, spec: ExtractionSpec) -> StoredHead:
    from featcache.probes.tasks import TASKS

    if not _reads(head.backbone, head.tap, spec):
        one, other = spec.backbone, head.backbone
        raise OptionError(
            f"A head must read the features at hand, tap {spec.tap!r} of {one.name!r} "
            f"({one.architecture}, weights {one.weights[:12]!r}); head {head.key[:12]} reads tap "
            f"{head.tap!r} of {other.name!r} ({other.architecture}, weights "
            f"{other.weights[:12]!r}). Choose another: featcache ls heads"
        )
    needed = TASKS[wanted.protocol.task].needs_head
    if needed not in ("", "any", head.kind):
        raise OptionError(
            f"Task {wanted.protocol.task!r} needs a head of kind {needed!r}; {head.key[:12]} is "
            f"one of kind {head.kind!r}. Choose another: featcache ls heads"
        )
    return head


def _reads(backbone: BackboneIdentity, tap: str, spec: ExtractionSpec) -> bool:
    """Tell whether a head of `backbone` at `tap` reads features of `spec`.

    Weights and architecture must be equal: with QuickGELU the same weights compute other features,
    and the architecture's name says so. Where there are no weights, the name must be equal too.
    """
    one = spec.backbone
    mine, theirs = (backbone.weights, backbone.architecture), (one.weights, one.architecture)
    is_same = tap == spec.tap and mine == theirs
    return is_same and (bool(one.weights) or backbone.name == one.name)


def _missing(wanted: Wanted, kind: str, spec: ExtractionSpec, entries: Sequence[HeadEntry]) -> str:
    others = sorted({(one.backbone.name, one.tap) for one in entries})
    got = "there is none"
    if others:
        got = "there are those of " + ", ".join(f"{name!r} at {tap!r}" for name, tap in others[:5])
    what = "head" if kind == "any" else f"head of kind {kind!r}"
    return (
        f"There must be a {what} for tap {spec.tap!r} of {spec.backbone.name!r} (weights "
        f"{spec.backbone.weights[:12]!r}); {got}. Make one with:\n  "
        f"{head_command(cast('HeadKind', 'native' if kind == 'any' else kind), wanted)}"
        f"{' --checkpoint FILE' if 'renamer' in spec.backbone.options else ''}"
    )


def head_command(kind: HeadKind, wanted: Wanted) -> str:
    """Return the command line that makes a head of this kind."""
    backbone = ["--backbone", wanted.backbone]
    words = {
        "native": ["featcache", "head", "native", *backbone],
        "text": ["featcache", "head", "text", *backbone, "--dataset", wanted.dataset],
        "probe": ["featcache", "probe", "--task", "linear", *backbone, "--dataset", wanted.dataset],
    }
    return shlex.join(words[kind])
