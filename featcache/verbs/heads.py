"""Make classifiers and keep them: the network's own, a text tower's, one that a probe fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from featcache.errors import OptionError, StoreError
from featcache.head_store import HeadStore, StoredHead
from featcache.store.cache import Cache, slug
from featcache.store.files import disk_errors
from featcache.verbs.extract import BackboneRequest

if TYPE_CHECKING:
    from featcache.datasets.prompts import Prompts
    from featcache.result_store import FittedHead, Question
    from featcache.spec import BackboneIdentity, ExtractionSpec

PROMPT_LIST = "prompt_list"
"""What a text head's origin says if its prompts are those that its dataset has by itself."""


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
    templates: str | Sequence[str] | None = None,
    device: str = "auto",
    cache: Path | str | None = None,
) -> StoredHead:
    """Run class names through the text tower of a model, and keep them as a head.

    The vectors of the prompts are kept, too, as a feature set of the dataset `prompts`.

    Args:
        backbone: An open_clip name, or a request with a checkpoint.
        dataset: Dataset whose class names are read from a cached set.
        classes: Instead of a dataset, a file with a class per line; what follows a tab stands in
            the prompts instead of the name.
        templates: Prompts with `{}` for the class, or the name of a list; None: those published
            for the dataset, 'photo' (one plain prompt) where there are none.
        device: 'auto', 'cpu' or 'cuda'.
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
    from featcache.backbones.text import refuse_without_text
    from featcache.datasets.catalog import dataset_name
    from featcache.datasets.prompts import prompts_for

    if (dataset is None) == (classes is None):
        got = "neither" if dataset is None else "both"
        raise OptionError(
            f"Classes come from a cached dataset or from a file; got {got}. Add --dataset D, or "
            "--classes FILE."
        )
    one = BackboneRequest(name=backbone) if isinstance(backbone, str) else backbone
    refuse_without_text(backbone_request(one.name, checkpoint=one.checkpoint, renamer=one.renamer))
    store = Cache(cache)
    if dataset is not None:
        own = prompts_for(dataset_name(dataset), class_names(store, dataset, one.name))
        prompts = own if templates is None else _with_templates(own, templates)
    else:
        prompts = _of_file(Path(str(classes)), templates)
    is_own = dataset is not None and templates is None
    return keep_text_head(store, one, prompts, is_own=is_own, device=device)


def keep_text_head(
    cache: Cache,
    backbone: BackboneRequest,
    prompts: Prompts,
    *,
    is_own: bool,
    images: BackboneIdentity | None = None,
    device: str = "auto",
) -> StoredHead:
    """Embed prompts unless they are cached, and keep the classifier that they are.

    Args:
        cache: Where both are kept.
        backbone: An open_clip model.
        prompts: Of all classes.
        is_own: Whether these are the prompts that their dataset has by itself.
        images: The image tower that the head is for, see `embed_texts`.
        device: 'auto', 'cpu' or 'cuda'.

    Raises:
        FeatcacheError: As `embed_texts`.
    """
    from featcache.backbones.text_head import text_head as build
    from featcache.verbs.texts import embed_texts

    texts = embed_texts(backbone, prompts.texts(), images=images, cache=cache.root, device=device)
    listed = {PROMPT_LIST: prompts.list_name} if is_own else {}
    return HeadStore(cache.root).save(build(texts, prompts.origin() | listed))


def chosen_templates(given: Sequence[str], named: str | None) -> str | Sequence[str] | None:
    """Return templates given one by one, those of a file, or the name of a list; None for none.

    Raises:
        OptionError: If they are given in two ways, or if the file holds none.
    """
    if named is None:
        return tuple(given) or None
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
    absent = {"absent": list(fitted.absent)} if fitted.absent else {}
    head = StoredHead(
        kind="probe",
        weights=fitted.weights,
        bias=fitted.bias,
        class_names=fitted.class_names,
        backbone=spec.backbone,
        tap=spec.tap,
        is_unit_norm=fitted.is_unit_norm,
        origin={"result": question.id, **question.to_json(), **absent},
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


def _of_file(path: Path, templates: str | Sequence[str] | None) -> Prompts:
    """Return prompts for the classes of a file: a name in each line, or name, tab, prompt name."""
    from featcache.datasets.prompts import FALLBACK, Prompts, templates_of

    pairs = [line.partition("\t") for line in read_lines(path)]
    classes = tuple(name.strip() for name, _, _ in pairs)
    plain = Prompts(
        list_name=FALLBACK,
        class_names=classes,
        names=tuple(text.strip() or name.strip() for name, _, text in pairs),
        templates=templates_of(FALLBACK),
    )
    return plain if templates is None else _with_templates(plain, templates)


def _with_templates(prompts: Prompts, templates: str | Sequence[str]) -> Prompts:
    """Return the same classes in the templates of a list, or in templates that were given."""
    from featcache.datasets.prompts import GIVEN, templates_of

    if isinstance(templates, str):
        return replace(prompts, list_name=templates, templates=templates_of(templates))
    return replace(prompts, list_name=GIVEN, templates=tuple(templates))
