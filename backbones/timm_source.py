"""Networks from timm: `timm:ARCH.TAG`, `hf-hub:org/name`, `random:ARCH`, or a file's weights.

The classifier is kept exactly when a tap reads it: as `projection` in a CLIP tower, as `logits`
where trained class weights were loaded. Otherwise it is removed, so that neither a random head
nor its digest can end up in a feature set.

Taps, all of one forward pass: `pooled` is what the classifier sees, `cls` the class token after the
final norm, `preprojection` and `projection` the two sides of a CLIP tower's head, `logits` its
classes. Networks of blocks with a class token add `cls4`, the class tokens of the last four blocks,
each after the final norm, oldest first; `mean_patch`, the mean of the patch tokens after the final
norm; and `cls4_mean`, both, as DINOv2's linear evaluation reads them. Maps of stages and of patches
are those of `dense_taps`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from torch import nn

from featcache.backbones.checkpoint import read_checkpoint
from featcache.backbones.dense_taps import has_patch_grid, patches, stage_maps
from featcache.backbones.renamers import get_renamer
from featcache.backbones.request import Request
from featcache.backbones.timm_config import (
    classifier_names,
    config_of,
    hub_config,
    hub_errors,
    is_clip,
    tagged,
    transform_of,
)
from featcache.backbones.torch_backbone import Tap, TorchBackbone
from featcache.backbones.transforms import PilTransform
from featcache.backbones.weights import weights_digest
from featcache.digest import Json
from featcache.errors import BackboneError
from featcache.spec import BackboneIdentity

RANDOM_SEED = 0
"""Seed of `random:` networks; a new value would need a new scheme name."""

_N_BLOCKS = 4  # whose class tokens `cls4` has: dinov2 eval/linear.py


def open_backbone(request: Request) -> TorchBackbone:
    """Build the network that `request.source` names.

    Raises:
        UnknownNameError: If timm has no such architecture or tag.
        BackboneError: If its weights cannot be had, or it cannot take the transform.
        CheckpointError: If the checkpoint does not fit.
        OptionError: If an option contradicts the source.
    """
    scheme, _, name = request.source.partition(":")
    if scheme == "random":
        request.refuse_checkpoint("its weights are random")
    if scheme == "hf-hub":
        request.refuse_checkpoint("its weights come from the hub")
    if request.checkpoint is not None:
        return build_from_file(request, name, request.checkpoint, request.renamer or "none")
    config = hub_config(name) if scheme == "hf-hub" else config_of(name)
    transform, arguments = transform_of(request, config)
    if scheme == "random":
        rules = get_renamer(request.facts.get("renamer", "none")).model_args
        arguments |= rules.get(name.partition(".")[0], {})
        module = _random(name, arguments, keep_head=is_clip(name, config))
        options: dict[str, Json] = {"seed": RANDOM_SEED}
    else:
        module = _pretrained(request.source if scheme == "hf-hub" else name, arguments, config)
        options = {"pretrained": tagged(config) if scheme == "timm" else name}
    head = _head_tap(name, config, module)
    return _assemble(request, module, transform, head, options | arguments)


def build_from_file(request: Request, name: str, path: Path, renamer: str) -> TorchBackbone:
    """Build architecture `name` with the weights of a file.

    A classifier in the file is kept; if the file has none, or another head such as a
    projector, the architecture's is removed and there is no `logits` tap.

    Raises:
        CheckpointError: If the file cannot be read or does not fit.
        UnknownNameError: If timm has no such architecture, or there is no such renamer.
        OptionError: If the transform asked for cannot be carried out.
    """
    config = config_of(name)
    transform, arguments = transform_of(request, config)
    arguments |= get_renamer(renamer).model_args.get(name.partition(".")[0], {})
    module = _create(name, arguments)
    checkpoint = read_checkpoint(path, renamer, module)
    classifiers = classifier_names(config.get("classifier"))
    weight = checkpoint.tensors.get(f"{classifiers[0]}.weight") if classifiers else None
    with own_random_state():
        if weight is None:
            module.reset_classifier(0)
        elif len(weight) != module.num_classes:
            module.reset_classifier(len(weight))
    report = checkpoint.load_into(module, droppable=() if weight is not None else classifiers)
    head = None if weight is None else _head_tap(name, config, module)
    return _assemble(request, module, transform, head, arguments | report.to_json())


def _assemble(
    request: Request,
    module: Any,  # noqa: ANN401  timm's extras on nn.Module are untyped
    transform: PilTransform,
    head: str | None,
    options: Mapping[str, Json],
) -> TorchBackbone:
    taps: dict[str, Tap] = {"pooled": _pooled}
    if _has_class_token(module):
        taps["cls"] = _class_token
    if head == "projection":
        taps |= {"preprojection": _pooled, "projection": _head}
    elif head == "logits":
        taps["logits"] = _head
    if has_patch_grid(module):
        taps["patches"] = patches
    has_blocks = _has_class_token(module) and _has_token_blocks(module)
    if has_blocks:
        taps = {**{name: _of_final(tap) for name, tap in taps.items()}, **_BLOCK_TAPS}
    return TorchBackbone(
        module,
        identity=BackboneIdentity(
            name=request.name,
            architecture=str(module.pretrained_cfg.get("architecture", type(module).__name__)),
            weights=weights_digest(module.float()),
            options=options,
        ),
        transform=transform,
        trunk=_block_trunk if has_blocks else _trunk,
        taps=taps,
        maps=stage_maps(module, transform.input_shape),
        default_tap=str(request.facts.get("default_tap", "pooled")),
        compute=request.compute,
    )


def _trunk(module: Any, images: torch.Tensor) -> Any:  # noqa: ANN401
    return module.forward_features(images)


def _pooled(module: Any, features: Any) -> torch.Tensor:  # noqa: ANN401
    """Return what the classifier would see, by the architecture's own pooling."""
    pooled: torch.Tensor = module.forward_head(features, pre_logits=True)
    return pooled


