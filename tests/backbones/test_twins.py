"""`random:NAME`: the architecture, transform and taps of a registry row, without its weights."""

import pytest

from featcache.backbones.catalog import entries
from featcache.backbones.factory import load_backbone
from featcache.backbones.transforms import PilTransform, with_overrides
from featcache.backbones.twins import twin_facts
from featcache.errors import UnknownNameError
from featcache.spec import TransformSpec

NAMES = list(entries())


@pytest.mark.parametrize("name", [name for name in NAMES if name != "pixels"])
def test_every_row_has_a_twin_that_loads_nothing(name):
    facts = twin_facts(f"random:{name}")
    assert facts["source"].startswith("random:")
    row = entries()[name].facts
    assert facts["resolution"] == row["resolution"]
    assert facts["transform"] == row["transform"]


@pytest.mark.parametrize("name", ["resnet18", "random:nothing", "random:test_vit", "random:pixels"])
def test_other_names_have_none(name):
    assert twin_facts(name) is None


@pytest.mark.parametrize("name", ["efficientnet_lite0", "mocov3_vits16"])
def test_a_twin_is_the_same_every_time_and_has_no_classes(name):
    first, second = (load_backbone(f"random:{name}") for _ in range(2))
    assert first.identity == second.identity
    assert first.identity.name == f"random:{name}"
    assert first.default_tap == "pooled"
    assert "logits" not in first.taps


def test_a_twin_of_open_clips_prepares_images_as_its_weights_are_evaluated():
    """open_clip's untrained networks come with another transform: bicubic, centred."""
    facts = entries()["mobileclip2_s0_openclip"].facts
    transform = load_backbone("random:mobileclip2_s0_openclip").transform
    assert transform == PilTransform(with_overrides(TransformSpec(resize=1), facts["transform"]))


def test_twins_differ_from_each_other_in_the_key():
    small, large = (load_backbone(f"random:efficientnet_lite{i}").identity for i in (0, 1))
    assert small.weights != large.weights


def test_a_twin_builds_what_the_weights_need():
    """MoCo v3's small ViT has twelve heads; so has its twin."""
    assert load_backbone("random:mocov3_vits16").module.blocks[0].attn.num_heads == 12


def test_a_twin_of_a_name_that_is_almost_known_is_answered():
    with pytest.raises(UnknownNameError, match="efficientnet"):
        load_backbone("random:efficientnet_lite9")
