"""The captions of a test set as features: found in the cache, or embedded."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from featcache.errors import OptionError
from featcache.store.cache import Cache, slug
from featcache.verbs.extract import BackboneRequest
from featcache.verbs.texts import embed_texts, is_partner

if TYPE_CHECKING:
    from featcache.spec import ExtractionSpec
    from featcache.store.feature_set import FeatureSet
    from featcache.verbs.inputs import Readable, Wanted


def needs_texts(wanted: Wanted) -> bool:
    """Tell whether a task compares images with their captions."""
    from featcache.probes.tasks import TASKS

    return TASKS[wanted.protocol.task].needs_texts


def at_the_texts_tap(wanted: Wanted, cache: Cache) -> Wanted:
    """Return what is wanted with the one tap that texts can be compared with, if it needs texts.

    Raises:
        OptionError: If another tap is asked for, or a view of the features, or if the dataset has
            no captions.
    """
    from featcache.backbones.text import IMAGE_TAP
    from featcache.datasets.captions import SUFFIX, refuse_without_captions

    if not needs_texts(wanted):
        return wanted
    if not any(cache.paths(f"{slug(wanted.dataset + SUFFIX)}/*/*")):  # else a part by its name
        refuse_without_captions(wanted.dataset)
    task = wanted.protocol.task
    if wanted.is_derived:
        raise OptionError(
            f"Task {task!r} compares features as the network gave them; got a recipe or several "
            "backbones. Leave --derive and --concat out."
        )
    if wanted.tap not in (None, IMAGE_TAP):
        raise OptionError(
            f"Task {task!r} reads the tap {IMAGE_TAP!r}, which lies in the space of texts; got "
            f"--tap {wanted.tap}. Leave it out."
        )
    return wanted if wanted.key is not None else replace(wanted, tap=IMAGE_TAP)


def choose_texts(wanted: Wanted, test: Readable, cache: Cache, *, device: str) -> FeatureSet:
    """Return the captions of a test set as features of the text tower of its backbone.

    A cached set that has captions of every test image is taken; otherwise they are read from the
    dataset's files and embedded.

    Raises:
        OptionError: If the dataset has no captions, or the features are no tower's beside texts.
        DatasetError: If the captions are not in the cache, and their file is missing.
        FeatcacheError: As `embed_texts`.
    """
    from featcache.backbones.text import IMAGE_TAP
    from featcache.datasets.captions import captions

    spec = test.spec
    if spec.tap != IMAGE_TAP:
        raise OptionError(
            f"Texts are compared with the tap {IMAGE_TAP!r}; set {test.key[:12]} has tap "
            f"{spec.tap!r}. Choose another set."
        )
    images = {str(name) for name in test.ids[test.valid]}
    if (found := _cached(spec, images, cache)) is not None:
        return found
    if "renamer" in spec.backbone.options:
        raise OptionError(
            f"Captions need the text tower beside the features; the weights of "
            f"{spec.backbone.name!r} came from a file. Embed them once in Python: "
            "featcache.verbs.texts.embed_texts with checkpoint=FILE."
        )
    texts = captions(wanted.dataset, spec.dataset.split, images=images)
    request = BackboneRequest(name=spec.backbone.name)
    return embed_texts(request, texts, images=spec.backbone, cache=cache.root, device=device)


def _cached(spec: ExtractionSpec, images: set[str], cache: Cache) -> FeatureSet | None:
    """Return the one cached set with captions of all these images, if there is one."""
    from featcache.backbones.text import TAP
    from featcache.datasets.captions import SUFFIX, parse_caption_id

    data = spec.dataset
    sets = cache.find(
        dataset=f"{data.name}{SUFFIX}", split=data.split, backbone=spec.backbone.name, tap=TAP
    )
    fitting = []
    for one in sets:
        if is_partner(one.spec.backbone, spec.backbone):
            features = one.open()
            parsed = (parse_caption_id(str(name)) for name in features.ids)
            if images <= {pair[0] for pair in parsed if pair}:
                fitting.append(features)
    return fitting[0] if len(fitting) == 1 else None
