"""Image towers of open_clip: `open_clip:ARCH[.PRETRAINED]`, `random:open_clip:ARCH`.

Taps: `projection` is what `encode_image` gives, before its norm is taken out; `preprojection` what
the last linear layer reads, in towers where there is such a layer.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from featcache.backbones.checkpoint import read_checkpoint
from featcache.backbones.request import Request
from featcache.backbones.timm_config import hub_errors
from featcache.backbones.timm_source import RANDOM_SEED, own_random_state
from featcache.backbones.torch_backbone import Tap, TorchBackbone, Trunk
from featcache.backbones.transforms import PilTransform, with_overrides
from featcache.backbones.weights import weights_digest
from featcache.digest import Json
from featcache.errors import (
    BackboneError,
    MissingDependencyError,
    OptionError,
    UnknownNameError,
    did_you_mean,
)
from featcache.spec import BackboneIdentity, TransformSpec

SCHEME = "open_clip"
EXTRA = "open-clip"
_MODES = {"shortest": "shorter", "squash": "squash"}


@dataclass(frozen=True, slots=True)
class OpenClipName:
    """What `open_clip:ARCH[.PRETRAINED]` or `random:open_clip:ARCH` means."""

    architecture: str
    pretrained: str
    is_random: bool

    @classmethod
    def parse(cls, source: str) -> OpenClipName:
        """Take a source apart; whether open_clip knows its parts is checked when it is loaded."""
        scheme, _, rest = source.partition(":")
        is_random = scheme == "random"
        if is_random:
            rest = rest.partition(":")[2]
        architecture, _, pretrained = rest.partition(".")  # no name of open_clip's has a dot
        return cls(architecture, pretrained, is_random)


@dataclass(frozen=True, slots=True)
class Model:
    """A whole model, both towers, with what is to be known about its weights."""

    module: Any
    name: OpenClipName
    options: Mapping[str, Json]


def open_backbone(request: Request) -> TorchBackbone:
    """Build the image tower that `request.source` names; the text tower is let go.

    Raises:
        MissingDependencyError: If open_clip is not installed.
        UnknownNameError: If open_clip has no such architecture or weights.
        BackboneError: If the weights cannot be had, or its preprocessing cannot be expressed.
        CheckpointError: If the checkpoint does not fit.
        OptionError: If an option contradicts the source.
    """
    return image_tower(request, load_model(request))


def image_tower(request: Request, model: Model) -> TorchBackbone:
    """Return the image tower of a loaded model as a backbone; it is changed in place.

    Raises:
        BackboneError: If its preprocessing cannot be expressed.
        OptionError: If the transform asked for is of another size.
    """
    visual = model.module.visual.float().eval()
    transform = _transform(request, model.module)
    digest = weights_digest(visual)
    tower, trunk, taps = _parts(visual)
    return TorchBackbone(
        tower,
        identity=BackboneIdentity(
            name=request.name,
            architecture=f"open_clip/{model.name.architecture}",
            weights=digest,
            options=model.options,
        ),
        transform=transform,
        trunk=trunk,
        taps=taps,
        default_tap=str(request.facts.get("default_tap", "projection")),
        compute=request.compute,
    )


def load_model(request: Request) -> Model:
    """Load both towers with the weights that were asked for, in float32 on the CPU.

    Raises:
        MissingDependencyError: If open_clip is not installed.
        UnknownNameError: If open_clip has no such architecture or weights.
        BackboneError: If the weights cannot be had.
        CheckpointError: If the checkpoint does not fit.
        OptionError: If an option contradicts the source.
    """
    library, name = import_open_clip(request.name), OpenClipName.parse(request.source)
    _check_name(library, request, name)
    if name.is_random:
        request.refuse_checkpoint("its weights are random")
        return Model(_create(library, name.architecture), name, {"seed": RANDOM_SEED})
    if request.checkpoint is not None:
        module = _create(library, name.architecture)
        checkpoint = read_checkpoint(request.checkpoint, request.renamer or "none", module)
        return Model(module, name, checkpoint.load_into(module).to_json())
    with hub_errors(request.name, f"{SCHEME}:{name.architecture}"):
        module, needs_quick = _pretrained(library, name)
    options: dict[str, Json] = {"pretrained": name.pretrained}
    return Model(module, name, options | ({"quick_gelu": True} if needs_quick else {}))


def import_open_clip(name: str) -> Any:  # noqa: ANN401  the library is untyped
    """Return the library.

    Raises:
        MissingDependencyError: If it is not installed; `name` is what needs it.
    """
    try:
        import open_clip
    except ImportError as error:
        raise MissingDependencyError(f"Backbone {name!r}", EXTRA) from error
    return open_clip


def _check_name(library: Any, request: Request, name: OpenClipName) -> None:  # noqa: ANN401
    known = library.list_models()
    if name.architecture not in known:
        raise UnknownNameError(
            f"open_clip must have the architecture; it does not have {name.architecture!r}. "
            f"{did_you_mean(name.architecture, known, most=3)}"
            'List them with: python -c "import open_clip; print(*open_clip.list_models())"'
        )
    tags = library.list_pretrained_tags_by_model(name.architecture)
    if name.is_random and name.pretrained:
        raise OptionError(
            f"Random weights have no tag; got {name.pretrained!r}. Leave it out: "
            f"random:{SCHEME}:{name.architecture}"
        )
    if request.checkpoint is not None and name.pretrained and not request.facts:
        raise OptionError(
            f"Weights come from a tag or from a file, not both; got tag {name.pretrained!r} and "
            f"{str(request.checkpoint)!r}. Leave one out."
        )
    if not name.is_random and request.checkpoint is None and name.pretrained not in tags:
        listed = ", ".join(tags) or "none"
        raise UnknownNameError(
            f"open_clip must have the weights; of {name.architecture!r} it has {listed}; got "
            f"{name.pretrained!r}. {did_you_mean(name.pretrained, tags)}Write {SCHEME}:"
            f"{name.architecture}.{tags[0] if tags else 'TAG'}, or give a file with --checkpoint."
        )


def _create(library: Any, architecture: str, **given: Any) -> Any:  # noqa: ANN401
    with own_random_state(), _quiet():
        return library.create_model(architecture, pretrained_text=False, **given)


def _pretrained(library: Any, name: OpenClipName) -> tuple[Any, bool]:  # noqa: ANN401
    """Load the weights of a tag, with the activation that they were trained with.

    OpenAI's need QuickGELU, which the plain architecture `ViT-B-32` lacks; open_clip only warns.
    """
    facts = library.get_pretrained_cfg(name.architecture, name.pretrained)
    has_quick = bool(library.get_model_config(name.architecture).get("quick_gelu", False))
    needs_quick = bool(facts.get("quick_gelu", False))
    if has_quick and not needs_quick:
        plain = name.architecture.replace("-quickgelu", "")
        raise BackboneError(
            f"Weights {name.pretrained!r} must be run with plain GELU; {name.architecture!r} has "
            f"QuickGELU. Write {SCHEME}:{plain}.{name.pretrained}"
        )
    given = {"pretrained": name.pretrained, "force_quick_gelu": needs_quick}
    return _create(library, name.architecture, **given), needs_quick


def _transform(request: Request, module: Any) -> PilTransform:  # noqa: ANN401
    """Return open_clip's evaluation transform, with the fields that were asked for."""
    native = native_transform(request.name, module.visual.preprocess_cfg)
    spec = native
    for overrides in (request.facts.get("transform", {}), request.transform_overrides):
        spec = with_overrides(spec, overrides)
    transform, size = PilTransform(spec), PilTransform(native).input_shape
    if transform.input_shape != size:
        raise OptionError(
            f"{request.name!r} must get images of {size[1]} x {size[2]} pixels; its transform was "
            f"asked for {transform.input_shape[1]} x {transform.input_shape[2]}. Choose another "
            "protocol, or an architecture of that size."
        )
    return transform


