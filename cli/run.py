"""`featcache run`: price a suite, and run what of it is missing."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featcache.cli.console import (
    EXIT_FAILED,
    CacheOption,
    DebugOption,
    JsonOption,
    handled,
    note,
    print_json,
    print_table,
    size_text,
)

if TYPE_CHECKING:
    from featcache.verbs.plan import Plan
    from featcache.verbs.run import Ended

_REASON = 200


@handled
def run(
    suite: Annotated[str, typer.Argument(help="Name (featcache ls suites), or a YAML file.")],
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print what is missing and what it costs; run nothing."),
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="Pattern of backbone/dataset/protocol; repeatable.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Rehearse on this many rows per split.")] = None,
    twins: Annotated[
        bool, typer.Option("--twins", help="Take untrained networks of the same architectures.")
    ] = False,
    shuffle_seed: Annotated[
        int | None, typer.Option(help="Begin with other backbones than other machines.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images per batch (default: found by itself).")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Decoding processes (default: from the cores).")
    ] = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Run a suite; what is done is kept, what fails is told, the same command goes on.

    Example: featcache run quickstart --dry-run
    """
    from featcache.verbs.plan import plan

    planned = plan(
        suite,
        cache=cache,
        only=only or (),
        limit=limit,
        twins=twins,
        shuffle_seed=shuffle_seed,
    )
    if dry_run:
        _show_price(planned, as_json=as_json)
        return
    from featcache.extraction.options import Options
    from featcache.verbs.run import run as run_plan

    view = _View()
    with view:
        ended = run_plan(
            planned,
            cache=cache,
            device=device,
            options=Options(batch_size=batch_size, workers=workers),
            progress=view,
            watcher=view,
        )
    if as_json:
        print_json([_json(one) for one in ended])
    else:
        _show(planned, ended)
    if any(one.status == "failed" for one in ended):
        raise typer.Exit(EXIT_FAILED)


def _show_price(planned: Plan, *, as_json: bool) -> None:
    from featcache.verbs.plan import speeds

    price = planned.price()
    if as_json:
        cells = [{"cell": step.cell.name, "is_done": step.is_done} for step in planned.steps]
        fields = ("images", "bytes", "seconds", "extractions", "runs", "unknown")
        print_json({**{name: _plain(getattr(price, name)) for name in fields}, "cells": cells})
        return
    names = list(dict.fromkeys(step.cell.backbone for step in planned.steps))
    typer.echo(f"{planned.suite.name}: {planned.suite.description}\n")
    rows = []
    for name in names:
        steps = [step for step in planned.steps if step.cell.backbone == name]
        sets = {one for step in steps for one in step.needs}
        rows.append(
            [
                name,
                f"{sum(one.is_done for one in sets)}/{len(sets)}",
                f"{sum(step.is_done for step in steps)}/{len(steps)}",
                f"{sum(one.rows or 0 for one in sets if not one.is_done)}",
            ]
        )
    print_table(f"{len(names)} backbones", ["backbone", "sets", "results", "images"], rows)
    typer.echo(f"to embed            {price.images} images in {price.extractions} extractions")
    typer.echo(f"to write            {size_text(price.bytes)}, float16")
    typer.echo(f"to score            {price.runs} results")
    for kind, seconds in price.seconds.items():
        basis = str(speeds()[kind]["basis"]).partition(",")[0]
        typer.echo(f"on one {kind:12s} {_time(seconds)} of extraction ({basis})")
    if price.unknown:
        shown = ", ".join(price.unknown[:3])
        typer.echo(
            f"not counted         {len(price.unknown)} extractions of unknown size: {shown} ..."
        )


def _show(planned: Plan, ended: list[Ended]) -> None:
    rows = [
        [
            one.cell.name,
            one.status,
            f"{one.result.score:.4f}" if one.result else "",
            f"{one.seconds:.1f}",
        ]
        for one in ended
    ]
    print_table(planned.suite.name, ["cell", "status", "score", "seconds"], rows)
    failed = [one for one in ended if one.status == "failed"]
    for one in failed:
        typer.echo(f"failed: {one.cell.name}\n  {_short(one.reason)}", err=True)
    typer.echo(f"{len(ended) - len(failed)} of {len(ended)} cells are done, {len(failed)} failed.")


def _json(one: Ended) -> dict[str, Any]:
    return {
        "cell": one.cell.name,
        "status": one.status,
        "result": one.result.id if one.result else None,
        "score": one.result.score if one.result else None,
        "reason": one.reason,
        "seconds": one.seconds,
    }


def _plain(value: Any) -> Any:  # noqa: ANN401
    return list(value) if isinstance(value, tuple) else value


def _short(text: str) -> str:
    return text if len(text) <= _REASON else f"{text[:_REASON]} ..."


def _time(seconds: float) -> str:
    """Render a duration in its largest fitting unit."""
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"


class _View:
    """Cells and, below them, the images of the extraction at hand; lines without a terminal."""

    def __init__(self) -> None:
        """Show nothing before it is entered."""
        self._progress: Any = None
        self._cells: Any = None
        self._images: Any = None
        self._began = time.perf_counter()

    def __enter__(self) -> _View:
        """Draw, if stderr is a terminal."""
        if sys.stderr.isatty():
            from rich import progress
            from rich.console import Console

            self._progress = progress.Progress(
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                progress.TimeRemainingColumn(elapsed_when_finished=True),
                console=Console(stderr=True),
            )
            self._cells = self._progress.add_task("cells", total=None)
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave it as it stands."""
        if self._progress is not None:
            self._progress.stop()

    def begin(self, number: int, total: int, name: str) -> None:
        """Show a cell that begins."""
        self._place = f"[{number}/{total}]"
        if self._progress is not None:
            self._progress.update(self._cells, total=total, completed=number - 1, description=name)

    def end(self, ended: Ended) -> None:
        """Say what became of a cell."""
        said = f"{ended.result.score:.4f}" if ended.result else _short(ended.reason)
        self.note(f"{self._place} {ended.cell.name}: {ended.status} {said}")
        if self._progress is not None:
            self._progress.advance(self._cells, 1)

    def start(self, label: str, total: int, done: int) -> None:
        """Show an extraction below the cells."""
        if self._progress is not None:
            self._images = self._progress.add_task(label, total=total, completed=done)

    def advance(self, rows: int) -> None:
        """Count its rows."""
        if self._progress is not None:
            self._progress.advance(self._images, rows)

    def note(self, message: str) -> None:
        """Say one line, above the bars if there are any."""
        if self._progress is not None:
            self._progress.console.print(message, markup=False, highlight=False)
        else:
            note(message)

    def stop(self) -> None:
        """Take the extraction away."""
        if self._progress is not None and self._images is not None:
            self._progress.remove_task(self._images)
            self._images = None
