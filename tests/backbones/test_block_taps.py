"""The taps of several blocks: class tokens of the last four, and the mean patch token."""

import numpy as np
import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from featcache.backbones import timm_source
from featcache.backbones.factory import load_backbone
from featcache.backbones.torch_backbone import TorchBackbone

BLOCK_TAPS = ("cls4", "mean_patch", "cls4_mean")


def images(backbone: TorchBackbone) -> torch.Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (2, *backbone.transform.input_shape), np.uint8))


def pixels(backbone: TorchBackbone) -> torch.Tensor:
    mean, std = (torch.tensor(backbone.transform.spec[k])[:, None, None] for k in ("mean", "std"))
    return (images(backbone) / 255 - mean) / std


def loaded(name: str) -> TorchBackbone:
    """An untrained network whose norm and class token are not what they start at."""
    backbone = load_backbone(name)
    assert isinstance(backbone, TorchBackbone)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in backbone.module.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return backbone


@pytest.mark.parametrize("prefix", [1, 5], ids=["class token alone", "four registers"])
def test_block_taps_equal_what_timm_calls_intermediate_layers(prefix, monkeypatch):
    network = VisionTransformer(
        img_size=32,
        patch_size=8,
        embed_dim=24,
        depth=5,
        num_heads=3,
        num_classes=0,
        reg_tokens=prefix - 1,
    ).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, 0, 0.2)
    batch = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        layers = network.get_intermediate_layers(batch, n=4, return_prefix_tokens=True, norm=True)
        tokens = timm_source._block_trunk(network, batch)
        got = {name: tap(network, tokens) for name, tap in timm_source._BLOCK_TAPS.items()}
        assert torch.equal(tokens.final, network.forward_features(batch))
    expected = torch.cat([tokens[:, 0] for _, tokens in layers], dim=1)
    mean = layers[-1][0].mean(dim=1)
    assert expected.std() > 0.1
    assert torch.allclose(got["cls4"], expected, atol=1e-5)
    assert torch.allclose(got["mean_patch"], mean, atol=1e-5)
    assert torch.equal(got["cls4_mean"], torch.cat([got["cls4"], got["mean_patch"]], dim=1))


@pytest.mark.parametrize("name", ["random:test_vit", "random:tnt_s_patch16_224"])
def test_the_oldest_class_token_comes_first_and_the_last_is_the_tap_cls(name):
    backbone = loaded(name)
    got = backbone.embed(images(backbone), ["cls", *BLOCK_TAPS])
    with torch.inference_mode():
        _, layers = backbone.module.forward_intermediates(
            pixels(backbone), indices=4, norm=True, return_prefix_tokens=True, output_fmt="NLC"
        )
    for number, (_, prefix) in enumerate(layers):
        part = got["cls4"].chunk(4, dim=1)[number]
        assert torch.allclose(part, prefix.flatten(1), atol=1e-4)
    assert torch.equal(got["cls4"].chunk(4, dim=1)[3], got["cls"])


def test_other_taps_have_the_same_bits_with_block_taps_beside_them():
    backbone = loaded("random:vit_xsmall_patch16_clip_224.tinyclip_yfcc15m")
    batch = images(backbone)
    others = ("pooled", "cls", "preprojection", "projection")
    alone = backbone.embed(batch, others)
    beside = backbone.embed(batch, (*BLOCK_TAPS, *others))
    with torch.inference_mode():
        features = backbone.module.forward_features(pixels(backbone))
        plain = backbone.module.forward_head(features, pre_logits=True)
    for tap in others:
        assert torch.equal(alone[tap], beside[tap])
    assert torch.allclose(alone["pooled"], plain, atol=1e-5)


def test_block_taps_leave_no_hook_behind_even_after_an_error():
    backbone = loaded("random:test_vit")
    backbone.embed(images(backbone), BLOCK_TAPS)
    backbone.module.norm.forward = None
    with pytest.raises(TypeError):
        backbone.embed(images(backbone), BLOCK_TAPS)
    assert not any(block._forward_hooks for block in backbone.module.blocks)


@pytest.mark.parametrize(
    "name", ["test_vit2", "cait_xxs24_224", "xcit_nano_12_p16_224", "test_resnet", "volo_d1_224"]
)
def test_block_taps_are_not_offered_where_they_are_not_defined(name):
    network = timm.create_model(name, pretrained=False, num_classes=0)
    has_class_token = timm_source._has_class_token(network)
    assert not (has_class_token and timm_source._has_token_blocks(network))


def test_a_network_of_three_blocks_has_no_tap_of_four():
    network = VisionTransformer(img_size=32, patch_size=8, embed_dim=24, depth=3, num_heads=3)
    assert not timm_source._has_token_blocks(network)
