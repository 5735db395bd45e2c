"""`featcache ls`: names of what there is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from featcache.cli.console import (
    CacheOption,
    DebugOption,
    JsonOption,
    handled,
    print_json,
    print_table,
    size_text,
)
from featcache.errors import OptionError

Listing = tuple[list[str], list[dict[str, Any]]]


@handled
def ls(
    what: Annotated[
        str,
        typer.Argument(help="backbones, datasets, tasks, protocols, features, heads or results."),
    ],
    pattern: Annotated[str, typer.Argument(help="Shell pattern of the names.")] = "*",
    cache: CacheOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List backbones, datasets, tasks, protocols, cached features, heads or results.

    Example: featcache ls backbones 'dino*'
    """
    if what not in _LISTINGS:
        raise OptionError(f"`ls` takes one of {', '.join(_LISTINGS)}; got {what!r}.")
    columns, rows = _LISTINGS[what](pattern, cache)
    if as_json:
        print_json(rows)
    else:
        shown = [[_cell(name, row.get(name)) for name in columns] for row in rows]
        print_table(f"{len(rows)} {what}", columns, shown)


def _cell(name: str, value: object) -> str:
    if isinstance(value, int) and name == "bytes":
        return size_text(value)
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


def _backbones(pattern: str, _cache: object) -> Listing:
    from featcache.backbones.catalog import BACKBONES

    rows = [{"name": n, **BACKBONES.get(n).facts} for n in BACKBONES.names(pattern)]
    columns = ["name", "architecture", "objective", "data", "params_m", "resolution", "licence"]
    return columns, rows


def _datasets(pattern: str, _cache: object) -> Listing:
    from featcache.datasets.catalog import DATASETS

    rows = [{"name": n, **DATASETS.get(n).facts} for n in DATASETS.names(pattern)]
    return ["name", "description", "classes", "licence"], rows


def _tasks(pattern: str, _cache: object) -> Listing:
    from fnmatch import fnmatch

    from featcache.probes.tasks import TASKS

    rows = [
        {"name": one.name, "primary": one.primary, "description": one.description}
        for one in TASKS.values()
        if fnmatch(one.name, pattern)
    ]
    return ["name", "primary", "description"], rows


def _protocols(pattern: str, _cache: object) -> Listing:
    from featcache.probes.catalog import PROTOCOLS

    rows = [{**PROTOCOLS.get(n).facts, "name": n} for n in PROTOCOLS.names(pattern)]
    return ["name", "task", "note", "citation"], rows


def _features(pattern: str, cache: Any) -> Listing:  # noqa: ANN401
    from fnmatch import fnmatch

    from featcache.store.cache import Cache

    rows = []
    for one in Cache(cache).stored():
        spec = one.spec
        name = f"{spec.dataset.name}/{spec.dataset.split}/{spec.backbone.name}/{spec.view}"
        if fnmatch(name, f"*{pattern}*"):
            rows.append(
                {
                    "key": spec.key[:12],
                    "dataset": spec.dataset.name,
                    "split": spec.dataset.split,
                    "backbone": spec.backbone.name,
                    "tap": spec.view,
                    "rows": spec.dataset.rows,
                    "bytes": one.bytes,
                    "seconds": (one.provenance or {}).get("extraction_seconds"),
                    "sealed": "yes" if one.sealed else "no: run extract again",
                    "path": str(one.path),
                }
            )
    columns = ["key", "dataset", "split", "backbone", "tap", "rows", "bytes", "seconds", "sealed"]
    return columns, rows


def _heads(pattern: str, cache: Any) -> Listing:  # noqa: ANN401
    from fnmatch import fnmatch

    from featcache.head_store import HeadStore
    from featcache.store.cache import Cache

    rows = [
        {
            "key": one.key[:12],
            "kind": one.kind,
            "backbone": one.backbone.name,
            "tap": one.tap,
            "dimensions": one.dim,
            "classes": len(one.class_names),
            "of": one.origin.get("dataset") or one.origin.get("classes") or "",
            "protocol": one.origin.get("protocol") or "",
            "path": str(one.path),
        }
        for one in HeadStore(Cache(cache).root).entries()
        if fnmatch(f"{one.kind}/{one.backbone.name}/{one.tap}", f"*{pattern}*")
    ]
    columns = ["key", "kind", "backbone", "tap", "dimensions", "classes", "of", "protocol"]
    return columns, rows


def _results(pattern: str, cache: Any) -> Listing:  # noqa: ANN401
    from featcache.verbs.lookup import results

    rows = [
        {
            "id": one.id[:12],
            **{k: one.record[k] for k in ("dataset", "task", "backbone", "protocol", "tap")},
            "metric": one.record["primary"],
            "score": round(one.score, 4),
            "n": one.record["n"],
            "seconds": round(one.record["how"]["seconds"], 2),
            "path": str(one.path),
        }
        for one in results(pattern, cache=cache)
    ]
    columns = ["id", "dataset", "task", "backbone", "protocol", "tap", "metric", "score", "n"]
    return [*columns, "seconds"], rows


_LISTINGS: dict[str, Callable[[str, Any], Listing]] = {
    "backbones": _backbones,
    "datasets": _datasets,
    "tasks": _tasks,
    "protocols": _protocols,
    "features": _features,
    "heads": _heads,
    "results": _results,
}
