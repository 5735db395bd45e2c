"""A network's own classifier on its cached features gives the network's own logits."""

import functools

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

from featcache.backbones.factory import load_backbone, wrap
from featcache.backbones.heads import native_head
from featcache.errors import BackboneError
from featcache.probes.linear.head import LinearHead
from featcache.spec import TransformSpec


@functools.cache
def photographs():
    data = pytest.importorskip("skimage.data")
    from sklearn.datasets import load_sample_images

    pixels = [getattr(data, name)() for name in ("chelsea", "coffee", "rocket", "astronaut")]
    return [Image.fromarray(one) for one in (*pixels, *load_sample_images().images)]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_pooled_features_times_the_native_head_are_the_networks_logits(dtype):
    backbone = load_backbone("efficientnet_lite0")
    head = native_head(backbone)
    images = torch.stack([backbone.transform(one) for one in photographs()])
    found = backbone.embed(images, ["pooled", "logits"])
    stored = found["pooled"].numpy().astype(dtype)
    logits = LinearHead.of_stored(head).logits(stored)
    expected = found["logits"].numpy()
    bound = 1e-4 if dtype == "float32" else 1e-2
    scale = np.abs(expected).max(axis=1, keepdims=True)
    assert (np.abs(logits - expected) / scale).max() < bound
    assert (logits.argmax(axis=1) == expected.argmax(axis=1)).all()


def test_a_native_head_names_what_photographs_show():
    backbone = load_backbone("efficientnet_lite0")
    head = native_head(backbone)
    images = torch.stack([backbone.transform(one) for one in photographs()])
    features = backbone.embed(images, ["pooled"])["pooled"].numpy()
    best = LinearHead.of_stored(head).logits(features).argmax(axis=1)
    words = [head.descriptions[c] for c in best]
    assert "cat" in words[0]
    assert words[1] in {"espresso", "cup", "coffee mug"}
    assert words[4] in {"monastery", "palace"}
    assert words[5] == "daisy"


def test_its_classes_are_wordnets_with_words_beside_them():
    head = native_head(load_backbone("efficientnet_lite0"))
    assert head.weights.shape == (1280, 1000)
    assert head.class_names[0] == "n01440764"
    assert head.descriptions[0] == "tench, Tinca tinca"
    assert (head.kind, head.tap, head.scale, head.is_unit_norm) == ("native", "pooled", 1.0, False)
    assert head.origin == {"classes": "imagenet-1k"}


@pytest.fixture
def saved(tmp_path):
    """Load an untrained network of the given architecture with weights from a file."""

    def load(architecture, **arguments):
        torch.manual_seed(0)
        model = timm.create_model(architecture, **arguments)
        torch.save(model.state_dict(), tmp_path / "weights.pth")
        return load_backbone(f"timm:{architecture}", checkpoint=tmp_path / "weights.pth")

    return load


def test_other_numbers_of_classes_get_numbers_for_names(saved):
    head = native_head(saved("resnet10t", num_classes=7))
    assert head.class_names == tuple(f"class {c}" for c in range(7))
    assert head.descriptions == ()


def test_a_thousand_classes_of_ones_own_are_not_imagenets(saved):
    head = native_head(saved("resnet10t"))
    assert head.class_names[:2] == ("class 0", "class 1")
    assert len(head.class_names) == 1000
    assert head.origin == {"classes": "unknown"}


@pytest.mark.parametrize(
    "architecture", ["resnetv2_50x1_bit", "mobilenetv3_small_050", "vit_tiny_patch16_224"]
)
def test_heads_of_other_forms_are_found_too(saved, architecture):
    backbone = saved(architecture, num_classes=5)
    assert native_head(backbone).weights.shape == (*backbone.taps["pooled"], 5)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("deit_tiny_distilled_patch16_224", "timm gives tuple as its classifier"),
        ("resnet50_clip", "its last layer projects into a space of text.*featcache head text"),
    ],
)
def test_what_is_no_single_linear_layer_is_refused(saved, architecture, message):
    with pytest.raises(BackboneError, match=message):
        native_head(saved(architecture))


def test_networks_without_class_weights_are_refused():
    for backbone in (load_backbone("random:resnet10t"), load_backbone("pixels")):
        with pytest.raises(BackboneError, match="without trained class weights.*--task linear"):
            native_head(backbone)


def test_a_layer_between_features_and_classifier_is_noticed(saved, monkeypatch):
    backbone = saved("resnet10t", num_classes=7)
    forward = backbone.module.forward_head

    def scaled(features, pre_logits=False):
        return forward(features, pre_logits=pre_logits) * (2 if pre_logits else 1)

    monkeypatch.setattr(backbone.module, "forward_head", scaled)
    with pytest.raises(BackboneError, match="something else stands between"):
        native_head(backbone)


def test_a_users_own_module_is_refused_unless_it_is_like_timms():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, images):
            pooled = images.mean((2, 3))
            return {"pooled": pooled, "logits": self.fc(pooled)}

    with pytest.raises(BackboneError, match="timm gives nothing as its classifier"):
        native_head(wrap(Own(), name="own", transform=TransformSpec(resize=24, crop=16)))
