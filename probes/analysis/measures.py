"""Many measures of one thing, where some may be undefined: values, and reasons for gaps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from featcache.digest import Json
from featcache.errors import ShapeError

Measure = Callable[[], float | tuple[float, Json]]
"""Gives a value, or a value and a note on how it came about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Values by name; what could not be had, with the reason."""

    values: Mapping[str, float]
    skipped: Mapping[str, str]
    notes: Mapping[str, Json] = field(default_factory=dict)
    """What a measure chose on the way: shrinkage, fitted range, convergence."""

    def to_json(self) -> dict[str, Json]:
        """Return the fields as plain JSON."""
        return {
            "values": dict(self.values),
            "skipped": dict(self.skipped),
            "notes": dict(self.notes),
        }


def measure(measures: Mapping[str, Measure]) -> Measured:
    """Take each measure; one that is undefined on these rows is skipped with its reason.

    Only a `ShapeError`, or a value that is not finite, means undefined; others are raised.
    """
    values: dict[str, float] = {}
    skipped: dict[str, str] = {}
    notes: dict[str, Json] = {}
    for name, take in measures.items():
        try:
            found = take()
        except ShapeError as error:
            skipped[name] = str(error)
            continue
        value, note = found if isinstance(found, tuple) else (found, None)
        if not np.isfinite(value):
            skipped[name] = f"It has no finite value on these rows; got {value}."
            continue
        values[name] = float(value)
        if note is not None:
            notes[name] = note
    return Measured(values=values, skipped=skipped, notes=notes)
