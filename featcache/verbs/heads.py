"""Make classifiers and keep them: the network's own, a text tower's, one that a probe fitted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from featcache.errors import OptionError, StoreError
from featcache.head_store import HeadStore, StoredHead
from featcache.store.cache import Cache, slug
from featcache.store.files import disk_errors
from featcache.verbs.extract import BackboneRequest

if TYPE_CHECKING:
    from featcache.result_store import FittedHead, Question
    from featcache.spec import ExtractionSpec

DEFAULT_TEMPLATES = "photo"


def native_head(backbone: str | BackboneRequest, *, cache: Path | str | None = None) -> StoredHead:
    """Load a network and keep its own classifier, a head on the tap `pooled`.

    Args:
        backbone: A name, or a request with a checkpoint.
        cache: Root of the cache.

    Returns:
        The head as it is stored.

    Raises:
        BackboneError: If its classifier is not one linear layer on that tap.
        FeatcacheError: As `load_backbone`.
    """
    from featcache.backbones.factory import load_backbone
    from featcache.backbones.heads import native_head as read

    one = BackboneRequest(name=backbone) if isinstance(backbone, str) else backbone
    loaded = load_backbone(one.name, checkpoint=one.checkpoint, renamer=one.renamer)
    return HeadStore(Cache(cache).root).save(read(loaded))


def text_head(
    backbone: str | BackboneRequest,
    *,
    dataset: str | None = None,
    classes: Path | str | None = None,
    templates: str | Sequence[str] = DEFAULT_TEMPLATES,
    cache: Path | str | None = None,
) -> StoredHead:
    """Run class names through the text tower of a model, and keep them as a head.

    Args:
        backbone: An open_clip name, or a request with a checkpoint.
        dataset: Dataset whose class names are read from a cached set.
        classes: Instead of a dataset, a file with a class per line; what follows a tab stands in
            the prompts instead of the name.
        templates: Prompts with `{}` for the class, or the name of a built-in list: 'photo' is one
            plain prompt, 'openai7' seven.
        cache: Root of the cache.

    Returns:
        The head as it is stored.

    Raises:
        OptionError: If classes or templates cannot be used.
        StoreError: If the dataset is not cached.
        BackboneError: If the backbone has no text tower.
        FeatcacheError: As `load_backbone`.
    """
    from featcache.backbones.factory import backbone_request
    from featcache.backbones.text import text_head as build

    if (dataset is None) == (classes is None):
        got = "neither" if dataset is None else "both"
        raise OptionError(
            f"Classes come from a cached dataset or from a file; got {got}. Add --dataset D, or "
            "--classes FILE."
        )
    one = BackboneRequest(name=backbone) if isinstance(backbone, str) else backbone
    store = Cache(cache)
    if dataset is not None:
        names = class_names(store, dataset, one.name)
        prompt_names = names
    else:
        names, prompt_names = _read_classes(Path(str(classes)))
    request = backbone_request(one.name, checkpoint=one.checkpoint, renamer=one.renamer)
    chosen = _builtin(templates) if isinstance(templates, str) else tuple(templates)
    head = build(request, names, chosen, prompt_names=prompt_names)
    return HeadStore(store.root).save(head)


def chosen_templates(given: Sequence[str], named: str | None) -> str | Sequence[str]:
    """Return templates given one by one, those of a file, or the name of a built-in list.

    Raises:
        OptionError: If they are given in two ways, or if the file holds none.
    """
    if named is None:
        return tuple(given) or DEFAULT_TEMPLATES
    if given:
        raise OptionError("Templates come one by one or from a list; got both. Leave one out.")
    path = Path(named)
    return read_lines(path) if path.is_file() else named


def keep_fitted(
    cache: Cache, fitted: FittedHead, question: Question, spec: ExtractionSpec
) -> StoredHead:
    """Keep what a probe fitted, under a key that follows from the question it answered.

    Args:
        cache: Where it is kept.
        fitted: The classifier.
        question: What was asked: protocol with options, sets with digests, seed.
        spec: Of the features it reads, as the network gave them.
    """
    head = StoredHead(
        kind="probe",
        weights=fitted.weights,
        bias=fitted.bias,
        class_names=fitted.class_names,
        backbone=spec.backbone,
        tap=spec.tap,
        is_unit_norm=fitted.is_unit_norm,
        origin={"result": question.id, **question.to_json()},
    )
    return HeadStore(cache.root).save(head)


def class_names(cache: Cache, dataset: str, backbone: str) -> tuple[str, ...]:
    """Return the class names of a cached dataset, those of a backbone's own sets if it has any.

    Raises:
        StoreError: If no set of the dataset is cached.
        OptionError: If cached versions differ, or if there are no classes.
    """
    from featcache.datasets.catalog import dataset_name

    name = dataset_name(dataset)
    for folder in (f"{slug(name)}/*/{slug(backbone)}", f"{slug(name)}/*/*"):
        sets = [one for one in cache.stored(folder) if one.sealed and one.spec.dataset.name == name]
        found = {one.open().class_names for one in sets}
        if len(found) == 1 and (names := found.pop()):
            return names
        if sets:
            why = "several versions with other classes" if found else "none in it"
            raise OptionError(
                f"The classes of {name!r} must be known; its cached sets have {why}. Give them "
                "with --classes FILE."
            )
    raise StoreError(
        f"The cache {cache.root} must hold a set of {name!r} to read its classes from; it has "
        f"none. Run: featcache extract --backbone {backbone} --dataset {dataset}"
    )


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file that are not blank.

    Raises:
        OptionError: If it has none, or is not UTF-8.
        StoreError: If it cannot be read.
    """
    with disk_errors(path, "read"):
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise OptionError(f"{path} must be UTF-8 text; {error}. Save it so.") from error
    found = [line.rstrip() for line in lines if line.strip()]
    if not found:
        raise OptionError(f"{path} must have a line of text; it has none. Write one per line.")
    return found


def _read_classes(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return class names, and what stands for each in a prompt."""
    pairs = [line.partition("\t") for line in read_lines(path)]
    names = tuple(name.strip() for name, _, _ in pairs)
    return names, tuple(text.strip() or name.strip() for name, _, text in pairs)


def _builtin(name: str) -> tuple[str, ...]:
    from featcache.backbones.text import TEMPLATES

    if name not in TEMPLATES:
        raise OptionError(
            f"Templates must be a file with one per line, or one of the lists "
            f"{', '.join(TEMPLATES)}; got {name!r}. Correct the name."
        )
    return TEMPLATES[name]
