"""`featcache cache push|pull|ls-remote|index|keygen`: share sets with others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featcache.cli.console import (
    ByteBar,
    CacheOption,
    DebugOption,
    JsonOption,
    handled,
    print_json,
    size_text,
)

if TYPE_CHECKING:
    from featcache.remotes.push import Transferred

RemoteArgument = Annotated[
    str,
    typer.Argument(help="Name in the configuration, directory, or s3://, gs://, hf://, http://."),
]
PatternArgument = Annotated[
    str, typer.Argument(help="Pattern on dataset/split/backbone, or the start of a key.")
]
RemoteOption = Annotated[
    list[str] | None,
    typer.Option("--remote", help="Look here before computing; repeatable (default: configured)."),
]
NoRemoteOption = Annotated[bool, typer.Option("--no-remote", help="Look at no remote.")]


def chosen(remote: list[str] | None, no_remote: bool) -> list[str] | None:
    """Return the remotes to look at: None for those of the configuration."""
    return [] if no_remote else remote


@handled
def push(
    remote: RemoteArgument,
    pattern: PatternArgument = "*",
    as_variant: Annotated[
        bool, typer.Option("--as-variant", help="Keep it beside another content of the same key.")
    ] = False,
    sign: Annotated[
        Path | None, typer.Option(help="Private key (PEM) that signs what is pushed.")
    ] = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Push sealed sets to a remote; what is there is not sent again.

    Example: featcache cache push s3://bucket/features 'digits/*'
    """
    from featcache.verbs.share import push_sets

    with ByteBar("push") as bar:
        done = push_sets(
            remote,
            pattern,
            cache=cache,
            as_variant=as_variant,
            sign_key=sign,
            begin=bar.begin,
            advance=bar.advance,
        )
    show_transferred(done, "pushed", as_json=as_json)


@handled
def pull(
    remote: RemoteArgument,
    pattern: PatternArgument = "*",
    require_signed: Annotated[
        bool, typer.Option("--require-signed", help="Refuse what no trusted key has signed.")
    ] = False,
    cache: CacheOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Pull sets from a remote, each byte checked before it is visible.

    Example: featcache cache pull team 'imagenet/*/dinov2*'
    """
    from featcache.verbs.share import pull_sets

    with ByteBar("pull") as bar:
        done = pull_sets(
            remote, pattern, cache=cache, require_signed=require_signed, advance=bar.advance
        )
    show_transferred(done, "pulled", as_json=as_json)


@handled
def ls_remote(
    remote: RemoteArgument,
    pattern: PatternArgument = "*",
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List the sets that a remote has.

    Example: featcache cache ls-remote hf://datasets/org/features
    """
    from featcache.verbs.share import list_remote

    found = list_remote(remote, pattern)
    if as_json:
        print_json(found)
        return
    for name in found:
        typer.echo(name)


@handled
def index(
    directory: Annotated[Path, typer.Argument(help="Directory remote that a web server serves.")],
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Write the list of sets that readers over HTTP need; run it after each push.

    Example: featcache cache index /srv/features
    """
    from featcache.verbs.share import write_index

    count = write_index(directory)
    if as_json:
        print_json({"directory": str(directory), "sets": count})
    else:
        typer.echo(f"{count} sets in {directory}")


@handled
def keygen(
    file: Annotated[Path, typer.Argument(help="Where the private key goes; must not exist.")],
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Make a key pair to sign sets with, and print the public key.

    Example: featcache cache keygen ~/.config/featcache/sign.pem
    """
    from featcache.remotes.signing import new_key

    public = new_key(file)
    if as_json:
        print_json({"public_key": public, "file": str(file)})
    else:
        typer.echo(public)


def show_transferred(done: list[Transferred], verb: str, *, as_json: bool) -> None:
    """Print what travelled, with the licences and citations that come with it."""
    if as_json:
        print_json([_json(one) for one in done])
        return
    for one in done:
        how = f"{verb} {one.files} files, {size_text(one.bytes)}" if one.files else "already there"
        name = one.name.removeprefix("features/").removesuffix(".json")
        typer.echo(f"{name}  content {one.digest[:12]}  {how}")
    for terms in sorted({line for one in done for line in _terms(one.path)}):
        typer.echo(f"  {terms}")


def _terms(path: Path) -> list[str]:
    """Return a line per dataset and backbone: its licence, and what to cite."""
    from featcache.store.feature_set import FeatureSet

    one = FeatureSet(path)
    lines = []
    for kind, name in (("dataset", one.spec.dataset.name), ("backbone", one.spec.backbone.name)):
        facts = one.provenance.get(kind)
        if isinstance(facts, dict) and (facts.get("licence") or facts.get("citation")):
            terms = facts.get("licence") or "no licence is recorded"
            cite = f", cite {facts['citation']}" if facts.get("citation") else ""
            lines.append(f"{kind} {name}: {terms}{cite}")
    return lines


def _json(one: Transferred) -> dict[str, Any]:
    return {
        "name": one.name,
        "key": one.key,
        "digest": one.digest,
        "path": str(one.path),
        "files": one.files,
        "bytes": one.bytes,
    }