def native_transform(name: str, config: Mapping[str, Any]) -> TransformSpec:
    """Return open_clip's evaluation preprocessing as data.

    Raises:
        BackboneError: If it is not square RGB by crop or squash; `name` is for the message.
    """
    size, mode = config["size"], config.get("resize_mode", "shortest")
    height, width = (size, size) if isinstance(size, int) else size
    if height != width or mode not in _MODES or config.get("mode", "RGB") != "RGB":
        raise BackboneError(
            f"A backbone must take square RGB images, cropped or squashed; {name!r} takes "
            f"{height} x {width} with resize mode {mode!r}. Wrap it in a factory of your own with "
            "a transform: --backbone package.module:factory"
        )
    is_squash = mode == "squash"
    bilinear = config.get("interpolation") == "bilinear"  # 'random' is bicubic in evaluation
    return TransformSpec(
        resize=(height, width) if is_squash else height,
        resize_mode="squash" if is_squash else "shorter",
        crop=None if is_squash else height,
        interpolation="bilinear" if bilinear else "bicubic",
        mean=_three(config["mean"]),
        std=_three(config["std"]),
    )


def _three(values: float | tuple[float, ...]) -> tuple[float, ...]:
    return (float(values),) * 3 if isinstance(values, int | float) else tuple(map(float, values))


