"""Options as data: from plain JSON to a checked dataclass, and the checks that classes share."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from featcache.digest import Json
from featcache.errors import OptionError, did_you_mean


def parse_options(kind: type[Any], values: Mapping[str, Json], *, prefix: str = "") -> Any:  # noqa: ANN401
    """Build an options dataclass from plain JSON, for instance a protocol's mapping.

    Lists become tuples and integers stand for floats; what is left out keeps its default.

    Args:
        kind: The dataclass, a task's options class.
        values: Option names to values.
        prefix: Written before option names in messages (`head.` for a nested mapping).

    Raises:
        OptionError: If a name is unknown, or a value has the wrong type or is out of range.
    """
    fields = {item.name: item for item in dataclasses.fields(kind)}
    defaults, built = kind(), {}
    for name, value in values.items():
        if name not in fields:
            raise OptionError(
                f"An option must be one of {', '.join(sorted(fields))}; got {prefix + str(name)!r}."
                f" {did_you_mean(str(name), fields)}Correct the name."
            )
        built[name] = _convert(prefix + name, value, getattr(defaults, name))
    return kind(**built)


def _convert(name: str, value: Json, default: object) -> object:
    """Return `value` in the type of `default`."""
    if dataclasses.is_dataclass(default):
        if isinstance(value, Mapping):
            return parse_options(type(default), value, prefix=f"{name}.")
    elif isinstance(default, tuple):
        if isinstance(value, Sequence) and not isinstance(value, str):
            sample = default[0] if default else next(iter(value), None)  # any one kind
            return tuple(_convert(name, item, sample) for item in value)
    elif isinstance(default, float) and not isinstance(value, bool):
        if isinstance(value, int | float):
            return float(value)
    elif type(value) is type(default):
        return value
    wanted = {tuple: "a list", float: "a number", int: "a whole number", bool: "true or false"}
    raise OptionError(
        f"`{name}` must be {wanted.get(type(default), 'a name or a mapping')}; got {value!r}. "
        "In YAML write 1.0e-6, not 1e-6, which is text."
    )


def check_choice(name: str, got: object, allowed: Sequence[str]) -> None:
    """Refuse what is not one of the allowed names.

    Raises:
        OptionError: With all of them, and the one most like it.
    """
    if got not in allowed:
        raise OptionError(
            f"`{name}` must be one of {', '.join(allowed)}; got {got!r}. "
            f"{did_you_mean(str(got), allowed)}Choose one of them."
        )


def check_range(name: str, got: float, low: float, high: float) -> None:
    """Refuse a number that is not strictly between two others.

    Raises:
        OptionError: If it is not so.
    """
    if not low < got < high:
        raise OptionError(
            f"`{name}` must be between {low} and {high}, both excluded; got {got!r}."
            " Choose a value in between."
        )


def check_at_least(name: str, got: float, low: float) -> None:
    """Refuse a number below another.

    Raises:
        OptionError: If it is not so.
    """
    if got < low:
        raise OptionError(f"`{name}` must be at least {low}; got {got!r}. Raise it.")


def check_positive_rising(name: str, got: Sequence[float]) -> None:
    """Refuse what is not a list of increasing positive numbers.

    Raises:
        OptionError: If it is not so.
    """
    rises = all(low < high for low, high in itertools.pairwise(got))
    if not got or not rises or not (got[0] > 0 and math.isfinite(got[-1])):
        raise OptionError(
            f"`{name}` must be positive finite numbers in increasing order, at least one; got "
            f"{list(got)!r}. Sort them, and drop repeats."
        )


def check_ks(name: str, got: Sequence[int]) -> None:
    """Refuse what is not a list of distinct whole numbers from 1.

    Raises:
        OptionError: If it is not so.
    """
    if not got or min(got) < 1 or len(set(got)) != len(got):
        raise OptionError(
            f"`{name}` must be distinct whole numbers from 1; got {list(got)!r}. "
            "Drop what is below 1, and repeats."
        )
