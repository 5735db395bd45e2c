"""Taps that keep where things are: maps of a network's stages, and patch tokens on their grid.

A stage's map is called by its stride in pixels: `map4` has a value every four pixels, `map32` every
thirty-two. A network of tokens has one grid, called `patches`. All are (channels, rows, columns),
whatever order the network computes in, and come out of the same forward pass as other taps.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

_LEAST_STRIDE = 4  # a stem's map at stride 2 is larger than the image and says little


@dataclass(frozen=True, slots=True)
class StageMap:
    """Where a map comes from."""

    path: str
    """The part of the network whose output it is."""
    channels: int


def stage_maps(module: Any, input_shape: tuple[int, int, int]) -> dict[str, StageMap]:  # noqa: ANN401
    """Return the maps that a network of stages gives, by name, finest first.

    Args:
        module: A timm network; one whose blocks all have one stride has no stages.
        input_shape: (3, H, W) of the images.
    """
    wanted: dict[str, StageMap] = {}
    listed = getattr(module, "feature_info", ())
    for one in getattr(listed, "info", listed):
        if one["reduction"] >= _LEAST_STRIDE:
            wanted[f"map{one['reduction']}"] = StageMap(one["module"], one["num_chs"])
    if len(wanted) < 2:
        return {}
    try:
        empty = without_storage(module)
        images = torch.zeros((2, *input_shape), device="meta")
        with torch.inference_mode(), recorded(empty, wanted) as maps:
            empty.forward_features(images)
    except Exception:  # a network that cannot run so has no maps, but its other taps
        return {}
    return {
        name: one
        for name, one in wanted.items()
        if name in maps and maps[name].ndim == 4 and maps[name].shape[1] == one.channels
    }


@contextmanager
def recorded(
    module: nn.Module, wanted: Mapping[str, StageMap]
) -> Iterator[dict[str, torch.Tensor]]:
    """Fill a dictionary with the maps that pass by in a forward pass inside the block."""
    maps: dict[str, torch.Tensor] = {}

    def keeper(name: str, one: StageMap) -> Callable[..., None]:
        def keep(_part: nn.Module, _inputs: object, output: Any) -> None:  # noqa: ANN401
            maps[name] = _channels_first(module, one, output)

        return keep

    handles = [
        module.get_submodule(one.path).register_forward_hook(keeper(name, one))
        for name, one in wanted.items()
    ]
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()


def _channels_first(module: Any, one: StageMap, output: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
    """Return a stage's output as (B, channels, rows, columns)."""
    if output.ndim == 3 and hasattr(module, "reroll"):  # Hiera keeps its tokens in another order
        output = module.reroll(output, int(one.path.rpartition(".")[2])).permute(0, 3, 1, 2)
    elif output.ndim == 4 and getattr(module, "output_fmt", "NCHW") == "NHWC":
        output = output.permute(0, 3, 1, 2)
    return output


def has_patch_grid(module: Any) -> bool:  # noqa: ANN401
    """Tell whether a network gives tokens that lie on one grid."""
    listed = getattr(module, "feature_info", ())
    strides = {one["reduction"] for one in getattr(listed, "info", listed)}
    grid = getattr(getattr(module, "patch_embed", None), "grid_size", None)
    return len(strides) == 1 and grid is not None and hasattr(module, "num_prefix_tokens")


def patches(module: Any, tokens: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
    """Lay tokens, shape (B, T, D), on their grid: (B, D, rows, columns); prefix tokens go."""
    rows, columns = module.patch_embed.grid_size
    kept = tokens[:, int(module.num_prefix_tokens) :]
    return kept.transpose(1, 2).reshape(len(kept), -1, rows, columns)


def without_storage(module: nn.Module) -> Any:  # noqa: ANN401  what a copy has, we do not know
    """Copy a module onto the 'meta' device: all of its structure, none of its memory."""
    memo: dict[int, Any] = {
        id(item): nn.Parameter(item.to("meta"), requires_grad=False) for item in module.parameters()
    }
    memo |= {id(item): item.to("meta") for item in module.buffers()}
    return copy.deepcopy(module, memo)
