"""`featcache extract`: embed a dataset once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from featcache.cli.console import (
    Bar,
    CacheOption,
    DebugOption,
    JsonOption,
    handled,
    note,
    print_json,
)
from featcache.cli.share import NoRemoteOption, RemoteOption, chosen

if TYPE_CHECKING:
    from featcache.extraction.options import Extracted


@handled
def extract(
    backbone: Annotated[
        str, typer.Option(help="Name, timm:NAME, random:ARCH or package.module:factory.")
    ],
    dataset: Annotated[
        str, typer.Option(help="Name, imagefolder:DIR, csv:FILE, hf:REPO, torchvision:CLASS.")
    ],
    split: Annotated[
        list[str] | None, typer.Option(help="Split to embed; repeatable (default: all).")
    ] = None,
    tap: Annotated[
        list[str] | None, typer.Option(help="Tap; repeatable, one pass (default: backbone's).")
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Use the transform and tap this protocol requires.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Weights (.safetensors, .pth) for the architecture.")
    ] = None,
    renamer: Annotated[
        str | None, typer.Option(help="How to rename the checkpoint's keys.")
    ] = None,
    precision: Annotated[str, typer.Option(help="Compute in fp32, tf32, bf16 or fp16.")] = "fp32",
    stored: Annotated[str, typer.Option(help="Store as float16 or float32.")] = "float16",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images per batch (default: found by itself).")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Decoding processes (default: from the cores).")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Write more than 20 GB without being asked.")
    ] = False,
    remote: RemoteOption = None,
    no_remote: NoRemoteOption = False,
    cache: CacheOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Embed a dataset once; a second run returns at once, a killed one resumes.

    Example: featcache extract --backbone efficientnet_lite0 --dataset imagefolder:photos
    """
    from featcache.extraction.options import LARGE_BYTES, Options
    from featcache.verbs.extract import BackboneRequest
    from featcache.verbs.extract import extract as run

    done = run(
        backbone=BackboneRequest(
            name=backbone,
            checkpoint=checkpoint,
            renamer=renamer,
            protocol=protocol,
            precision=precision,  # type: ignore[arg-type]  # checked by Numerics
            stored=stored,  # type: ignore[arg-type]
        ),
        dataset=dataset,
        splits=split or (),
        taps=tap or (),
        cache=cache,
        options=Options(
            device=device,
            batch_size=batch_size,
            workers=workers,
            max_bytes=None if yes else LARGE_BYTES,
        ),
        progress=Bar(),
        remotes=chosen(remote, no_remote),
    )
    if as_json:
        print_json([_json(one) for one in done])
        return
    for one in done:
        typer.echo(_line(one))
    if any(one.unreadable for one in done):
        note("Unreadable images are kept as rows with a reason: featcache cache info KEY")


def _line(one: Extracted) -> str:
    spec = one.spec
    name = f"{spec.dataset.name}/{spec.dataset.split}  {spec.backbone.name}  {spec.tap}"
    how = (
        f"embedded {one.computed} in {one.seconds:.1f} s ({one.computed / one.seconds:.1f} img/s)"
        if one.computed
        else "already there"
    )
    bad = f", {one.unreadable} unreadable" if one.unreadable else ""
    return f"{name}  {one.rows} rows{bad}  key {spec.key[:12]}  {how}\n  {one.path}"


def _json(one: Extracted) -> dict[str, object]:
    return {
        "path": str(one.path),
        "key": one.spec.key,
        "digest": one.digest,
        "spec": one.spec.to_json(),
        "rows": one.rows,
        "unreadable": one.unreadable,
        "computed": one.computed,
        "seconds": round(one.seconds, 3),
    }
