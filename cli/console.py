"""What all commands share: common options, errors as one message, output, progress."""

from __future__ import annotations

import functools
import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn, ParamSpec, Self, TypeVar, cast

import typer

from featcache.errors import FeatcacheError, OptionError, SpecError, UnknownNameError

P = ParamSpec("P")
R = TypeVar("R")

EXIT_FAILED, EXIT_MISUSE, EXIT_INTERRUPTED = 1, 2, 130

CacheOption = Annotated[
    Path | None, typer.Option("--cache", help="Cache directory (env: FEATCACHE_CACHE).")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def handled(command: Callable[P, R]) -> Callable[P, R]:
    """Turn every error into one message and an exit code; `--debug` lets it through."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt:
            message = "Interrupted; what is done is kept. Run the same command to resume."
            _fail(kwargs, message, EXIT_INTERRUPTED)
        except FeatcacheError as error:
            if kwargs.get("debug"):
                raise
            misuse = isinstance(error, OptionError | SpecError | UnknownNameError)
            _fail(kwargs, str(error), EXIT_MISUSE if misuse else EXIT_FAILED)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(EXIT_FAILED) from None
        except Exception as error:
            if kwargs.get("debug") or isinstance(error, typer.Exit):
                raise
            name = type(error).__name__
            _fail(kwargs, f"Unexpected {name}: {error}. Show where with --debug.", EXIT_FAILED)

    return wrapped


def _fail(options: dict[str, Any], message: str, code: int) -> NoReturn:
    if options.get("as_json"):
        print_json({"error": message, "exit_code": code})
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(code) from None


LONG_TABLE = 200
"""Rows above which a table is not folded to the terminal."""


def print_json(value: Any) -> None:  # noqa: ANN401
    """Print one JSON document on stdout."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a table on stdout, folded to a terminal or to `$COLUMNS`.

    In a pipe without that variable, or if it is long, it is as wide as needed.
    """
    filled = [[row[i] for row in rows if row[i]] for i in range(len(columns))]
    numeric = [bool(cells) and all(map(_is_number, cells)) for cells in filled]
    has_width = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit()
    is_folded = has_width and len(rows) <= LONG_TABLE
    draw = _folded_table if is_folded else _wide_table
    lines = draw(columns, rows, numeric)
    typer.echo("\n".join([title, *(line.rstrip() for line in lines)]))


def _wide_table(columns: list[str], rows: list[list[str]], numeric: list[bool]) -> Iterator[str]:
    """Lay out a table in one pass; a library takes seconds for some thousand rows."""
    from rich.cells import cell_len

    cells = [columns, *rows]
    widths = [max(cell_len(row[i]) for row in cells) for i in range(len(columns))]
    yield ""
    for number, row in enumerate(cells):
        texts = []
        for text, width, right in zip(row, widths, numeric, strict=True):
            blank = " " * (width - cell_len(text))
            texts.append(blank + text if right else text + blank)
        yield " " + "   ".join(texts)
        if number == 0:
            yield " " + "─" * (sum(widths) + 3 * len(widths) - 2)
    yield ""


def _folded_table(columns: list[str], rows: list[list[str]], numeric: list[bool]) -> list[str]:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    width = shutil.get_terminal_size().columns
    console = Console(file=io.StringIO(), width=width, highlight=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name, right in zip(columns, numeric, strict=True):
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)
    return cast(io.StringIO, console.file).getvalue().strip("\n").splitlines()


def _is_number(text: str) -> bool:
    head = text.replace("–", "0").split(" ")[0].replace(",", "")
    return head.replace(".", "", 1).isdigit()


def size_text(n_bytes: int) -> str:
    """Render a size with a decimal unit: 1.5 GB."""
    size = float(n_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def note(message: str) -> None:
    """Say one line on stderr."""
    typer.echo(message, err=True)


class Bar:
    """A progress bar on stderr with images per second and time left; silent without a terminal."""

    def __init__(self) -> None:
        """Show nothing yet."""
        self._progress: Any = None
        self._task: Any = None

    def start(self, label: str, total: int, done: int) -> None:
        """Draw the bar, if stderr is a terminal."""
        if not sys.stderr.isatty():
            return
        from rich import progress
        from rich.console import Console

        self._progress = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[rate]}"),
            progress.TimeRemainingColumn(elapsed_when_finished=True),
            console=Console(stderr=True),
            speed_estimate_period=60,
        )
        self._task = self._progress.add_task(label, total=total, completed=done, rate="– img/s")
        self._progress.start()

    def advance(self, rows: int) -> None:
        """Count rows."""
        if self._progress is not None:
            self._progress.advance(self._task, rows)
            speed = self._progress.tasks[0].speed
            if speed:
                self._progress.update(self._task, rate=f"{speed:.1f} img/s")

    def note(self, message: str) -> None:
        """Say one line, above the bar if there is one."""
        if self._progress is not None:
            self._progress.console.print(message, markup=False, highlight=False)
        else:
            note(message)

    def stop(self) -> None:
        """Leave the bar as it stands."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


class ByteBar:
    """A progress bar on stderr in bytes per second; silent without a terminal."""

    def __init__(self, label: str) -> None:
        """Show nothing before it is entered."""
        self._label = label
        self._progress: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        """Draw the bar, if stderr is a terminal."""
        if sys.stderr.isatty():
            from rich import progress
            from rich.console import Console

            self._progress = progress.Progress(
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.DownloadColumn(),
                progress.TransferSpeedColumn(),
                console=Console(stderr=True),
            )
            self._task = self._progress.add_task(self._label, total=None)
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the bar as it stands."""
        if self._progress is not None:
            self._progress.stop()

    def begin(self, total: int) -> None:
        """Learn how many bytes there are."""
        if self._progress is not None:
            self._progress.update(self._task, total=total)

    def advance(self, n_bytes: int) -> None:
        """Count bytes."""
        if self._progress is not None:
            self._progress.advance(self._task, n_bytes)
