"""What timm says of an architecture and tag: does it exist, its preprocessing, its head."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import timm
import torch
from timm.data import resolve_data_config

from featcache.backbones.request import Request
from featcache.backbones.transforms import PilTransform, with_overrides
from featcache.digest import Json
from featcache.errors import BackboneError, UnknownNameError, did_you_mean
from featcache.spec import TransformSpec

CLASS_COUNTS = frozenset({1000, 1001, 11221, 11821, 21841, 21842, 21843})
"""Outputs of ImageNet-1k, -12k, -21k heads: never the width of a CLIP projection."""

_CLIP_TOWERS = ("clip", "pe_core")
"""In the name of every timm network whose head is an image-text projection."""


def config_of(name: str) -> dict[str, Any]:
    """Return timm's data on an architecture and tag.

    Raises:
        UnknownNameError: If timm does not know them; the message gives the nearest.
    """
    architecture, _, tag = name.partition(".")
    known = timm.is_model(architecture)
    if known and (not tag or name in timm.list_pretrained(f"{architecture}.*")):
        config: dict[str, Any] = timm.get_pretrained_cfg(name).to_dict()
        return config
    pool = timm.list_pretrained(f"{architecture}.*") if known else timm.list_models()
    hint = did_you_mean(name if known else architecture, pool, most=3)
    raise UnknownNameError(
        f"timm must have the model; it does not have {name!r}. {hint}"
        'List them with: python -c "import timm; print(*timm.list_pretrained())"'
    )


def hub_config(name: str) -> dict[str, Any]:
    """Return the data of a model on the hub, `org/name`; downloads its `config.json` only.

    Raises:
        BackboneError: If the hub does not answer and the file is not in its local cache.
    """
    with hub_errors(f"hf-hub:{name}"), torch.device("meta"):
        module = timm.create_model(f"hf-hub:{name}", pretrained=False)
    return dict(module.pretrained_cfg)


def transform_of(
    request: Request, config: Mapping[str, Any]
) -> tuple[PilTransform, dict[str, Json]]:
    """Return the transform, and the arguments that make the network fit its size.

    timm's own preprocessing, then the registry row's fields, then those asked for. A network
    of fixed size is built for another crop by `img_size`; timm then resamples its position
    embedding when it loads the weights.

    Raises:
        OptionError: If a field is unknown or cannot be carried out.
        BackboneError: If the native transform cannot be expressed.
    """
    spec = native_transform(request.name, config)
    native = spec.crop
    for overrides in (request.facts.get("transform", {}), request.transform_overrides):
        spec = with_overrides(spec, overrides)
    transform = PilTransform(spec)
    _, height, width = transform.input_shape
    if (height, width) == (native, native) or not config.get("fixed_input_size"):
        return transform, {}
    return transform, {"img_size": height if height == width else [height, width]}


def native_transform(name: str, config: Mapping[str, Any]) -> TransformSpec:
    """Return timm's evaluation transform of an architecture and tag, as data.

    Raises:
        BackboneError: If it is not square RGB by crop or squash; `name` is for the message.
    """
    data = resolve_data_config(pretrained_cfg=dict(config))
    channels, height, width = data["input_size"]
    if channels != 3 or height != width or data["crop_mode"] == "border":
        raise BackboneError(
            f"A backbone must take square RGB images, cropped or squashed; {name!r} takes "
            f"{data['input_size']} with crop mode {data['crop_mode']!r}. Wrap it in a factory of "
            "your own with a transform: --backbone package.module:factory"
        )
    # floor of a float quotient, as timm's own evaluation transform does
    scaled = math.floor(height / data["crop_pct"])
    squash = data["crop_mode"] == "squash"
    return TransformSpec(
        resize=(scaled, scaled) if squash else scaled,
        resize_mode="squash" if squash else "shorter",
        crop=height,
        interpolation=data["interpolation"],
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
    )


def is_clip(name: str, config: Mapping[str, Any]) -> bool:
    """Tell whether the head is an image-text projection instead of a classifier.

    A CLIP tower fine-tuned on ImageNet has a classifier, which its width gives away.
    """
    classes = config.get("num_classes") or 0
    is_tower = any(part in name for part in _CLIP_TOWERS)
    return is_tower and classes > 0 and classes not in CLASS_COUNTS


@contextmanager
def hub_errors(name: str, architecture: str = "timm:ARCH") -> Iterator[None]:
    """Turn whatever timm and the hub raise into one message with a way out.

    Args:
        name: What was asked for.
        architecture: What to give a file of weights to.

    Raises:
        BackboneError: For every exception of the block.
    """
    try:
        yield
    except BackboneError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or ["no message"])[0]
        raise BackboneError(
            f"The weights of {name!r} must be downloaded once from the hub (or be in its local "
            f"cache); got {type(error).__name__}: {reason[:200]}. Check the network, or give "
            f"a file: --backbone {architecture} --checkpoint FILE"
        ) from error


def tagged(config: Mapping[str, Any]) -> str:
    """Return `architecture.tag`, or the architecture where there is no tag."""
    architecture, tag = config["architecture"], config.get("tag")
    return f"{architecture}.{tag}" if tag else str(architecture)


def classifier_names(classifier: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """Return the names of the classifier's layers; two in distilled networks."""
    if classifier is None:
        return ()
    return (classifier,) if isinstance(classifier, str) else tuple(classifier)
