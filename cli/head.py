"""`featcache head …`: make stored classifiers for the features of a backbone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from featcache.cli.console import CacheOption, DebugOption, JsonOption, handled, print_json

if TYPE_CHECKING:
    from featcache.head_store import StoredHead

app = typer.Typer(help="Make stored classifiers for cached features.", no_args_is_help=True)

CheckpointOption = Annotated[
    Path | None, typer.Option(help="Weights (.safetensors, .pth) for the architecture.")
]
RenamerOption = Annotated[str | None, typer.Option(help="How to rename the checkpoint's keys.")]


@app.command("native")
@handled
def native(
    backbone: Annotated[str, typer.Option(help="Backbone as given to extract.")],
    checkpoint: CheckpointOption = None,
    renamer: RenamerOption = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Keep a network's own classifier, to be used on its cached features.

    Example: featcache head native --backbone efficientnet_lite0
    """
    from featcache.verbs.extract import BackboneRequest
    from featcache.verbs.heads import native_head

    request = BackboneRequest(name=backbone, checkpoint=checkpoint, renamer=renamer)
    _show(native_head(request, cache=cache), cache, as_json)


@app.command("text")
@handled
def text(
    backbone: Annotated[str, typer.Option(help="open_clip:ARCH.TAG, as given to extract.")],
    dataset: Annotated[
        str | None, typer.Option(help="Cached dataset whose class names are used.")
    ] = None,
    classes: Annotated[
        Path | None, typer.Option(help="File with a class per line: name, or name TAB prompt name.")
    ] = None,
    template: Annotated[
        list[str] | None, typer.Option(help="Prompt with a {}; repeatable (default: D's own).")
    ] = None,
    templates: Annotated[
        str | None, typer.Option(help="File with a prompt per line, or a list: openai7.")
    ] = None,
    checkpoint: CheckpointOption = None,
    renamer: RenamerOption = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Run class names through the text tower of a model: a zero-shot classifier.

    Example: featcache head text --backbone open_clip:ViT-B-32.laion2b_s34b_b79k --dataset digits
    """
    from featcache.verbs.extract import BackboneRequest
    from featcache.verbs.heads import chosen_templates, text_head

    head = text_head(
        BackboneRequest(name=backbone, checkpoint=checkpoint, renamer=renamer),
        dataset=dataset,
        classes=classes,
        templates=chosen_templates(template or (), templates),
        cache=cache,
    )
    _show(head, cache, as_json)


def _show(head: StoredHead, cache: Path | None, as_json: bool) -> None:
    from featcache.head_store import HeadStore
    from featcache.store.cache import Cache

    path = HeadStore(Cache(cache).root).path_of(head)
    dim, n_classes = head.weights.shape
    if as_json:
        print_json(
            {
                "key": head.key,
                "kind": head.kind,
                "backbone": head.backbone.name,
                "tap": head.tap,
                "dimensions": dim,
                "classes": n_classes,
                "scale": head.scale,
                "origin": dict(head.origin),
                "path": str(path),
            }
        )
        return
    typer.echo(
        f"{head.kind} head {head.key[:12]}: {head.backbone.name} {head.tap}, {dim} dimensions, "
        f"{n_classes} classes\n  {path}"
    )
