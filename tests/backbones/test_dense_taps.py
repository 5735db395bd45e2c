"""Maps and grids against timm's own intermediates."""

import numpy as np
import pytest
import timm
import torch

from featcache.backbones.factory import load_backbone

HIERARCHICAL = {
    "resnet18": ["map4", "map8", "map16", "map32"],
    "convnext_atto": ["map4", "map8", "map16", "map32"],
    "swin_tiny_patch4_window7_224": ["map4", "map8", "map16", "map32"],
    "hiera_tiny_224": ["map4", "map8", "map16", "map32"],
    "tf_efficientnet_lite0": ["map4", "map8", "map16", "map32"],
}


def images_for(backbone, count=2):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, *backbone.transform.input_shape), np.uint8)
    return torch.from_numpy(pixels)


@pytest.mark.parametrize("name", HIERARCHICAL)
def test_stage_maps_are_timms_intermediates(name):
    backbone = load_backbone(f"random:{name}")
    images = images_for(backbone)
    maps = [tap for tap in backbone.taps if tap.startswith("map")]
    assert maps == HIERARCHICAL[name]
    got = backbone.embed(images, ["pooled", *maps])
    mean, std = (torch.tensor(backbone.transform.spec[part]) for part in ("mean", "std"))
    pixels = (images / 255 - mean[:, None, None]) / std[:, None, None]
    with torch.inference_mode():
        expected = backbone.module.forward_intermediates(
            pixels, intermediates_only=True, output_fmt="NCHW"
        )
    expected = expected[-len(maps) :] if name != "hiera_tiny_224" else expected
    side = images.shape[-1]
    for tap, want in zip(maps, expected, strict=True):
        stride = int(tap.removeprefix("map"))
        assert got[tap].shape == (2, *backbone.taps[tap]) == want.shape
        assert got[tap].shape[2:] == (side // stride, side // stride)
        torch.testing.assert_close(got[tap], want, rtol=1e-4, atol=1e-4)
    alone = backbone.embed(images, ["pooled"])["pooled"]
    torch.testing.assert_close(got["pooled"], alone)


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "vit_small_patch16_18x2_224", "vit_base_patch32_siglip_256"]
)
def test_patches_are_the_final_tokens_on_their_grid(name):
    if name not in timm.list_models():
        pytest.skip(f"timm has no {name}")
    backbone = load_backbone(f"random:{name}")
    images = images_for(backbone)
    assert not [tap for tap in backbone.taps if tap.startswith("map")]
    got = backbone.embed(images, ["patches", "pooled"])["patches"]
    mean, std = (torch.tensor(backbone.transform.spec[part]) for part in ("mean", "std"))
    pixels = (images / 255 - mean[:, None, None]) / std[:, None, None]
    with torch.inference_mode():
        tokens = backbone.module.forward_features(pixels)
    rows, columns = backbone.module.patch_embed.grid_size
    assert got.shape == (2, tokens.shape[2], rows, columns)
    prefix = backbone.module.num_prefix_tokens
    for row, column in ((0, 0), (0, columns - 1), (rows - 1, 2)):
        token = tokens[:, prefix + row * columns + column]
        torch.testing.assert_close(got[:, :, row, column], token, rtol=1e-4, atol=1e-4)


def test_a_network_without_stages_or_grid_offers_neither():
    taps = load_backbone("random:mixer_s32_224").taps
    assert "patches" not in taps
    assert not [tap for tap in taps if tap.startswith("map")]