def _class_token(_module: Any, features: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
    return features[:, 0]  # (B, tokens, D) -> (B, D), after the final norm


def _head(module: Any, features: Any) -> torch.Tensor:  # noqa: ANN401
    output: torch.Tensor = module.forward_head(features)
    return output


def _has_class_token(module: Any) -> bool:  # noqa: ANN401
    """Tell whether token 0 is a class token that the final norm has passed.

    Networks that pool by averaging first and norm afterwards leave it raw: no tap for those.
    """
    norm = getattr(module, "norm", None)
    has_token = isinstance(getattr(module, "cls_token", None), torch.Tensor)
    return has_token and norm is not None and not isinstance(norm, nn.Identity)


class _Tokens(NamedTuple):
    """What a forward pass of a network of blocks leaves for its taps."""

    final: torch.Tensor
    """Shape (B, tokens, D), after the final norm."""
    class_tokens: list[torch.Tensor]
    """Of the last blocks, oldest first, each of shape (B, D) and before the norm."""


def _block_trunk(module: Any, images: torch.Tensor) -> _Tokens:  # noqa: ANN401
    """Run the network as it is, and keep the class tokens that pass by."""
    kept: list[torch.Tensor] = []

    def keep(_block: nn.Module, _inputs: object, output: Any) -> None:  # noqa: ANN401
        tokens = output[-1] if isinstance(output, tuple) else output  # TNT: (pixels, patches)
        kept.append(tokens[:, 0].clone())  # a view would hold all tokens of the block

    handles = [block.register_forward_hook(keep) for block in module.blocks[-_N_BLOCKS:]]
    try:
        return _Tokens(_trunk(module, images), kept)
    finally:
        for handle in handles:
            handle.remove()


def _of_final(tap: Tap) -> Tap:
    """Return a tap of the final features as one of `_Tokens`."""
    return lambda module, tokens: tap(module, tokens.final)


def _last_class_tokens(module: Any, tokens: _Tokens) -> torch.Tensor:  # noqa: ANN401
    normed: torch.Tensor = module.norm(torch.stack(tokens.class_tokens, dim=1))  # (B, 4, D)
    return normed.float().flatten(1)


def _mean_patch(module: Any, tokens: _Tokens) -> torch.Tensor:  # noqa: ANN401
    patches = tokens.final[:, int(module.num_prefix_tokens) :]
    return patches.float().mean(dim=1)


def _last_class_tokens_and_mean(module: Any, tokens: _Tokens) -> torch.Tensor:  # noqa: ANN401
    return torch.cat([_last_class_tokens(module, tokens), _mean_patch(module, tokens)], dim=1)


_BLOCK_TAPS: Mapping[str, Tap] = {
    "cls4": _last_class_tokens,
    "mean_patch": _mean_patch,
    "cls4_mean": _last_class_tokens_and_mean,
}


def _has_token_blocks(module: Any) -> bool:  # noqa: ANN401
    """Tell whether the last blocks all pass the class token on, before the patches' tokens.

    timm's `forward_intermediates` can return prefix tokens exactly where they do: in CaiT and XCiT
    the class token joins after the blocks.
    """
    forward = getattr(module, "forward_intermediates", None)
    has_prefix = getattr(module, "num_prefix_tokens", 0) >= 1
    if forward is None or not has_prefix or len(getattr(module, "blocks", ())) < _N_BLOCKS:
        return False
    return "return_prefix_tokens" in inspect.signature(forward).parameters


def _head_tap(name: str, config: Mapping[str, Any], module: Any) -> str | None:  # noqa: ANN401
    if not module.num_classes:
        return None
    is_projection = is_clip(name, {**config, "num_classes": module.num_classes})
    return "projection" if is_projection else "logits"


def _pretrained(name: str, arguments: Mapping[str, Json], config: Mapping[str, Any]) -> Any:  # noqa: ANN401
    if not any(config.get(key) for key in ("hf_hub_id", "url", "file", "state_dict")):
        raise BackboneError(
            f"timm must have weights for a pretrained backbone; it has none for {name!r}. "
            f"Give them with --checkpoint FILE, or take untrained ones: random:{name}"
        )
    with hub_errors(name):
        return _create(name, arguments, pretrained=True)


def _random(name: str, arguments: Mapping[str, Json], *, keep_head: bool) -> Any:  # noqa: ANN401
    """Build an untrained network; of its heads only a CLIP tower's projection stays."""
    return _create(name, dict(arguments) if keep_head else {**arguments, "num_classes": 0})


def _create(name: str, arguments: Mapping[str, Json], *, pretrained: bool = False) -> Any:  # noqa: ANN401
    with own_random_state():
        try:
            if pretrained:
                return timm.create_model(name, pretrained=True, **arguments)
            architecture, _, tag = name.partition(".")
            build = timm.model_entrypoint(architecture)  # create_model would leave out a None
            return build(pretrained_cfg=tag or None, **arguments)
        except (TypeError, AssertionError) as error:
            if not arguments:
                raise
            raise BackboneError(
                f"timm must be able to build {name!r} with {dict(arguments)}; it raised "
                f"{type(error).__name__}: {error}. Keep the native transform size."
            ) from error


@contextmanager
def own_random_state() -> Iterator[None]:
    """Seed torch for initialisation and put the global state back, CUDA's untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(RANDOM_SEED)
        yield
