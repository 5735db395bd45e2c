"""What a zero-shot classifier reads for each dataset: published templates and class names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np

from featcache.datasets.imagenet import imagenet_wnids
from featcache.datasets.texts import TextSplit
from featcache.digest import Json
from featcache.errors import MissingDependencyError, OptionError
from featcache.registry import read_yaml

PLACE = "{}"
"""Where the class stands in a template."""
FALLBACK = "photo"
"""List of a dataset for which nothing is published."""
IMAGENET = "imagenet"
GIVEN = "given"
"""Stands for a list in the place of templates that a user gave."""

_PART = re.compile(r"(-part)?(-\d+)?$")
_NUMBER = re.compile(r"^\d+\.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """Classes, what stands for each in a prompt, and the prompts."""

    list_name: str
    class_names: tuple[str, ...]
    names: tuple[str, ...]
    """What stands in the templates, one for each class."""
    templates: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse what gives no prompts.

        Raises:
            OptionError: If a template or a name cannot be used.
        """
        _check(self)

    def texts(self) -> TextSplit:
        """Return all prompts, with ids `class/template` by index, labelled by class."""
        n, each = len(self.names), len(self.templates)
        return TextSplit(
            name="prompts",
            split=self.list_name,
            ids=tuple(f"{row}/{column}" for row in range(n) for column in range(each)),
            texts=tuple(text for name in self.names for text in prompts_of(name, self.templates)),
            labels=np.repeat(np.arange(n, dtype=np.int64), each),
            class_names=self.class_names,
        )

    def origin(self) -> dict[str, Json]:
        """Return what a head made of these prompts says of them."""
        said: dict[str, Json] = {"templates": list(self.templates)}
        return said | ({} if self.names == self.class_names else {"prompt_names": list(self.names)})


def prompts_for(dataset: str, class_names: Sequence[str]) -> Prompts:
    """Return the prompts of a dataset: those published for it, else `a photo of a {}.`.

    Args:
        dataset: Its name in the cache.
        class_names: Its classes, or some of them where the list names them.

    Raises:
        OptionError: If there are no classes, or if two are called alike.
        MissingDependencyError: If they are ImageNet's, and open_clip is not installed.
    """
    classes, listed = tuple(class_names), _list_of(dataset)
    if listed is None and classes and set(classes) <= set(imagenet_wnids()):
        words = dict(zip(imagenet_wnids(), _imagenet()[0], strict=True))
        names = tuple(words[wnid] for wnid in classes)
        return _prompts(IMAGENET, classes, names)
    row = _lists()[listed or FALLBACK]
    given = row.get("names", {})
    if not isinstance(given, Mapping):
        names = tuple(map(str, given))
        if len(names) == len(classes):
            return _prompts(listed or FALLBACK, classes, names)
        given = {}
    has_slashes = row.get("slashes", False)
    return _prompts(
        listed or FALLBACK,
        classes,
        tuple(str(given.get(name, spoken(name, slashes=has_slashes))) for name in classes),
    )


def _prompts(listed: str, classes: tuple[str, ...], names: tuple[str, ...]) -> Prompts:
    return Prompts(
        list_name=listed, class_names=classes, names=names, templates=templates_of(listed)
    )


def templates_of(name: str) -> tuple[str, ...]:
    """Return the templates of a list by its name.

    Raises:
        OptionError: If there is no such list.
        MissingDependencyError: If they are ImageNet's, and open_clip is not installed.
    """
    if name == IMAGENET:
        return _imagenet()[1]
    if name not in _lists():
        raise OptionError(
            "Templates must be a file with one per line, or one of the lists "
            f"{', '.join(list_names())}; got {name!r}. Correct the name."
        )
    found = _lists()[name]["templates"]
    return templates_of(found) if isinstance(found, str) else tuple(found)


def list_names() -> list[str]:
    """Return the names of all lists."""
    return [*_lists(), IMAGENET]


def prompts_of(name: str, templates: Sequence[str]) -> list[str]:
    """Return the prompts of one class; braces in a name stay as they are."""
    return [template.replace(PLACE, name) for template in templates]


def spoken(name: str, *, slashes: bool = False) -> str:
    """Return a class name as one says it: `001.Black_footed_Albatross` without number and `_`.

    A name of nothing else stays as it is.
    """
    text = _NUMBER.sub("", name).replace("_", " ")
    return " ".join((text.replace("/", " ") if slashes else text).split()) or name


@cache
def _lists() -> Mapping[str, Mapping[str, Json]]:
    file = resources.files("featcache.datasets") / "prompts.yaml"
    lists: Mapping[str, Mapping[str, Json]] = read_yaml(file.read_text(encoding="utf-8"))
    return lists


def _list_of(dataset: str) -> str | None:
    """Return the list of a dataset, or of that which it is a part of."""
    owners = {name: key for key, row in _lists().items() for name in row.get("for", ())}
    return owners.get(dataset) or owners.get(_PART.sub("", dataset))


@cache
def _imagenet() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return ImageNet's class names, in the order of their indices, and its templates."""
    try:
        from open_clip import zero_shot_metadata as published
    except ImportError as error:
        raise MissingDependencyError("The prompts of ImageNet", "open-clip") from error
    templates = tuple(one(PLACE) for one in published.OPENAI_IMAGENET_TEMPLATES)
    return tuple(published.IMAGENET_CLASSNAMES), templates


def _check(prompts: Prompts) -> None:
    templates, classes, names = prompts.templates, prompts.class_names, prompts.names
    if not templates or any(one.count(PLACE) != 1 for one in templates):
        bad = next((one for one in templates if one.count(PLACE) != 1), None)
        raise OptionError(
            f"A template must have one {PLACE} for the class name, and there must be at least one "
            f"template; got {bad!r}. Write for instance 'a photo of a {PLACE}.'"
        )
    if not classes or len(names) != len(classes):
        raise OptionError(
            f"A text head needs one name for prompts per class; got {len(names)} for "
            f"{len(classes)} classes. Give as many."
        )
    is_named = all(one.strip() for one in (*classes, *names))
    if len(set(classes)) < len(classes) or not is_named:
        raise OptionError("Class names must differ, and none may be empty. Rename the classes.")
