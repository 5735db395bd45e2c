"""`featcache cache repair`, and the part of `cache verify` that embeds rows again."""

from __future__ import annotations

from pathlib import Path
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
)
from featcache.errors import FeatcacheError, UnsealedError

if TYPE_CHECKING:
    from featcache.store.cache import Cache
    from featcache.verbs.check import Means

DatasetOption = Annotated[
    str | None, typer.Option("--dataset", help="The images, as given to extract.")
]
CheckpointOption = Annotated[
    Path | None, typer.Option("--checkpoint", help="The weights, as given to extract.")
]
RenamerOption = Annotated[
    str | None, typer.Option("--renamer", help="The renamer, as given to extract.")
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]


@handled
def repair(
    keys: Annotated[
        list[str] | None, typer.Argument(help="Key prefixes or paths (default: every set).")
    ] = None,
    dataset: DatasetOption = None,
    checkpoint: CheckpointOption = None,
    renamer: RenamerOption = None,
    device: DeviceOption = "auto",
    cache: CacheOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Extract again what is damaged, and only that.

    Example: featcache cache repair 3f9a1c --dataset imagefolder:photos
    """
    from featcache.store.cache import Cache
    from featcache.verbs.check import Means
    from featcache.verbs.check import repair as run

    store = Cache(cache)
    means = Means(dataset=dataset, checkpoint=checkpoint, renamer=renamer, device=device)
    paths = [store.path_by_key(key) for key in keys] if keys else store.paths()
    results: dict[str, dict[str, Any]] = {}
    for path in paths:
        try:
            results[str(path)] = {"rows": run(path, store, means)}
        except UnsealedError:
            continue  # the next `extract` finishes it
        except FeatcacheError as error:
            results[str(path)] = {"error": str(error)}
    if as_json:
        print_json(results)
    for name, one in results.items() if not as_json else ():
        if "error" in one:
            note(f"{name}: {one['error']}")
        else:
            how = "sound" if one["rows"] is None else f"{one['rows']} rows embedded again"
            typer.echo(f"{name}  {how}")
    if any("error" in one for one in results.values()):
        raise typer.Exit(EXIT_FAILED)


def compare(path: Path, store: Cache, n_rows: int, means: Means) -> tuple[bool, dict[str, Any]]:
    """Embed rows of a set again; return whether they agree, and how they compare."""
    from featcache.verbs.check import recompute

    found = recompute(path, store, n_rows, means)
    return found.is_equivalent, {
        "rows": found.rows,
        "equivalent": found.is_equivalent,
        "distance": found.distance,
        "tolerance": found.tolerance,
        "largest_difference": found.largest_difference,
        "cosine": found.cosine,
        "worst_row": found.worst_row,
    }
