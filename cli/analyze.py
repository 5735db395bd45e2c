"""`featcache analyze`: scores, spectra and likeness of cached features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featcache.cli.console import (
    CacheOption,
    DebugOption,
    JsonOption,
    handled,
    print_json,
    print_table,
)

if TYPE_CHECKING:
    from featcache.verbs.analyze import Analysis


@handled
def analyze(
    backbone: Annotated[
        list[str], typer.Option(help="Name under which features are cached; repeatable.")
    ],
    dataset: Annotated[str, typer.Option(help="Dataset as given to extract, or its name.")],
    split: Annotated[
        str | None, typer.Option(help="Split to look at (default: train, if cached).")
    ] = None,
    tap: Annotated[str | None, typer.Option(help="Tap to read, if several are cached.")] = None,
    sample: Annotated[
        int | None, typer.Option(min=4, help="Rows looked at (default: 10000).")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the sample.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    cache: CacheOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Score, describe and compare cached features: analysis, never a leaderboard column.

    Example: featcache analyze --backbone efficientnet_lite0 --backbone pixels --dataset digits
    """
    from featcache.verbs.analyze import analyze as run

    analysis, was_stored = run(
        backbones=backbone,
        dataset=dataset,
        split=split,
        tap=tap,
        sample=sample,
        seed=seed,
        device=device,
        cache=cache,
    )
    if as_json:
        print_json({**analysis.record, "path": str(analysis.path), "was_stored": was_stored})
    else:
        _show(analysis, was_stored, backbone)


def _show(analysis: Analysis, was_stored: bool, names: Sequence[str]) -> None:
    from featcache.probes.analysis.representation import PROPERTIES
    from featcache.probes.analysis.transferability import BASELINES, HEAD_SCORES, SCORES

    record = analysis.record
    one = {name: record["backbones"][name] for name in names}
    where = f"{record['dataset']}/{record['split']}, {record['rows']['sampled']} rows"
    baselines = [
        *_rows(one, "transferability", BASELINES),
        ["params_m", *(_number(found["params_m"]) for found in one.values())],
    ]
    scores = _rows(one, "transferability", (*SCORES, *HEAD_SCORES))
    print_table(f"Baselines on {where}", ["", *names], baselines)
    print_table("Transferability scores: larger is better", ["", *names], scores)
    rows = [
        ["dimensions", *(str(found["dimensions"]) for found in one.values())],
        *_rows(one, "representation", PROPERTIES),
    ]
    print_table("Representation", ["", *names], rows)
    if record["pairs"] is not None:
        _show_pairs(record["pairs"], names)
    for reason, where_skipped in _reasons(one, record["pairs"]).items():
        typer.echo(f"  – {', '.join(where_skipped)}: {reason}")
    how = "already stored" if was_stored else f"{record['how']['seconds']:.2f} s"
    typer.echo(f"{record['caption']}\n{how}\n  {analysis.path}")


def _show_pairs(pairs: Mapping[str, Any], names: Sequence[str]) -> None:
    order = [pairs["names"].index(name) for name in names]
    for measure, matrix in pairs["matrices"].items():
        rows = [[pairs["names"][i], *(_number(matrix[i][j]) for j in order)] for i in order]
        title = measure
        if measure == "mutual_neighbours":
            title += f" (by chance {_number(pairs['notes']['mutual_neighbours_chance'])})"
        print_table(title, ["", *names], rows)


def _rows(one: Mapping[str, Any], part: str, measures: Sequence[str]) -> list[list[str]]:
    """Return a row per measure, a column per backbone."""
    return [
        [measure, *(_number(found[part]["values"].get(measure)) for found in one.values())]
        for measure in measures
    ]


def _reasons(one: Mapping[str, Any], pairs: Mapping[str, Any] | None) -> dict[str, list[str]]:
    """Return each reason for a gap once, with what it is the reason for."""
    found: dict[str, list[str]] = {}
    for name, about in one.items():
        for part in ("transferability", "representation"):
            for measure, reason in about[part]["skipped"].items():
                found.setdefault(reason, []).append(f"{measure} of {name}")
    for what, reason in (pairs or {"skipped": {}})["skipped"].items():
        found.setdefault(reason, []).append(what)
    return found


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
