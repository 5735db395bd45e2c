"""A frozen torch module that follows the `Backbone` contract: several taps, one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import nn

from featcache.backbone import Transform
from featcache.backbones.dense_taps import StageMap, recorded, without_storage
from featcache.backbones.numerics import check_supported, precision
from featcache.backbones.transforms import normalise
from featcache.errors import BackboneError, OptionError, ShapeError, UnknownNameError, did_you_mean
from featcache.spec import BackboneIdentity, ComputeDtype

Trunk = Callable[[nn.Module, torch.Tensor], Any]
"""(module, normalised images) -> whatever the taps read; runs once per batch."""

Tap = Callable[[nn.Module, Any], torch.Tensor]
"""(module, the trunk's output) -> features, batch first. It takes the module as an argument, so
that the same tap runs on a copy without weights."""

_CONVOLUTIONAL = 8
"""Conv2d layers from which a network counts as convolutional; ViTs and Swins have 1 to 4."""


class TorchBackbone:
    """A module in eval mode without gradients, its taps and its compute precision."""

    def __init__(
        self,
        module: nn.Module,
        *,
        identity: BackboneIdentity,
        transform: Transform,
        trunk: Trunk,
        taps: Mapping[str, Tap],
        maps: Mapping[str, StageMap] | None = None,
        default_tap: str = "pooled",
        compute: ComputeDtype = "fp32",
    ) -> None:
        """Freeze `module` and find the shape of every tap.

        The module is changed in place: eval mode, no gradients, float32 weights, and
        channels-last memory if it is convolutional (about twice as fast; the same numbers but
        for the last bits).

        Raises:
            BackboneError: If a tap does not give one tensor with a row per image, or if the
                transform's spec has no `mean` and `std`.
        """
        self._module = module.eval().float()
        for tensor in module.parameters():  # TorchScript has no requires_grad_ of its own
            tensor.requires_grad_(False)
        self._memory_format = _memory_format(module)
        module.to(memory_format=self._memory_format)
        self._identity = identity
        self._transform = transform
        self._mean, self._std = _normalisation(transform)
        self._trunk = trunk
        self._tap_functions = dict(taps)
        self._maps = dict(maps or {})
        self._default_tap = default_tap
        self._compute = compute
        self._device = torch.device("cpu")
        self._shapes = self._measure()

    @property
    def identity(self) -> BackboneIdentity:
        """Name, architecture and digest of the loaded weights; part of the key."""
        return self._identity

    @property
    def transform(self) -> Transform:
        """The preprocessing this backbone was loaded with."""
        return self._transform

    @property
    def taps(self) -> Mapping[str, tuple[int, ...]]:
        """Every tap by name, with the shape of one row's feature."""
        return dict(self._shapes)

    @property
    def default_tap(self) -> str:
        """The tap used when none is asked for."""
        return self._default_tap

    @property
    def module(self) -> nn.Module:
        """The network itself, frozen."""
        return self._module

    def to(self, device: str) -> Self:
        """Move the network to `device` and return self.

        Raises:
            OptionError: If the device does not have the compute precision.
        """
        check_supported(self._compute, torch.device(device).type)
        self._module.to(device)
        self._device = torch.device(device)
        return self

    def embed(self, images: torch.Tensor, taps: Sequence[str]) -> dict[str, torch.Tensor]:
        """Return the features of a batch at each tap, from one forward pass.

        Args:
            images: What `transform` gave, stacked, shape (B, 3, H, W), uint8, on the device.
            taps: Names out of `taps`, at least one.

        Returns:
            Tap name to features, shape (B, *taps[name]), float32, on the device.

        Raises:
            UnknownNameError: If a tap is not offered.
            ShapeError: If `images` is not a uint8 batch of the transform's shape.
            BackboneError: If a part of the network is in training mode, or a tap gives another
                shape than it declared.
        """
        self._check_taps(taps)
        self._check_images(images)
        self._check_frozen()
        with torch.inference_mode(), precision(self._compute, self._device.type):
            features = self._run(self._module, images, taps)
        for tap, value in features.items():
            if tuple(value.shape) != (len(images), *self._shapes[tap]):
                raise BackboneError(
                    f"Tap {tap!r} of {self._identity.name!r} must give shape "
                    f"{(len(images), *self._shapes[tap])}; got {tuple(value.shape)}. "
                    "Its output must not depend on the other images or on their content."
                )
        return features

    def _run(
        self, module: nn.Module, images: torch.Tensor, taps: Sequence[str]
    ) -> dict[str, torch.Tensor]:
        pixels = normalise(images, self._mean, self._std)  # (B, 3, H, W)
        with recorded(module, {tap: self._maps[tap] for tap in taps if tap in self._maps}) as maps:
            hidden = self._trunk(module, pixels.contiguous(memory_format=self._memory_format))
        return {
            tap: (maps[tap] if tap in maps else self._tap_functions[tap](module, hidden)).float()
            for tap in taps
        }

    def _measure(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of one row at every tap, computed without arithmetic if possible."""
        shape = (2, *self._transform.input_shape)
        with torch.inference_mode():
            try:
                images = torch.zeros(shape, dtype=torch.uint8, device="meta")
                outputs = self._run(without_storage(self._module), images, self._all_taps)
            except Exception:
                outputs = self._dry_run(torch.zeros(shape, dtype=torch.uint8))
        for tap, output in outputs.items():
            if output.ndim < 2 or len(output) != 2:
                raise BackboneError(
                    f"Tap {tap!r} of {self._identity.name!r} must give a row of features per "
                    f"image; got shape {tuple(output.shape)} for 2 images."
                )
        return {tap: tuple(output.shape[1:]) for tap, output in outputs.items()}

    def _dry_run(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        try:
            return self._run(self._module, images, self._all_taps)
        except BackboneError:
            raise
        except Exception as error:
            raise BackboneError(
                f"{self._identity.name!r} must embed a batch of shape {tuple(images.shape)}; it "
                f"raised {type(error).__name__}: {error}. Check the transform's size."
            ) from error

    @property
    def _all_taps(self) -> tuple[str, ...]:
        return (*self._tap_functions, *self._maps)

    def _check_taps(self, taps: Sequence[str]) -> None:
        if not taps:
            raise OptionError(f"At least one tap must be asked for; got {taps!r}. Name one.")
        for tap in taps:
            if tap not in self._all_taps:
                raise UnknownNameError(
                    f"A tap of {self._identity.name!r} must be one of "
                    f"{', '.join(self._all_taps)}; got {tap!r}. "
                    f"{did_you_mean(tap, self._all_taps)}Correct the tap."
                )

    def _check_images(self, images: torch.Tensor) -> None:
        shape = self._transform.input_shape
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != shape:
            raise ShapeError(
                f"`images` must be uint8 of shape (B, {', '.join(map(str, shape))}); got "
                f"{images.dtype} of shape {tuple(images.shape)}. Apply the transform and stack."
            )

    def _check_frozen(self) -> None:
        for name, part in self._module.named_modules():
            if part.training:
                raise BackboneError(
                    f"{self._identity.name!r} must stay in eval mode; its part "
                    f"{name or '(root)'!r} is in training mode. Call .eval() on the module."
                )


def _memory_format(module: nn.Module) -> torch.memory_format:
    layers = sum(isinstance(part, nn.Conv2d) for part in module.modules())
    return torch.channels_last if layers >= _CONVOLUTIONAL else torch.contiguous_format


def _normalisation(
    transform: Transform,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    spec = transform.spec
    if missing := [name for name in ("mean", "std") if name not in spec]:
        raise BackboneError(
            f"A transform's spec must have `mean` and `std`, applied on the device; "
            f"{' and '.join(missing)} is missing. Give (0, 0, 0) and (1, 1, 1) for none."
        )
    return tuple(spec["mean"]), tuple(spec["std"])
