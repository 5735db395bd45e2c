"""Each law of backbones is kept by ours, and broken by a backbone made to break it."""

from dataclasses import replace

import pytest
import torch

from featcache.backbones.factory import load_backbone
from featcache.spec import BackboneIdentity, TransformSpec
from featcache.testing import ContractError, check_backbone
from featcache.testing.backbone_laws import LAWS
from featcache.testing.contracts import BackboneContract


class TestPixels(BackboneContract):
    @pytest.fixture
    def backbone(self):
        return "pixels"


class TestVisionTransformer(BackboneContract):
    @pytest.fixture
    def backbone(self):
        return "random:test_vit"


class TestConvolutional(BackboneContract):
    @pytest.fixture
    def backbone(self):
        return load_backbone("random:test_convnext")


class Transform:
    """Sixteen values of the image's corner."""

    input_shape = (3, 4, 4)
    spec = TransformSpec(resize=4).to_json()

    def __call__(self, image):
        pixels = torch.tensor([*image.resize((4, 4)).tobytes()], dtype=torch.uint8)
        return pixels.reshape(4, 4, 3).permute(2, 0, 1)


class Tiny:
    """A backbone that keeps every law."""

    identity = BackboneIdentity(name="tiny", architecture="none", weights="")
    transform = Transform()
    default_tap = "pooled"

    @property
    def taps(self):
        return {"pooled": (48,), "half": (24,)}

    def to(self, device):
        return self

    def embed(self, images, taps):
        flat = images.flatten(1).float()
        return {tap: flat[:, : self.taps[tap][0]] for tap in taps}


def of_embed(change):
    """Return a `Tiny` whose features are changed."""

    class Changed(Tiny):
        def embed(self, images, taps):
            return {tap: change(one) for tap, one in super().embed(images, taps).items()}

    return Changed()


def of_transform(change):
    class Changed(Transform):
        def __call__(self, image):
            return change(super().__call__(image))

    one = Tiny()
    one.transform = Changed()
    return one


def with_member(name, value):
    one = Tiny()
    setattr(one, name, value)
    return one


class Partial(Tiny):
    def embed(self, images, taps):
        return super().embed(images, taps[:1])


class Drifting(Tiny):
    calls = 0

    def embed(self, images, taps):
        self.calls += 1
        return {tap: one + self.calls for tap, one in super().embed(images, taps).items()}


def unpicklable():
    one = Tiny()
    one.transform.__reduce__ = None
    return of_transform(lambda x: x)  # a class of a function cannot be pickled


BROKEN = {
    "has_the_members_of_a_backbone": [
        with_member("default_tap", "cls"),
        with_member("identity", replace(Tiny.identity, name="")),
        object(),
    ],
    "its_identity_is_plain_data": [
        with_member("identity", replace(Tiny.identity, options={"a": {1}})),
    ],
    "its_transform_gives_what_it_declares": [
        of_transform(lambda x: x.float()),
        of_transform(lambda x: x[:, :2]),
        of_transform(lambda x: torch.randint(0, 255, x.shape, dtype=torch.uint8)),
    ],
    "its_transform_survives_pickling": [unpicklable()],
    "its_taps_have_the_declared_shapes": [
        of_embed(lambda x: x[:, 1:]),
        of_embed(lambda x: x.to(torch.int64)),
        of_embed(lambda x: x / 0),
        of_embed(lambda x: x.requires_grad_()),
    ],
    "its_taps_come_out_together": [Partial()],
    "it_does_not_look_at_other_images_of_the_batch": [
        of_embed(lambda x: x - x.mean(dim=0)),
        of_embed(lambda x: x + torch.arange(len(x))[:, None]),
    ],
    "it_gives_the_same_bits_twice": [Drifting(), of_embed(lambda x: x + torch.rand_like(x))],
    "it_sees_the_image": [of_embed(torch.ones_like)],
}


def test_a_backbone_that_keeps_every_law_passes():
    check_backbone(Tiny())


def test_each_law_has_a_backbone_that_breaks_it():
    assert BROKEN.keys() == LAWS.keys()


@pytest.mark.parametrize(
    ("law", "backbone"), [(law, one) for law, several in BROKEN.items() for one in several]
)
def test_a_broken_law_is_named(law, backbone):
    with pytest.raises(ContractError, match=rf"of 9 laws are broken:[\s\S]*- {law}: "):
        check_backbone(backbone)
