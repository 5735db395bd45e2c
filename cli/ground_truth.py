"""`featcache ground-truth`: write what is relevant to the queries of a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from featcache.cli.console import DebugOption, JsonOption, handled, print_json


@handled
def ground_truth(
    dataset: Annotated[str, typer.Argument(help="Dataset for retrieval, or NAME@DIR.")],
    out: Annotated[
        Path | None, typer.Option(help="File to write (default: the protocol's).")
    ] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Write the ground truth that a retrieval protocol reads, from the dataset's own tables.

    Example: featcache ground-truth roxford5k
    """
    from featcache.datasets.ground_truth import write_ground_truth

    path = write_ground_truth(dataset, out)
    if as_json:
        print_json({"dataset": dataset, "path": str(path)})
        return
    typer.echo(str(path))
