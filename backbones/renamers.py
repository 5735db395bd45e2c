"""Checkpoint keys of other code bases, translated to timm's by a named rule."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from featcache.digest import Json
from featcache.errors import UnknownNameError, did_you_mean

Rename = Callable[[Collection[str], Collection[str]], dict[str, str]]
"""(keys of the file, keys of the model) -> old key to new key; a key left out is dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Renamer:
    """One translation: where the tensors lie in the file, and what they are called."""

    rename: Rename
    wrapper: str | None = None
    """The entry to read where the file holds several models; None: the only obvious one."""
    model_args: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)
    """Architecture to arguments without which timm builds another network of the same shapes."""


def get_renamer(name: str) -> Renamer:
    """Return the renamer called `name`.

    Raises:
        UnknownNameError: If there is none; the message lists them.
    """
    if name not in RENAMERS:
        raise UnknownNameError(
            f"A key renamer must be one of {', '.join(RENAMERS)}; got {name!r}. "
            f"{did_you_mean(name, RENAMERS)}Correct --renamer."
        )
    return RENAMERS[name]


def _identity(keys: Collection[str], _target: Collection[str]) -> dict[str, str]:
    return {key: key for key in keys}


def _strip_module(keys: Collection[str], _target: Collection[str]) -> dict[str, str]:
    return {key: key.removeprefix("module.") for key in keys}


def _mae(keys: Collection[str], _target: Collection[str]) -> dict[str, str]:
    """Keep the encoder; the decoder and its mask token belong to pretraining."""
    return {key: key for key in keys if key != "mask_token" and not key.startswith("decoder_")}


def _dino(keys: Collection[str], _target: Collection[str]) -> dict[str, str]:
    """Keep the backbone of a full checkpoint, or a file that is the backbone already."""
    stripped = {key: key.removeprefix("module.") for key in keys}
    if any(key.startswith("backbone.") for key in stripped.values()):
        return {
            old: key.removeprefix("backbone.")
            for old, key in stripped.items()
            if key.startswith("backbone.")
        }
    return {
        old: key
        for old, key in stripped.items()
        if key != "mask_token" and not key.startswith("head.")
    }


def _moco_v3(keys: Collection[str], _target: Collection[str]) -> dict[str, str]:
    """Keep the base encoder without its projector, as MoCo v3's own linear evaluation does."""
    prefix = "module.base_encoder."
    return {
        key: key.removeprefix(prefix)
        for key in keys
        if key.startswith(prefix) and not key.startswith((f"{prefix}head.", f"{prefix}fc."))
    }


_MIDAS = "pretrained.model."
_MIDAS_BUFFERS = ("relative_position_index", "relative_coords_table", "attn_mask")


def _midas(keys: Collection[str], _target: Collection[str]) -> dict[str, str]:
    """Keep the SwinV2 encoder of a depth network; buffers are computed, the decoder goes.

    So does the classifier, which depth training left as it was behind an encoder that changed.
    MiDaS was built with an older timm, which has the layer between two stages at the end of the
    first; timm now has it at the start of the second.
    """
    renamed = {}
    for key in keys:
        name = key.removeprefix(_MIDAS)
        if name == key or name.startswith("head.") or name.endswith(_MIDAS_BUFFERS):
            continue
        if found := re.fullmatch(r"layers\.(\d+)\.downsample\.(.+)", name):
            name = f"layers.{int(found[1]) + 1}.downsample.{found[2]}"
        renamed[key] = name
    return renamed


_CONVNEXT_BLOCK = re.compile(r"stages\.(\d+)\.(\d+)\.(\w+)(\.\w+)?")
_CONVNEXT_PARTS = {"dwconv": "conv_dw", "pwconv1": "mlp.fc1", "pwconv2": "mlp.fc2"}


def _vicregl_convnext(keys: Collection[str], _target: Collection[str]) -> dict[str, str]:
    """Translate the names of the ConvNeXt authors; the final norm comes before the pooling."""
    renamed = {}
    for key in keys:
        if found := re.fullmatch(r"downsample_layers\.(\d+)\.(\d+)\.(\w+)", key):
            stage = "stem" if found[1] == "0" else f"stages.{found[1]}.downsample"
            renamed[key] = f"{stage}.{found[2]}.{found[3]}"
        elif found := _CONVNEXT_BLOCK.fullmatch(key):
            part = _CONVNEXT_PARTS.get(found[3], found[3])
            renamed[key] = f"stages.{found[1]}.blocks.{found[2]}.{part}{found[4] or ''}"
        else:
            renamed[key] = re.sub(r"^norm\.", "norm_pre.", key)
    return renamed


_LITE_TOP = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
_LITE_SEPARABLE = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
_LITE_INVERTED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_LITE_BLOCK = re.compile(r"_blocks\.(\d+)\.(\w+)\.(\w+)")


def _efficientnet_lite(keys: Collection[str], target: Collection[str]) -> dict[str, str]:
    """Translate `_blocks.7._expand_conv.weight` to `blocks.3.1.conv_pw.weight`.

    The file numbers its blocks through; timm numbers stages and blocks within them. The stage
    lengths are read off the model's keys.
    """
    places = sorted(
        {
            (int(found[1]), int(found[2]))
            for key in target
            if (found := re.match(r"blocks\.(\d+)\.(\d+)\.", key))
        }
    )
    expanding = {found[1] for key in keys if (found := re.match(r"_blocks\.(\d+)\._expand", key))}
    top = _LITE_TOP | {"_fc": "classifier"}
    renamed = {}
    for key in keys:
        if (found := _LITE_BLOCK.fullmatch(key)) and int(found[1]) < len(places):
            stage, block = places[int(found[1])]
            parts = _LITE_INVERTED if found[1] in expanding else _LITE_SEPARABLE
            layer = parts.get(found[2], found[2])
            renamed[key] = f"blocks.{stage}.{block}.{layer}.{found[3]}"
        else:
            layer, _, rest = key.partition(".")
            renamed[key] = f"{top.get(layer, layer)}.{rest}"
    return renamed


RENAMERS: Mapping[str, Renamer] = {
    "none": Renamer(rename=_identity),
    "strip-module": Renamer(rename=_strip_module),
    "mae": Renamer(rename=_mae),
    "dino": Renamer(rename=_dino, wrapper="teacher"),
    "moco-v3": Renamer(
        rename=_moco_v3,
        # MoCo v3's ViT-S has 12 heads of 32; timm's has 6 of 64, with the same tensor shapes.
        model_args={"vit_small_patch16_224": {"num_heads": 12}},
    ),
    "midas": Renamer(rename=_midas),
    "vicregl-convnext": Renamer(
        rename=_vicregl_convnext,
        # no layer scale, and features are normed place by place before they are averaged
        model_args={
            "convnext_xlarge": {"ls_init_value": None, "head_norm_first": True},
            "convnext_base": {"ls_init_value": None, "head_norm_first": True},
            "convnext_small": {"ls_init_value": None, "head_norm_first": True},
        },
    ),
    "efficientnet-lite": Renamer(rename=_efficientnet_lite),
}
