"""`featcache ls`: names of what there is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
        typer.Argument(
            help="backbones, datasets, tasks, protocols, suites, features, heads or results."
        ),
    ],
    pattern: Annotated[str, typer.Argument(help="Shell pattern of the names.")] = "*",
    task: Annotated[
        str | None, typer.Option("--task", help="Only datasets meant for this task.")
    ] = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List backbones, datasets, tasks, protocols, suites, cached features, heads or results.

    A whole name, without * or ?, shows all that is known of it.

    Example: featcache ls backbones 'dino*'
    """
    if what not in _LISTINGS:
        raise OptionError(f"`ls` takes one of {', '.join(_LISTINGS)}; got {what!r}.")
    columns, rows = _LISTINGS[what](pattern, cache)
    if task is not None:
        rows = _meant_for(task, what, rows)
    if as_json:
        print_json(rows)
    elif len(rows) == 1 and rows[0].get("name") == pattern:
        facts = [[name, _text(value)] for name, value in rows[0].items() if name != "name"]
        print_table(pattern, ["fact", "value"], facts)
    else:
        shown = [[_cell(name, row.get(name)) for name in columns] for row in rows]
        counted = what if len(rows) != 1 else what.removesuffix("s")
        print_table(f"{len(rows)} {counted}", [_HEADS.get(name, name) for name in columns], shown)


def _meant_for(task: str, what: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the datasets whose facts name a task.

    Raises:
        OptionError: If these are no datasets, or if none is meant for it.
    """
    if what != "datasets":
        raise OptionError(
            f"`--task` must come with `ls datasets`; got `ls {what}`. Leave it out, or give a "
            "pattern of names."
        )
    tasks = sorted({one for row in rows for one in row.get("tasks", ())})
    if task not in tasks:
        raise OptionError(
            f"`--task` must be what a dataset is meant for: {', '.join(tasks) or 'none here'}; got "
            f"{task!r}. Choose one of these, or leave it out."
        )
    return [row for row in rows if task in row.get("tasks", ())]


_HEADS = {"resolution": "px"}
"""Shorter heads of columns, so that a row of the widest listing fits 80 columns."""


def _cell(name: str, value: object) -> str:
    if isinstance(value, int) and name == "bytes":
        return size_text(value)
    if isinstance(value, int) and name == "images":
        return f"{value:,}"
    if isinstance(value, int | float) and name in ("params_m", "gflops"):
        return f"{value:.1f}"
    if name == "data":
        return str(value).replace("ImageNet-", "IN-").replace(", then ", " + ")
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


def _text(value: object) -> str:
    """Return a fact in a line: a mapping as `key=value, ...`, one of mappings as its keys."""
    if isinstance(value, Mapping):
        if all(isinstance(one, Mapping) for one in value.values()):
            return ", ".join(map(str, value))
        return ", ".join(
            f"{key}=[{_text(one)}]" if isinstance(one, list) else f"{key}={_text(one)}"
            for key, one in value.items()
        )
    if isinstance(value, list):
        parts = [_text(one) for one in value]
        if all(part.endswith(".") for part in parts):
            return " ".join(parts)
        return ("; " if any("," in part for part in parts) else ", ").join(parts)
    return "" if value is None else str(value)


def _backbones(pattern: str, _cache: object) -> Listing:
    from featcache.backbones.catalog import BACKBONES

    rows = [{"name": n, **BACKBONES.get(n).facts} for n in BACKBONES.names(pattern)]
    return ["name", "data", "params_m", "gflops", "resolution"], rows


def _datasets(pattern: str, _cache: object) -> Listing:
    from featcache.datasets.catalog import DATASETS

    rows = [{"name": n, **_counted(DATASETS.get(n).facts)} for n in DATASETS.names(pattern)]
    return ["name", "classes", "images", "description"], rows


def _counted(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts of a dataset with its number of images, if those of all splits are known."""
    rows, splits = facts.get("rows", {}), facts.get("splits", {})
    known = bool(rows) and rows.keys() >= splits.keys()
    return {**facts, "images": sum(rows.values()) if known else None}


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


def _suites(pattern: str, _cache: object) -> Listing:
    from fnmatch import fnmatch

    from featcache.verbs.suite import load_suite, shipped

    rows = []
    for name in shipped():
        if fnmatch(name, pattern):
            one = load_suite(name)
            rows.append(
                {
                    "name": name,
                    "backbones": len({cell.backbone for cell in one.cells}),
                    "cells": len(one.cells),
                    "description": one.description,
                    "citation": one.citation,
                }
            )
    return ["name", "backbones", "cells", "description"], rows


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
    "suites": _suites,
    "features": _features,
    "heads": _heads,
    "results": _results,
}
