"""`featcache cache`: what the cache holds, whether it is sound, how two sets differ."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featcache.cli.console import (
    EXIT_FAILED,
    CacheOption,
    DebugOption,
    JsonOption,
    handled,
    print_json,
    print_table,
)
from featcache.cli.repair import (
    CheckpointOption,
    DatasetOption,
    DeviceOption,
    RenamerOption,
    compare,
)
from featcache.errors import FeatcacheError, UnsealedError

if TYPE_CHECKING:
    from featcache.store.cache import Cache
app = typer.Typer(help="Look into the cache, check and mend it, share it.", no_args_is_help=True)


@app.command("info")
@handled
def info(
    key: Annotated[str | None, typer.Argument(help="Key prefix or path of one set.")] = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show the cache as a whole, or all that is known of one feature set.

    Example: featcache cache info 3f9a1c
    """
    from featcache.store.cache import Cache

    store = Cache(cache)
    facts = _summary(store) if key is None else _describe(store.path_by_key(key))
    if as_json:
        print_json(facts)
        return
    for name, value in facts.items():
        typer.echo(f"{name}: {_text(value)}")


def _summary(store: Cache) -> dict[str, Any]:
    from featcache.result_store import ResultStore

    sets = list(store.stored())
    sealed = [one for one in sets if one.sealed is not None]
    return {
        "cache": str(store.root),
        "feature_sets": len(sealed),
        "unsealed": len(sets) - len(sealed),
        "rows": sum(one.spec.dataset.rows for one in sealed),
        "bytes": sum(one.bytes for one in sealed),
        "results": len(ResultStore(store.root).all()),
    }


def _describe(path: Path) -> dict[str, Any]:
    from featcache.spec import ExtractionSpec
    from featcache.store.feature_set import FeatureSet, read_group

    group = read_group(path)
    spec = ExtractionSpec.from_json(group["spec"])
    facts: dict[str, Any] = {"path": str(path), "key": spec.key, "spec": spec.to_json()}
    if group["sealed"] is None:
        return {**facts, "sealed": None}
    one = FeatureSet(path)
    sealed = {name: value for name, value in one.sealed.items() if name != "files"}
    unreadable = [
        {"row": row, "id": str(one.ids[row]), "reason": why} for row, why in one.reasons.items()
    ]
    return {
        **facts,
        "sealed": {
            **sealed,
            "files": len(one.sealed["files"]),
            "bytes": sum(file["bytes"] for file in one.sealed["files"]),
        },
        "unreadable": unreadable,
        "provenance": dict(one.provenance),
    }


def _text(value: object, indent: str = "  ") -> str:
    if isinstance(value, dict):
        inner = (f"\n{indent}{name}: {_text(item, indent + '  ')}" for name, item in value.items())
        return "".join(inner) or "–"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "".join(f"\n{indent}- {', '.join(map(str, item.values()))}" for item in value)
    return "–" if value in (None, [], {}, "") else str(value)


@app.command("verify")
@handled
def verify(
    keys: Annotated[
        list[str] | None, typer.Argument(help="Key prefixes or paths (default: every set).")
    ] = None,
    recompute: Annotated[
        int | None, typer.Option(min=1, help="Embed this many random rows again and compare.")
    ] = None,
    dataset: DatasetOption = None,
    checkpoint: CheckpointOption = None,
    renamer: RenamerOption = None,
    device: DeviceOption = "auto",
    cache: CacheOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Re-read every byte against its checksum; exit 1 if anything is wrong.

    Example: featcache cache verify --recompute 256
    """
    from featcache.store.cache import Cache
    from featcache.store.verify import verify as check
    from featcache.verbs.check import Means

    store = Cache(cache)
    paths = [store.path_by_key(key) for key in keys] if keys else store.paths()
    checked = {str(path): _problems(check, path) for path in paths}
    unfinished = [path for path, problems in checked.items() if problems is None]
    found = {path: problems for path, problems in checked.items() if problems is not None}
    compared: dict[str, dict[str, Any]] = {}
    means = Means(dataset=dataset, checkpoint=checkpoint, renamer=renamer, device=device)
    for path in _embedded(paths, found) if recompute is not None else ():
        agrees, facts = compare(path, store, recompute or 0, means)
        compared[str(path)] = facts
        if not agrees:
            found[str(path)] = [
                f"row {facts['worst_row']} computed again lies {facts['distance']:.2g} away, "
                f"relative to its length; at most {facts['tolerance']:g} is rounding"
            ]
    if as_json:
        print_json({"problems": found, "unfinished": unfinished, "recomputed": compared})
    for path_text in unfinished if not as_json else ():
        typer.echo(
            f"open     {path_text}\n    not complete: run the same `featcache extract` again"
        )
    for path_text, problems in found.items() if not as_json else ():
        typer.echo(f"{'ok      ' if not problems else 'DAMAGED '} {path_text}")
        for problem in problems:
            typer.echo(f"    {problem}")
        if facts := compared.get(path_text, {}):
            typer.echo(
                f"    {facts['rows']} rows again: distance {facts['distance']:.2g} (at most "
                f"{facts['tolerance']:g}), cosine {facts['cosine']:.6f}"
            )
    if any(found.values()):
        raise typer.Exit(EXIT_FAILED)


def _embedded(paths: list[Path], found: dict[str, list[str]]) -> list[Path]:
    """Return the sound sets that a network gave; derived ones cannot be embedded again."""
    from featcache.store.feature_set import FeatureSet

    sound = [path for path in paths if found.get(str(path)) == []]
    return [path for path in sound if FeatureSet(path).spec.derived is None]


def _problems(check: Callable[[Path], list[Any]], path: Path) -> list[str] | None:
    """Return what is wrong with one set, None if it is not complete; one must not hide others."""
    try:
        return [str(problem) for problem in check(path)]
    except UnsealedError:
        return None
    except FeatcacheError as error:
        return [str(error)]


@app.command("explain")
@handled
def explain(
    first: Annotated[str, typer.Argument(help="Key prefix or path of a set.")],
    second: Annotated[str, typer.Argument(help="Key prefix or path of another.")],
    cache: CacheOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show the fields in which the keys of two feature sets differ.

    Example: featcache cache explain 3f9a1c 77b0e2
    """
    from featcache.spec import explain as differ
    from featcache.store.cache import Cache
    from featcache.store.feature_set import read_group

    store = Cache(cache)
    one, two = (read_group(store.path_by_key(key))["spec"] for key in (first, second))
    rows = differ(one, two)
    if as_json:
        print_json([{"field": name, "first": a, "second": b} for name, a, b in rows])
    elif not rows:
        typer.echo("The two have the same key.")
    else:
        texts = [[name, str(a), str(b)] for name, a, b in rows]
        print_table("Fields that differ", ["field", "first", "second"], texts)
