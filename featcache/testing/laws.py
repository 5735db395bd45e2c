"""What a law is, and how several are checked at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from featcache.errors import FeatcacheError

T = TypeVar("T")

Law = Callable[[T], None]
"""Raises a `ContractError` if its subject breaks it; its docstring says what must hold."""


class ContractError(FeatcacheError, AssertionError):
    """A backbone or a dataset is not what the rest of featcache relies on."""


def must(holds: object, what: str) -> None:
    """Raise a `ContractError` that says `what`, unless it holds."""
    if not holds:
        raise ContractError(what)


def named(*laws: Law[T]) -> dict[str, Law[T]]:
    """Return laws by name."""
    return {law.__name__: law for law in laws}


def check(subject: T, laws: Mapping[str, Law[T]]) -> None:
    """Check every law, and tell of all that are broken at once.

    Raises:
        ContractError: With a line for each.
    """
    broken = []
    for name, law in laws.items():
        try:
            law(subject)
        except Exception as error:  # whatever a stranger's code raises breaks the law as well
            said = str(error) or "no message"
            kind = "" if isinstance(error, ContractError) else f"{type(error).__name__}: "
            broken.append(f"{name}: {kind}{said}")
    if broken:
        lines = "\n".join(f"  - {one}" for one in broken)
        raise ContractError(f"{len(broken)} of {len(laws)} laws are broken:\n{lines}")
