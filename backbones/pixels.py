"""The `pixels` backbone: the image itself at 16 x 16, the floor that any network must beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Self

from featcache.backbones.request import Request
from featcache.backbones.transforms import PilTransform
from featcache.errors import OptionError, UnknownNameError
from featcache.spec import BackboneIdentity, TransformSpec

if TYPE_CHECKING:
    import torch

SIDE = 16
TRANSFORM = TransformSpec(
    resize=(SIDE, SIDE),
    resize_mode="squash",
    interpolation="bilinear",
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
)


class PixelBackbone:
    """Pixels of the squashed image in [0, 1], flattened channel by channel: 768 numbers."""

    identity = BackboneIdentity(name="pixels", architecture="none", weights="")
    transform = PilTransform(TRANSFORM)
    default_tap = "pooled"

    @property
    def taps(self) -> Mapping[str, tuple[int, ...]]:
        """The one tap, `pooled`, with the shape of one row's feature."""
        return {"pooled": (3 * SIDE * SIDE,)}

    def to(self, device: str) -> Self:
        """Return self; there is nothing to move."""
        return self

    def embed(self, images: torch.Tensor, taps: Sequence[str]) -> dict[str, torch.Tensor]:
        """Return the pixels of a batch divided by 255.

        Args:
            images: What `transform` gave, stacked, shape (B, 3, 16, 16), uint8.
            taps: Must be `pooled` alone.

        Returns:
            `pooled` to features, shape (B, 768), float32.

        Raises:
            UnknownNameError: If another tap is asked for.
        """
        for tap in taps:
            if tap not in self.taps:
                raise UnknownNameError(f"A tap of 'pixels' must be 'pooled'; got {tap!r}.")
        return {tap: images.flatten(1).float() / 255 for tap in taps}


def open_backbone(request: Request) -> PixelBackbone:
    """Return the backbone; it computes in float32.

    Raises:
        OptionError: If a checkpoint, another transform or another precision is asked for.
    """
    request.refuse_checkpoint("it has no weights")
    if request.transform_overrides:
        raise OptionError(
            f"'pixels' has one fixed transform, 16 x 16; got {dict(request.transform_overrides)}. "
            "Choose another protocol or backbone."
        )
    if request.compute != "fp32":
        raise OptionError(f"'pixels' computes in fp32; got {request.compute!r}. Leave it out.")
    return PixelBackbone()
