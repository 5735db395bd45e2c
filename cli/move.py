"""`featcache cache export|import|merge`: carry sets out, in and together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featcache.cli.console import (
    EXIT_FAILED,
    ByteBar,
    CacheOption,
    DebugOption,
    JsonOption,
    handled,
    note,
    print_json,
)
from featcache.cli.share import PatternArgument, show_transferred

if TYPE_CHECKING:
    from featcache.verbs.merge import Merged


@handled
def export(
    target: Annotated[Path, typer.Argument(help="File *.tar, or directory of the dataset.")],
    pattern: PatternArgument = "*",
    form: Annotated[
        str, typer.Option("--as", help="archive or hf-dataset (Parquet and a card).")
    ] = "archive",
    no_labels: Annotated[
        bool, typer.Option("--no-labels", help="Leave labels and class names here.")
    ] = False,
    hash_ids: Annotated[
        bool, typer.Option("--hash-ids", help="Replace ids by keyed hashes.")
    ] = False,
    salt: Annotated[
        Path | None, typer.Option(help="Secret of the hashes (default: drawn, not kept).")
    ] = None,
    sign: Annotated[
        Path | None, typer.Option(help="Private key (PEM) that signs an archive.")
    ] = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Write sealed sets to one portable file, or as a Hugging Face dataset.

    Example: featcache cache export digits.tar 'digits/*' --hash-ids
    """
    from featcache.verbs.export import export_sets

    with ByteBar("export") as bar:
        done = export_sets(
            target,
            pattern,
            form=form,  # type: ignore[arg-type]
            cache=cache,
            labels=not no_labels,
            hash_ids=hash_ids,
            salt=salt,
            sign_key=sign,
            begin=bar.begin,
            advance=bar.advance,
        )
    if as_json:
        named = [{"key": one.key, "digest": one.digest, "from": one.source_key} for one in done]
        print_json({"target": str(target), "sets": named})
        return
    for one in done:
        new = "" if one.key == one.source_key else f"  was {one.source_key[:12]}"
        typer.echo(f"key {one.key[:12]}  content {one.digest[:12]}{new}")
    typer.echo(f"{len(done)} sets in {target}")


@handled
def import_(
    file: Annotated[Path, typer.Argument(help="Archive that `export` wrote.")],
    pattern: PatternArgument = "*",
    require_signed: Annotated[
        bool, typer.Option("--require-signed", help="Refuse what no trusted key has signed.")
    ] = False,
    cache: CacheOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Take the sets of an archive into the cache, each byte checked before it is visible.

    Example: featcache cache import digits.tar
    """
    from featcache.verbs.export import import_archive

    with ByteBar("import") as bar:
        done = import_archive(
            file, pattern, cache=cache, require_signed=require_signed, advance=bar.advance
        )
    show_transferred(done, "imported", as_json=as_json)


@handled
def merge(
    sources: Annotated[list[Path], typer.Argument(help="Other caches; they are only read.")],
    pattern: Annotated[
        str, typer.Option(help="Pattern on dataset/split/backbone, or the start of a key.")
    ] = "*",
    cache: CacheOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Take what other caches hold into this one; shards of one key become one set.

    Example: featcache cache merge /mnt/site-a/cache /mnt/site-b/cache
    """
    from featcache.verbs.merge import merge_caches

    done = merge_caches(sources, pattern, cache=cache)
    if as_json:
        print_json([_json(one) for one in done])
    for one in done if not as_json else ():
        if one.problem is not None:
            note(f"{one.source}: {one.problem}")
            continue
        state = "complete" if one.is_sealed else "not complete yet"
        name = "/".join(one.target.with_suffix("").parts[-4:])
        here = f"{one.same} were here"
        if one.rounded:
            here += f", {one.rounded} here differ by rounding (at most {one.distance:.1g})"
        typer.echo(f"{name}  {one.added} shards came, {here}; {state}")
    if any(one.problem is not None for one in done):
        raise typer.Exit(EXIT_FAILED)


def _json(one: Merged) -> dict[str, Any]:
    return {
        "source": str(one.source),
        "path": str(one.target),
        "added": one.added,
        "same": one.same,
        "rounded": one.rounded,
        "distance": one.distance,
        "sealed": one.is_sealed,
        "problem": one.problem,
    }
