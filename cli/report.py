"""`featcache report`: the leaderboard from stored results."""

from __future__ import annotations

from pathlib import Path
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
)

if TYPE_CHECKING:
    from featcache.verbs.report import Leaderboard


@handled
def report(
    pattern: Annotated[
        str, typer.Argument(help="Only results whose dataset/task/backbone/protocol match.")
    ] = "*",
    out: Annotated[Path | None, typer.Option(help="Write Markdown to this file.")] = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show stored results as a leaderboard.

    Example: featcache report 'digits/*' --out leaderboard.md
    """
    from featcache.store.files import disk_errors
    from featcache.verbs.lookup import results
    from featcache.verbs.report import leaderboard, to_markdown

    board = leaderboard(results(pattern, cache=cache))
    if out is not None:
        with disk_errors(out, "write"):
            out.write_text(to_markdown(board), encoding="utf-8")
        note(f"Wrote {out}")
    if as_json:
        print_json(board_json(board))
    elif out is None:
        show(board)


def show(board: Leaderboard, title: str = "Leaderboard") -> None:
    """Print a leaderboard: one table of scores per dataset, then the ranking over all of them."""
    from featcache.verbs.report import CAPTION, SUMMARY, cell_text, summary_cells

    if not board.rows:
        typer.echo("No results yet. Make some with: featcache probe --task knn …")
        return
    for dataset in dict.fromkeys(column.dataset for column in board.columns):
        own = [i for i, column in enumerate(board.columns) if column.dataset == dataset]
        heads = [board.columns[i].heading for i in own]
        rows = [[row.backbone, *(cell_text(row.cells[i]) for i in own)] for row in board.rows]
        print_table(dataset, ["backbone", *heads], rows)
        typer.echo("")
    ranking = [[row.backbone, *summary_cells(row)] for row in board.rows]
    print_table(title, ["backbone", *SUMMARY], ranking)
    typer.echo(f"\n{CAPTION}")


def board_json(board: Leaderboard) -> dict[str, object]:
    """Return a leaderboard as plain JSON."""
    return {
        "columns": [
            {
                "dataset": one.dataset,
                "task": one.task,
                "protocol": one.protocol,
                "metric": one.metric,
                "ood_datasets": list(one.others),
                "split": one.split,
                "fingerprint": one.version,
                "seed": one.seed,
            }
            for one in board.columns
        ],
        "rows": [
            {
                "backbone": row.backbone,
                "scores": [None if cell is None else cell.score for cell in row.cells],
                "results": [None if cell is None else cell.id for cell in row.cells],
                "mean_gap": row.mean_gap,
                "mean_rank": row.mean_rank,
                "extraction_seconds": row.extraction_s,
                "probe_seconds": row.probe_s,
            }
            for row in board.rows
        ],
    }
