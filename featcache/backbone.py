"""The contract between extraction and whatever turns images into features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from featcache.digest import Json
from featcache.spec import BackboneIdentity

if TYPE_CHECKING:
    import torch
    from PIL import Image


class Transform(Protocol):
    """Turns a decoded RGB image into the network's uint8 input; must be picklable."""

    @property
    def spec(self) -> Mapping[str, Json]:
        """The transform as plain JSON; part of the key."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape (3, H, W) of every result."""

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Return the input, shape (3, H, W), uint8; normalisation happens on the device."""


@runtime_checkable
class Backbone(Protocol):
    """A frozen network: always in eval mode, never recording gradients."""

    @property
    def identity(self) -> BackboneIdentity:
        """Name, architecture and digest of the loaded weights; part of the key."""

    @property
    def transform(self) -> Transform:
        """The preprocessing this backbone was loaded with."""

    @property
    def taps(self) -> Mapping[str, tuple[int, ...]]:
        """Every tap by name, with the shape of one row's feature."""

    @property
    def default_tap(self) -> str:
        """The tap used when none is asked for."""

    def to(self, device: str) -> Backbone:
        """Move the network to `device` ('cpu', 'cuda', 'cuda:1') and return self."""

    def embed(self, images: torch.Tensor, taps: Sequence[str]) -> dict[str, torch.Tensor]:
        """Return the features of a batch at each tap.

        Args:
            images: What `transform` gave, stacked, shape (B, 3, H, W), uint8, on the device.
            taps: Names out of `taps`.

        Returns:
            Tap name to features, shape (B, *taps[name]), floating point, on the device.
        """
