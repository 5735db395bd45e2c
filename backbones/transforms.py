"""Preprocessing as data: a PIL image in, the network's uint8 input out, pixels as torchvision's."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import numpy as np
from PIL import Image

from featcache.digest import Json
from featcache.errors import OptionError, ShapeError, did_you_mean
from featcache.spec import TransformSpec

if TYPE_CHECKING:
    import torch

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_FIXED = ("engine", "decode")
"""Fields that name code, not a choice: an override cannot change them."""


class PilTransform:
    """Resize and centre-crop with PIL; equal, pixel for pixel, to torchvision's and timm's."""

    def __init__(self, spec: TransformSpec) -> None:
        """Check that `spec` can be carried out and that it gives every image one shape.

        Raises:
            OptionError: If a field is out of range or two fields contradict each other.
        """
        _check(spec)
        self._spec = spec

    @property
    def spec(self) -> Mapping[str, Json]:
        """The transform as plain JSON; part of the key."""
        return self._spec.to_json()

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape (3, H, W) of every result."""
        if self._spec.crop is not None:
            return 3, self._spec.crop, self._spec.crop
        return 3, *_pair(self._spec.resize)

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Return the input, shape (3, H, W), uint8.

        Raises:
            ShapeError: If the image is not RGB.
        """
        import torch

        if image.mode != "RGB":
            raise ShapeError(
                f"An image must be decoded to mode 'RGB'; got {image.mode!r}. "
                "Convert it first: image.convert('RGB')."
            )
        image = image.resize(self._resized(image.size), _FILTERS[self._spec.interpolation])
        if self._spec.crop is not None:
            image = _centre_crop(image, self._spec.crop)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PilTransform) and other._spec == self._spec

    def __hash__(self) -> int:
        return hash(self._spec)

    def _resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the (width, height) to which an image of `size` is scaled."""
        if self._spec.resize_mode == "none":
            return size
        if self._spec.resize_mode == "squash":
            height, width = _pair(self._spec.resize)
            return width, height
        short = _pair(self._spec.resize)[0]
        width, height = size
        if width <= height:
            return short, int(short * height / width)  # the fraction is cut off, not rounded
        return int(short * width / height), short


def with_overrides(spec: TransformSpec, overrides: Mapping[str, Json]) -> TransformSpec:
    """Return `spec` with some fields replaced, as a protocol asks for it.

    Args:
        spec: The backbone's own transform.
        overrides: Field name to value, plain JSON; an empty mapping changes nothing.

    Raises:
        OptionError: If a field is unknown or its value out of range.
    """
    allowed = [item.name for item in dataclasses.fields(spec) if item.name not in _FIXED]
    for name in overrides:
        if name not in allowed:
            raise OptionError(
                f"A transform option must be one of {', '.join(allowed)}; got {name!r}. "
                f"{did_you_mean(name, allowed)}Correct the protocol."
            )
    values: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in overrides.items()
    }
    changed = dataclasses.replace(spec, **values)
    _check(changed)
    return changed


def normalise(
    images: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]
) -> torch.Tensor:
    """Scale to [0, 1], subtract the mean and divide by the deviation, per channel.

    Bit for bit what torchvision's `ToTensor` and `Normalize` give.

    Args:
        images: Shape (B, 3, H, W), uint8, any device.
        mean: One value per channel, of pixels in [0, 1].
        std: One value per channel; not zero.

    Returns:
        Shape (B, 3, H, W), float32, on the device of `images`.
    """
    import torch

    def per_channel(values: tuple[float, ...]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32, device=images.device)[:, None, None]

    return images.to(torch.float32).div_(255).sub_(per_channel(mean)).div_(per_channel(std))


def _centre_crop(image: Image.Image, side: int) -> Image.Image:
    """Cut the middle square; where the image is smaller, black is added (the odd row after)."""
    width, height = image.size
    if width < side or height < side:
        # Padding floors the half and cropping rounds it to even, as torchvision does.
        padded = Image.new("RGB", (max(width, side), max(height, side)))
        padded.paste(image, (max(side - width, 0) // 2, max(side - height, 0) // 2))
        image, (width, height) = padded, padded.size
    left, top = round((width - side) / 2), round((height - side) / 2)
    return image.crop((left, top, left + side, top + side))


def _pair(resize: int | tuple[int, int]) -> tuple[int, int]:
    return (resize, resize) if isinstance(resize, int) else resize


def _check(spec: TransformSpec) -> None:
    hints = get_type_hints(TransformSpec)
    for name in ("resize_mode", "interpolation"):
        allowed = get_args(hints[name])
        if (got := getattr(spec, name)) not in allowed:
            raise OptionError(
                f"`{name}` must be one of {', '.join(allowed)}; got {got!r}. Choose one of them."
            )
    if spec.engine != "pil":
        raise OptionError(f"`engine` must be 'pil'; got {spec.engine!r}. Leave it out.")
    if not spec.antialias and spec.interpolation != "nearest":
        raise OptionError(
            "PIL always antialiases when it shrinks; got `antialias` False with "
            f"{spec.interpolation!r}. Set it to True."
        )
    _check_sizes(spec)
    for name in ("mean", "std"):
        values = getattr(spec, name)
        if len(values) != 3 or not all(isinstance(v, int | float) for v in values):
            raise OptionError(f"`{name}` must be three numbers; got {values!r}. Give one each.")
    if 0 in spec.std:
        raise OptionError(f"`std` must not be zero; got {spec.std!r}. Use 1 for no scaling.")


def _check_sizes(spec: TransformSpec) -> None:
    sides = spec.resize if isinstance(spec.resize, tuple) else (spec.resize,)
    for value in (*sides, *(() if spec.crop is None else (spec.crop,))):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise OptionError(
                f"`resize` and `crop` must be pixels >= 1; got resize {spec.resize!r} and crop "
                f"{spec.crop!r}. Give whole numbers."
            )
    if len(sides) > 2 or (len(sides) == 2 and spec.resize_mode != "squash"):
        raise OptionError(
            f"`resize` must be one side, or (height, width) with mode 'squash'; got "
            f"{spec.resize!r} with mode {spec.resize_mode!r}. Give one number."
        )
    if spec.crop is None and spec.resize_mode != "squash":
        raise OptionError(
            f"`crop` must be set with resize mode {spec.resize_mode!r}, or images differ in "
            "shape; got None. Give a crop, or use mode 'squash'."
        )
    if spec.crop is not None and spec.resize_mode != "none" and spec.crop > min(sides):
        raise OptionError(
            f"`crop` must not exceed `resize`, or black borders are added; got crop {spec.crop} "
            f"and resize {spec.resize!r}. Raise the resize too."
        )
