"""Proof that packaged weights, key renaming and preprocessing fit: photographs get their class."""

import functools
import re

import pytest
import timm
import torch
from PIL import Image

from featcache.backbones import renamers
from featcache.backbones.factory import load_backbone

skimage_data = pytest.importorskip("skimage.data")

CAT = {281, 282, 285}  # tabby, tiger cat, Egyptian cat
COFFEE = {504, 967, 968}  # coffee mug, espresso, cup
PALACE = {663, 698}  # monastery, palace: the photograph shows the Summer Palace
ROCKET = {657, 744, 812}  # missile, projectile, space shuttle


@functools.cache
def photographs() -> dict[str, Image.Image]:
    from sklearn.datasets import load_sample_image

    named = {name: getattr(skimage_data, name)() for name in ("chelsea", "coffee", "rocket")}
    named["china"] = load_sample_image("china.jpg")
    return {name: Image.fromarray(pixels) for name, pixels in named.items()}


def top_classes(backbone, k: int) -> dict[str, set[int]]:
    pictures = photographs()
    images = torch.stack([backbone.transform(picture) for picture in pictures.values()])
    ranked = backbone.embed(images, ["logits"])["logits"].topk(k).indices
    return {name: set(row.tolist()) for name, row in zip(pictures, ranked, strict=True)}


@pytest.mark.parametrize("name", [f"efficientnet_lite{size}" for size in range(3)])
def test_packaged_weights_name_what_photographs_show(name):
    backbone = load_backbone(name)
    first, three = top_classes(backbone, 1), top_classes(backbone, 3)
    assert first["chelsea"] <= CAT
    assert first["coffee"] <= COFFEE
    assert first["china"] <= PALACE
    assert three["rocket"] & ROCKET
    assert len(three["chelsea"] & CAT) == 3


def names_all(backbone) -> bool:
    first = top_classes(backbone, 1)
    return first["chelsea"] <= CAT and first["coffee"] <= COFFEE and first["china"] <= PALACE


def test_batch_norms_of_equal_shape_in_each_others_place_do_not(monkeypatch):
    """Show that the test sees a wrong translation which no shape check can see."""
    right = renamers.RENAMERS["efficientnet-lite"].rename

    def wrong(keys, target):
        swap = {".bn1.": ".bn2.", ".bn2.": ".bn1."}
        names = right(keys, target)
        return {
            old: re.sub(r"(?<=blocks\.[1-6]\.\d)\.bn[12]\.", lambda m: swap[m[0]], new)
            for old, new in names.items()
        }

    whole = load_backbone("efficientnet_lite0")
    rule = renamers.Renamer(rename=wrong)
    monkeypatch.setitem(renamers.RENAMERS, "efficientnet-lite", rule)
    broken = load_backbone("efficientnet_lite0")
    assert names_all(whole)
    assert broken.identity.weights != whole.identity.weights
    assert not names_all(broken)


def test_random_weights_do_not(tmp_path):
    torch.save(timm.create_model("tf_efficientnet_lite0").state_dict(), tmp_path / "random.pth")
    untrained = load_backbone("timm:tf_efficientnet_lite0", checkpoint=tmp_path / "random.pth")
    assert not names_all(untrained)
    assert "logits" not in load_backbone("random:tf_efficientnet_lite0").taps
