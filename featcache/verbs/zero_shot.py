"""The text head that a dataset has by itself: found among the stored ones, or made."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING

from featcache.store.cache import Cache
from featcache.verbs.extract import BackboneRequest
from featcache.verbs.heads import PROMPT_LIST, keep_text_head

if TYPE_CHECKING:
    from featcache.datasets.prompts import Prompts
    from featcache.head_store import HeadEntry, StoredHead
    from featcache.spec import ExtractionSpec
    from featcache.verbs.inputs import Readable


def has_text_tower(backbone: str) -> bool:
    """Tell whether class names can be embedded beside the features of a backbone, here."""
    from featcache.backbones.factory import backbone_request

    is_there = importlib.util.find_spec("open_clip") is not None
    return is_there and backbone_request(backbone).is_open_clip


def own_prompts(test: Readable) -> Prompts:
    """Return the prompts that the dataset of a set has by itself."""
    from featcache.datasets.prompts import prompts_for

    return prompts_for(test.spec.dataset.name, test.class_names)


def meant(entries: Sequence[HeadEntry], prompts: Prompts) -> list[HeadEntry]:
    """Return which of some text heads a task can mean that is not told.

    That of the dataset's own prompts; else all of a user's prompts that know the classes. One of
    another dataset's own prompts is never meant, so that no answer depends on what was asked
    before.
    """
    knowing = [one for one in entries if set(prompts.class_names) <= one.known]
    own = [one for one in knowing if _is_of(prompts, one)]
    return own[:1] or [one for one in knowing if PROMPT_LIST not in one.origin]


def can_be_made(spec: ExtractionSpec) -> bool:
    """Tell whether the name of a backbone alone says what its text tower is.

    Weights from a file need the file, and only one tap lies in the texts' space.
    """
    from featcache.backbones.text import IMAGE_TAP

    return spec.tap == IMAGE_TAP and "renamer" not in spec.backbone.options


def make(prompts: Prompts, spec: ExtractionSpec, cache: Cache, device: str) -> StoredHead:
    """Embed a dataset's own prompts for features of a spec, and keep the head.

    Raises:
        FeatcacheError: As `embed_texts`.
    """
    return keep_text_head(
        cache,
        BackboneRequest(name=spec.backbone.name),
        prompts,
        is_own=True,
        images=spec.backbone,
        device=device,
    )


def _is_of(prompts: Prompts, head: HeadEntry) -> bool:
    said = {**prompts.origin(), PROMPT_LIST: prompts.list_name}
    told = ("templates", "prompt_names", PROMPT_LIST)
    return head.class_names == prompts.class_names and all(
        head.origin.get(name) == said.get(name) for name in told
    )
