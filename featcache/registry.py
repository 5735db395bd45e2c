"""One registry for backbones, datasets and protocols: names to lazy `module:attr` entries.

Built-ins register as a plug-in does: an installed distribution names a provider under an
entry-point group, and the provider returns `{name: Entry}`. Nothing is imported until a name
is loaded, so listing thousands of names stays cheap.
"""

from __future__ import annotations

import fnmatch
import importlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Generic, TypeVar, cast

from featcache.digest import Json
from featcache.errors import FeatcacheError, UnknownNameError, did_you_mean

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry:
    """One registered thing: where its factory is, and what is known about it."""

    target: str
    """`package.module:attribute`, imported on first use."""
    facts: Mapping[str, Json] = field(default_factory=dict)


class Registry(Generic[T]):
    """Names of one kind, collected lazily from an entry-point group."""

    def __init__(self, kind: str, group: str, *, list_command: str) -> None:
        """Name the `kind` for messages, the entry-point `group`, and how to list the names."""
        self.kind = kind
        self.group = group
        self._list_command = list_command
        self._entries: dict[str, Entry] = {}
        self._collected = False

    def register(self, name: str, entry: Entry) -> None:
        """Add one entry.

        Raises:
            FeatcacheError: If the name is taken by another target.
        """
        taken = self._entries.get(name)
        if taken is not None and taken != entry:
            raise FeatcacheError(
                f"A {self.kind} name must be unique; {name!r} is taken by {taken.target} and was "
                f"registered again by {entry.target}. Rename one."
            )
        self._entries[name] = entry

    def names(self, pattern: str = "*") -> list[str]:
        """Return the names that match a shell `pattern`, sorted."""
        return sorted(fnmatch.filter(self._all(), pattern))

    def __contains__(self, name: object) -> bool:
        """Tell whether `name` is registered."""
        return name in self._all()

    def get(self, name: str) -> Entry:
        """Return the entry of `name`.

        Raises:
            UnknownNameError: If it is not registered; the message gives the three nearest, those
                that only add a `.tag` to it before all others.
        """
        entries = self._all()
        if name not in entries:
            tagged = [one for one in entries if one.startswith(f"{name}.")]
            hint = did_you_mean(name, tagged or entries, most=3)
            raise UnknownNameError(
                f"{name!r} is not a known {self.kind}. {hint}List them with: {self._list_command}"
            )
        return entries[name]

    def load(self, name: str) -> T:
        """Import and return what the entry of `name` points to."""
        return cast(T, load_target(self.get(name).target))

    def _all(self) -> dict[str, Entry]:
        if not self._collected:
            self._collected = True
            for point in metadata.entry_points(group=self.group):
                self._collect(point)
        return self._entries

    def _collect(self, point: metadata.EntryPoint) -> None:
        try:
            entries = point.load()()
        except Exception as error:
            self._warn(point, "failed to load and is left out", error)
            return
        for name, entry in entries.items():
            try:
                self.register(name, entry)
            except FeatcacheError as error:
                self._warn(point, f"cannot add {name!r}", error)

    def _warn(self, point: metadata.EntryPoint, what: str, error: Exception) -> None:
        plug_in = f"The {self.kind} plug-in {point.name!r} ({point.value})"
        warnings.warn(f"{plug_in} {what}: {error}", stacklevel=2)


def load_target(target: str) -> object:
    """Import `package.module:attribute` and return the attribute.

    Raises:
        UnknownNameError: If the module or the attribute does not exist.
    """
    module_name, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except ModuleNotFoundError as error:
        if error.name is not None and not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module exists, and one of its own imports is missing
        raise UnknownNameError(
            f"`package.module:attribute` must name an importable module; {target!r} does not: "
            f"{error}. Check the spelling, and that the package is installed or on PYTHONPATH."
        ) from error
    except AttributeError as error:
        raise UnknownNameError(
            f"`package.module:attribute` must name an attribute; {target!r} does not: {error}."
        ) from error


def read_yaml(text: str) -> Json:
    """Parse YAML of our own packages, in C where that is there: pure Python is ten times slower."""
    import yaml

    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
