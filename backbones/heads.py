"""The classifier that a network brings along, as a head on its pooled features."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from featcache.backbone import Backbone
from featcache.backbones.catalog import BACKBONES
from featcache.backbones.torch_backbone import TorchBackbone
from featcache.errors import BackboneError
from featcache.head_store import StoredHead

TAP = "pooled"
"""What a classifier reads."""
_AGREEMENT = 1e-4
"""Largest difference from the network's logits, relative to the largest: float32 in two orders of
summation stays below 1e-5, another layer in between does not."""


def native_head(backbone: Backbone) -> StoredHead:
    """Return the network's own classifier, a head on the tap `pooled`.

    Two images of noise are run through the network: `pooled` times the weights must give its
    logits, so that no layer between the two is overlooked.

    Args:
        backbone: A timm network that was loaded with trained class weights, in float32.

    Raises:
        BackboneError: If it has no classifier, or if that is not one linear layer on `pooled`.
    """
    name = backbone.identity.name
    if "projection" in backbone.taps:
        _refuse(name, "its last layer projects into a space of text", "featcache head text")
    if not isinstance(backbone, TorchBackbone) or not {TAP, "logits"} <= backbone.taps.keys():
        _refuse(name, "it was loaded without trained class weights")
    weights, bias = _linear(name, backbone.module)
    _check_agreement(backbone, weights, bias)
    identity = backbone.identity
    is_published = "pretrained" in identity.options or identity.name in BACKBONES
    names, descriptions, origin = _class_names(len(bias), is_published=is_published)
    return StoredHead(
        kind="native",
        weights=weights,
        bias=bias,
        class_names=names,
        descriptions=descriptions,
        backbone=backbone.identity,
        tap=TAP,
        origin={"classes": origin},
    )


def _linear(name: str, module: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:  # noqa: ANN401
    """Return weights (D, C) and bias (C,) of the only layer of the classifier."""
    layer: Any = module.get_classifier() if hasattr(module, "get_classifier") else None
    is_pointwise = isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1)
    if not (isinstance(layer, nn.Linear) or (is_pointwise and layer.groups == 1)):
        what = type(layer).__name__ if layer is not None else "nothing"
        _refuse(name, f"timm gives {what} as its classifier, not one linear layer")
    weights = layer.weight.detach().flatten(1).T.float().cpu()  # a 1 x 1 convolution: (C, D, 1, 1)
    bias = torch.zeros(weights.shape[1]) if layer.bias is None else layer.bias.detach()
    return weights.contiguous().numpy(), bias.float().cpu().numpy()


def _check_agreement(
    backbone: TorchBackbone, weights: NDArray[np.float32], bias: NDArray[np.float32]
) -> None:
    name = backbone.identity.name
    generator = torch.Generator().manual_seed(0)
    shape = (2, *backbone.transform.input_shape)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    found = {tap: value.numpy() for tap, value in backbone.embed(images, [TAP, "logits"]).items()}
    if found[TAP].shape[1:] != weights.shape[:1] or found["logits"].shape[1:] != bias.shape:
        shapes = f"{found[TAP].shape[1:]} to {found['logits'].shape[1:]}"
        _refuse(name, f"its classifier maps {weights.shape}, its taps {shapes}")
    made = found[TAP].astype(np.float64) @ weights + bias
    largest = np.abs(found["logits"]).max()
    if not np.abs(made - found["logits"]).max() <= _AGREEMENT * largest:
        _refuse(name, "something else stands between its pooled features and its logits")


def _class_names(count: int, *, is_published: bool) -> tuple[tuple[str, ...], tuple[str, ...], str]:
    """Return names, descriptions and the name of the label set of that size.

    ImageNet's are WordNet ids, as its folders are called, described by WordNet's words. Weights
    from somebody's own file may have any thousand classes, so theirs are numbered.
    """
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": count}) if is_published else None
    info = ImageNetInfo(subset) if subset else None
    if info is None or info.num_classes() != count or len(set(info.label_names())) != count:
        return tuple(f"class {c}" for c in range(count)), (), "unknown"
    return tuple(info.label_names()), tuple(info.label_descriptions()), str(subset)


def _refuse(name: str, why: str, advice: str = "featcache probe --task linear") -> NoReturn:
    raise BackboneError(
        f"A native head must be one linear layer on the tap {TAP!r}; {name!r} has none: {why}. "
        f"Make another head: {advice}"
    )