class _Projected(nn.Module):
    """A tower without its last matrix, and the matrix."""

    def __init__(self, visual: Any) -> None:  # noqa: ANN401
        super().__init__()
        self.proj = visual.proj
        visual.proj = None
        self.visual = visual


def _parts(visual: Any) -> tuple[nn.Module, Trunk, dict[str, Tap]]:  # noqa: ANN401
    """Return what runs once, and the taps that read it."""
    if isinstance(getattr(visual, "proj", None), nn.Parameter):
        projected = _Projected(visual)
        return projected, _run_visual, {"preprojection": _as_is, "projection": _times_matrix}
    trunk, head = getattr(visual, "trunk", None), getattr(visual, "head", None)
    if isinstance(trunk, nn.Module) and isinstance(head, nn.Sequential):
        if "pool" in dict(head.named_children()):  # the trunk gives a map
            return visual, _run, {"projection": _as_is}
        if list(head.parameters()):
            return visual, _run_trunk, {"preprojection": _as_is, "projection": _run_head}
        if getattr(trunk, "num_classes", 0):  # timm's classifier is the projection
            taps: dict[str, Tap] = {"preprojection": _timm_pooled, "projection": _timm_head}
            return visual, _timm_features, taps
    return visual, _run, {"projection": _as_is}


def _first(output: Any) -> torch.Tensor:  # noqa: ANN401
    """Return the pooled features of a tower that gives its tokens too."""
    pooled: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return pooled


def _run(module: Any, images: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
    return _first(module(images))


def _run_visual(module: Any, images: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
    return _first(module.visual(images))


def _run_trunk(module: Any, images: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
    pooled: torch.Tensor = module.trunk(images)
    return pooled


def _timm_features(module: Any, images: torch.Tensor) -> Any:  # noqa: ANN401
    return module.trunk.forward_features(images)


def _as_is(_module: Any, pooled: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
    return pooled


def _times_matrix(module: Any, pooled: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
    projected: torch.Tensor = pooled @ module.proj
    return projected


def _run_head(module: Any, pooled: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
    projected: torch.Tensor = module.head(pooled)
    return projected


def _timm_pooled(module: Any, features: Any) -> torch.Tensor:  # noqa: ANN401
    pooled: torch.Tensor = module.trunk.forward_head(features, pre_logits=True)
    return pooled


def _timm_head(module: Any, features: Any) -> torch.Tensor:  # noqa: ANN401
    projected: torch.Tensor = module.trunk.forward_head(features)
    return projected


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep open_clip from telling the root logger that weights are random; that is known here."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
