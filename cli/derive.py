"""`featcache cache derive`: write down what a recipe makes of stored features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from featcache.cli.console import (
    CacheOption,
    DebugOption,
    JsonOption,
    handled,
    print_json,
    size_text,
)

if TYPE_CHECKING:
    from featcache.store.feature_set import FeatureSet


@handled
def derive(
    key: Annotated[str, typer.Argument(help="Key prefix or path of a sealed set.")],
    recipe: Annotated[
        str,
        typer.Argument(help="l2, l2each, center, zscore, pca:D, whiten:D, truncate:D, int8, pq:M."),
    ] = "",
    concat: Annotated[
        list[str] | None, typer.Option(help="Set of the same images beside it; repeatable.")
    ] = None,
    learn_from: Annotated[
        list[str] | None, typer.Option(help="Set to learn from (default: split train).")
    ] = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Store a set seen through a recipe, with a key of its own; `probe --derive` needs no such.

    Example: featcache cache derive 3f9a1c 'pca:128|int8'
    """
    from featcache.verbs.derive import derive as view_of
    from featcache.verbs.derive import store_view

    view = view_of(key, recipe, concat=concat or (), learn_from=learn_from or (), cache=cache)
    stored = store_view(view, cache=cache)
    stored_bytes = _bytes(stored)
    source_bytes = sum(_bytes(one) for one in view.sources)
    if as_json:
        facts = {"key": stored.key, "digest": stored.digest, "path": str(stored.path)}
        print_json({**facts, "bytes": stored_bytes, "source_bytes": source_bytes})
        return
    spec = stored.spec
    typer.echo(
        f"{spec.dataset.name}/{spec.dataset.split}  {spec.backbone.name}  {spec.view}  "
        f"{stored.key[:12]}  {size_text(stored_bytes)} from {size_text(source_bytes)}"
    )


def _bytes(one: FeatureSet) -> int:
    return sum(int(file["bytes"]) for file in one.sealed["files"])
