"""`featcache cache gc`: remove what nobody needs."""

from __future__ import annotations

import math
import re
import time
from typing import TYPE_CHECKING, Annotated

import typer

from featcache.cli.console import (
    CacheOption,
    DebugOption,
    JsonOption,
    handled,
    note,
    print_json,
    print_table,
    size_text,
)
from featcache.errors import OptionError

if TYPE_CHECKING:
    from featcache.store.gc import Leftover

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgt]?)(i?)b?", re.IGNORECASE)
_DAY_S = 86400.0


@handled
def gc(
    older_than: Annotated[
        float | None, typer.Option(help="Also sets not used for so many days (default: keep).")
    ] = None,
    max_size: Annotated[
        str | None, typer.Option(help="Also sets, longest unused first, down to a size: 50GB.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove; without it, only show.")] = False,
    cache: CacheOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show what can go: leftovers of dead processes, and on request old sets; never results.

    Example: featcache cache gc --older-than 90 --yes
    """
    from featcache.store.cache import Cache
    from featcache.store.gc import collect, plan, used_bytes

    store = Cache(cache)
    max_bytes = None if max_size is None else _bytes(max_size)
    found = plan(store, older_than_s=_seconds(older_than), max_bytes=max_bytes, now=time.time())
    removed = collect(found) if yes else []
    shown = removed if yes else found
    left = used_bytes(store) - (0 if yes else sum(one.bytes for one in found))
    if as_json:
        print_json({"removed": yes, "bytes_left": left, "items": [_json(one) for one in shown]})
        return
    freed = size_text(sum(one.bytes for one in shown))
    if shown:
        rows = [[one.kind, size_text(one.bytes), one.why, str(one.path)] for one in shown]
        print_table("Removed" if yes else "Can go", ["kind", "size", "why", "path"], rows)
    done = f"{freed} {'freed' if yes else 'would be freed'}"
    typer.echo(f"{len(shown)} things, {done}, {size_text(left)} stay besides results.")
    if found and not yes:
        note("Nothing was removed. Remove them with: --yes")
    if max_bytes is not None and left > max_bytes:
        note(f"More than {max_size} stays: it is in use, or unsealed (see --older-than).")


def _json(one: Leftover) -> dict[str, object]:
    return {"path": str(one.path), "kind": one.kind, "bytes": one.bytes, "why": one.why}


def _seconds(days: float | None) -> float | None:
    if days is not None and not (math.isfinite(days) and days >= 0):
        raise OptionError(
            f"`--older-than` must be a number of days of at least 0; got {days}. "
            "Give for example --older-than 90."
        )
    return None if days is None else days * _DAY_S


def _bytes(text: str) -> int:
    """Read a size such as 50GB (decimal) or 50GiB (binary)."""
    named = _SIZE.fullmatch(text.strip())
    if named is None:
        raise OptionError(
            f"`--max-size` must be a number with B, kB, MB, GB or TB; got {text!r}. "
            "Give for example --max-size 50GB."
        )
    number, unit, binary = named.groups()
    step = 1024.0 if binary else 1000.0
    return round(float(number) * math.pow(step, " kmgt".index(unit.lower() or " ")))
