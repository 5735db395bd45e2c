"""What extraction relies on in a backbone, law by law."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import numpy as np
from PIL import Image

from featcache.backbone import Backbone
from featcache.digest import canonical_json
from featcache.testing.laws import Law, must, named

if TYPE_CHECKING:
    import torch

TOLERANCE = 1e-4
"""Of the largest value: kernels may sum in another order for another batch."""
_ROWS = 4


def opened(backbone: object) -> Backbone:
    """Return a backbone, or load the one of a name."""
    from featcache.backbones.factory import load_backbone

    return load_backbone(backbone) if isinstance(backbone, str) else cast(Backbone, backbone)


def pictures(count: int = _ROWS) -> list[Image.Image]:
    """Return images that differ from each other, 280 x 240, RGB, always the same."""
    rng = np.random.default_rng(0)
    coarse = [rng.integers(0, 256, (5, 7, 3), np.uint8) for _ in range(count)]
    return [Image.fromarray(one).resize((280, 240)) for one in coarse]


def batch(backbone: Backbone, rows: int = _ROWS) -> torch.Tensor:
    """Return transformed pictures, shape (rows, 3, H, W), uint8."""
    import torch

    return torch.stack([backbone.transform(one) for one in pictures(rows)])


def has_the_members_of_a_backbone(backbone: Backbone) -> None:
    """`identity`, `transform`, `taps`, `default_tap`, `to` and `embed` must be there."""
    must(isinstance(backbone, Backbone), f"{type(backbone).__name__} lacks a member of `Backbone`.")
    must(backbone.identity.name, "`identity.name` must not be empty.")
    must(backbone.default_tap in backbone.taps, "`default_tap` must be one of `taps`.")
    must(backbone.to("cpu") is backbone, "`to` must return the backbone itself.")


def its_identity_is_plain_data(backbone: Backbone) -> None:
    """Identity and transform must be JSON, as they are hashed into the key."""
    canonical_json({"options": backbone.identity.options, "transform": backbone.transform.spec})
    must(isinstance(backbone.transform.spec, Mapping), "`transform.spec` must be a mapping.")


def its_transform_gives_what_it_declares(backbone: Backbone) -> None:
    """A transformed image must be uint8 of `input_shape`, and the same each time."""
    import torch

    image = pictures(1)[0]
    first, again = backbone.transform(image), backbone.transform(image)
    shape = tuple(backbone.transform.input_shape)
    must(
        first.dtype == torch.uint8 and tuple(first.shape) == shape,
        f"`transform` must give uint8 of shape {shape}; got {first.dtype} {tuple(first.shape)}. "
        "Normalise on the device, in `embed`.",
    )
    must(torch.equal(first, again), "`transform` must give one image the same input each time.")


def its_transform_survives_pickling(backbone: Backbone) -> None:
    """Worker processes get a copy of the transform."""
    import torch

    copied = pickle.loads(pickle.dumps(backbone.transform))
    image = pictures(1)[0]
    same = torch.equal(copied(image), backbone.transform(image))
    must(same, "A pickled `transform` must do what it did before.")


def its_taps_have_the_declared_shapes(backbone: Backbone) -> None:
    """Each tap must give a floating-point row per image, of the shape in `taps`, and finite."""
    images = batch(backbone)
    for tap, shape in backbone.taps.items():
        got = backbone.embed(images, [tap])[tap]
        must(
            tuple(got.shape) == (_ROWS, *shape),
            f"Tap {tap!r} must give shape {(_ROWS, *shape)}; got {tuple(got.shape)}.",
        )
        must(got.is_floating_point(), f"Tap {tap!r} must be floating point; got {got.dtype}.")
        must(not got.requires_grad, f"Tap {tap!r} must carry no gradient.")
        must(bool(got.isfinite().all()), f"Tap {tap!r} must be finite.")


def its_taps_come_out_together(backbone: Backbone) -> None:
    """Taps asked for at once must be those asked for one by one, and no others."""
    images, taps = batch(backbone), tuple(backbone.taps)
    together = backbone.embed(images, taps)
    must(set(together) == set(taps), f"`embed` must give {taps}; got {tuple(together)}.")
    for tap in taps:
        _must_be_near(together[tap], backbone.embed(images, [tap])[tap], f"Tap {tap!r} alone")


def it_does_not_look_at_other_images_of_the_batch(backbone: Backbone) -> None:
    """Order and size of a batch must not change an image's features."""
    import torch

    images, tap = batch(backbone), backbone.default_tap
    together = backbone.embed(images, [tap])[tap]
    turned = backbone.embed(images.flip(0), [tap])[tap].flip(0)
    alone = torch.cat([backbone.embed(one[None], [tap])[tap] for one in images])
    _must_be_near(turned, together, "The batch in another order")
    _must_be_near(alone, together, "Each image alone")


def it_gives_the_same_bits_twice(backbone: Backbone) -> None:
    """Nothing random may take part: no dropout, no state that moves."""
    import torch

    images, tap = batch(backbone), backbone.default_tap
    first, again = (backbone.embed(images, [tap])[tap] for _ in range(2))
    must(torch.equal(first, again), "Embedding twice must give the same bits. Call .eval() on it.")


def it_sees_the_image(backbone: Backbone) -> None:
    """Other images must have other features."""
    tap = backbone.default_tap
    rows = backbone.embed(batch(backbone), [tap])[tap].flatten(1)
    apart = (rows[0] - rows[1]).abs().max()
    must(apart > 1e-6 * rows.abs().max(), "Two images must not have the same features.")


def _must_be_near(got: torch.Tensor, wanted: torch.Tensor, what: str) -> None:
    gap = float((got - wanted).abs().max() / wanted.abs().max().clamp_min(1e-30))
    must(
        gap < TOLERANCE, f"{what} must give the same features within {TOLERANCE}; off by {gap:.2g}."
    )


LAWS: Mapping[str, Law[Backbone]] = named(
    has_the_members_of_a_backbone,
    its_identity_is_plain_data,
    its_transform_gives_what_it_declares,
    its_transform_survives_pickling,
    its_taps_have_the_declared_shapes,
    its_taps_come_out_together,
    it_does_not_look_at_other_images_of_the_batch,
    it_gives_the_same_bits_twice,
    it_sees_the_image,
)
"""Every law by name."""
