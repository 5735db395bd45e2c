"""`featcache probe`: score a task from cached features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featcache.cli.console import (
    CacheOption,
    DebugOption,
    JsonOption,
    handled,
    note,
    print_json,
    print_table,
)
from featcache.cli.share import NoRemoteOption, RemoteOption, chosen

if TYPE_CHECKING:
    from featcache.result_store import Result
    from featcache.verbs.sensitivity import Tried


@handled
def probe(
    backbone: Annotated[str, typer.Option(help="Name under which features are cached.")],
    dataset: Annotated[str, typer.Option(help="Dataset as given to extract, or its name.")],
    task: Annotated[str | None, typer.Option(help="linear, knn, ...: featcache ls tasks.")] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Protocol with version, or all (default: the task's).")
    ] = None,
    ood_dataset: Annotated[
        list[str] | None, typer.Option(help="Dataset to tell apart (ood); repeatable.")
    ] = None,
    head: Annotated[
        str | None, typer.Option(help="Stored classifier: key, native, probe or text.")
    ] = None,
    tap: Annotated[str | None, typer.Option(help="Tap to read, if several are cached.")] = None,
    key: Annotated[
        str | None, typer.Option(help="Key prefix of a set, if several setups are cached.")
    ] = None,
    train_split: Annotated[str | None, typer.Option(help="Split to fit on.")] = None,
    test_split: Annotated[str | None, typer.Option(help="Split to score.")] = None,
    val_split: Annotated[
        str | None, typer.Option(help="Split to choose hyper-parameters on.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    derive: Annotated[
        str | None, typer.Option(help="See features through a recipe: pca:128|l2, int8, pq:64.")
    ] = None,
    concat: Annotated[
        list[str] | None, typer.Option(help="Backbone to put beside it; repeatable.")
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Read remote sets in chunks, not whole.")
    ] = False,
    remote: RemoteOption = None,
    no_remote: NoRemoteOption = False,
    cache: CacheOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Score a task from cached features; no image is opened.

    Example: featcache probe --task knn --backbone efficientnet_lite0 --dataset digits
    """
    from featcache.verbs.probe import probe as run
    from featcache.verbs.sensitivity import probe_all

    asked: dict[str, Any] = {
        "backbone": backbone,
        "dataset": dataset,
        "task": task,
        "ood_datasets": ood_dataset or (),
        "head": head,
        "tap": tap,
        "key": key,
        "train_split": train_split,
        "test_split": test_split,
        "val_split": val_split,
        "seed": seed,
        "device": device,
        "cache": cache,
        "derive": derive,
        "concat": concat or (),
        "stream": stream,
        "remotes": chosen(remote, no_remote),
        "note": note,
    }
    if protocol == "all":
        _show_all(probe_all(**asked), as_json=as_json)
        return
    result, was_stored = run(protocol=protocol, **asked)
    if as_json:
        print_json({**result.record, "path": str(result.path), "was_stored": was_stored})
    else:
        _show(result, was_stored)


def _show_all(tried: list[Tried], *, as_json: bool) -> None:
    """Show one line per protocol: its score, or why there is none."""
    if as_json:
        print_json(
            [
                {
                    "protocol": one.protocol,
                    "task": one.task,
                    "reason": one.reason,
                    "record": None if one.result is None else one.result.record,
                }
                for one in tried
            ]
        )
        return
    rows = []
    for one in tried:
        if one.result is None:
            rows.append([one.protocol, "", "", "", one.reason])
            continue
        record = one.result.record
        interval = record["intervals"].get(record["primary"])
        shown = f"[{interval[0]:.4f}, {interval[1]:.4f}]" if interval else ""
        rows.append([one.protocol, record["primary"], f"{one.result.score:.4f}", shown, ""])
    done = sum(one.result is not None for one in tried)
    columns = ["protocol", "metric", "value", "95 % interval", "not run because"]
    print_table(f"{done} of {len(tried)} protocols", columns, rows)
    for one in tried:
        if one.result is not None:
            _warn(one.result.record, f" ({one.protocol})")


def _show(result: Result, was_stored: bool) -> None:
    record = result.record
    title = f"{record['backbone']} on {record['dataset']}: {record['protocol']}, n = {record['n']}"
    change = record["details"].get("change")
    rows = []
    for name, value in record["metrics"].items():
        low_high = record["intervals"].get(name)
        interval = f"[{low_high[0]:.4f}, {low_high[1]:.4f}]" if low_high else ""
        mark = "*" if name == record["primary"] else ""
        row = [f"{name}{mark}", f"{value:.4f}", interval]
        rows.append([*row, _change(change, name, record["primary"])] if change else row)
    columns = ["metric", "value", "95 % interval"]
    print_table(title, [*columns, "against stored features"] if change else columns, rows)
    how = "already stored" if was_stored else f"{record['how']['seconds']:.2f} s"
    typer.echo(f"{how}  * primary metric\n  {result.path}")
    _warn(record)


def _warn(record: Mapping[str, Any], where: str = "") -> None:
    for warning in record["details"].get("warnings", []):
        note(f"Warning{where}: {warning}")


def _change(change: dict[str, Any], name: str, primary: str) -> str:
    """Render what a recipe changed in a metric, with its paired interval if there is one."""
    if name not in change["metrics"]:
        return ""
    text = f"{change['metrics'][name]:+.4f}"
    if name == primary and change["interval"]:
        low, high = change["interval"]
        text += f" [{low:+.4f}, {high:+.4f}]"
    return text
