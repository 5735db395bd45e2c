"""The contract, over every kind of backbone."""

import pytest
import torch

from featcache.backbone import Backbone
from featcache.backbones.factory import load_backbone
from featcache.errors import BackboneError, OptionError, ShapeError, UnknownNameError
from featcache.testing import check_backbone
from featcache.testing.backbone_laws import batch

CLIP = "random:vit_xsmall_patch16_clip_224.tinyclip_yfcc15m"
DIMS = {
    "efficientnet_lite0": {"pooled": 1280, "logits": 1000},
    "pixels": {"pooled": 768},
    "random:test_vit": {"pooled": 64, "cls": 64, "cls4": 256, "mean_patch": 64, "cls4_mean": 320},
    "random:test_resnet": {"pooled": 96},
    "random:test_convnext": {"pooled": 64},
    CLIP: {
        **{"pooled": 256, "cls": 256, "preprojection": 256, "projection": 512},
        **{"cls4": 1024, "mean_patch": 256, "cls4_mean": 1280},
    },
}
EVERY = pytest.mark.parametrize("name", list(DIMS))
_LOADED: dict[str, Backbone] = {}


def loaded(name: str) -> Backbone:
    if name not in _LOADED:
        _LOADED[name] = load_backbone(name)
    return _LOADED[name]


@EVERY
def test_it_follows_the_protocol_and_declares_its_dimensions(name):
    backbone = loaded(name)
    assert isinstance(backbone, Backbone)
    vectors = {tap: shape for tap, shape in backbone.taps.items() if len(shape) == 1}
    assert vectors == {tap: (dim,) for tap, dim in DIMS[name].items()}
    assert backbone.default_tap in backbone.taps
    assert backbone.identity.name == name
    assert backbone.to("cpu") is backbone


@EVERY
def test_every_law_holds(name):
    check_backbone(loaded(name))


def test_several_taps_come_from_one_forward_pass():
    backbone = loaded(CLIP)
    calls = []
    handle = backbone.module.patch_embed.register_forward_hook(lambda *_: calls.append(1))
    features = backbone.embed(batch(backbone, 2), tuple(backbone.taps))
    handle.remove()
    assert len(calls) == 1
    assert torch.equal(features["pooled"], features["preprojection"])
    assert torch.equal(features["pooled"], features["cls"])
    assert torch.allclose(
        backbone.module.head(features["preprojection"]), features["projection"], atol=1e-5
    )


def test_taps_equal_what_timm_itself_computes():
    backbone = load_backbone("random:test_vit")
    images = batch(backbone, 2)
    pixels = (images.float() / 255 - 0.5) / 0.5
    with torch.inference_mode():
        expected = backbone.module(pixels)  # without a head, timm returns the pooled feature
    assert torch.allclose(backbone.embed(images, ["pooled"])["pooled"], expected, atol=1e-5)


def test_a_part_in_training_mode_is_refused():
    backbone = load_backbone("random:test_resnet")
    assert not any(part.training for part in backbone.module.modules())
    assert not any(item.requires_grad for item in backbone.module.parameters())
    backbone.module.layer1.train()
    with pytest.raises(BackboneError, match=r"eval mode; its part 'layer1' is in training"):
        backbone.embed(batch(backbone, 1), ["pooled"])


def test_an_unknown_tap_lists_those_there_are():
    backbone = loaded("efficientnet_lite0")
    with pytest.raises(
        UnknownNameError, match=r"one of pooled, logits, map4, .*; got 'poled'.*'pooled'"
    ):
        backbone.embed(batch(backbone, 1), ["poled"])
    with pytest.raises(UnknownNameError, match=r"'pixels' must be 'pooled'; got 'cls'"):
        loaded("pixels").embed(batch(loaded("pixels"), 1), ["cls"])
    with pytest.raises(OptionError, match=r"At least one tap"):
        backbone.embed(batch(backbone, 1), [])


def test_images_of_another_shape_or_type_are_refused():
    backbone = loaded("efficientnet_lite0")
    with pytest.raises(ShapeError, match=r"\(B, 3, 224, 224\); got torch.float32"):
        backbone.embed(batch(backbone, 1).float(), ["pooled"])
    with pytest.raises(ShapeError, match=r"got torch.uint8 of shape \(3, 224, 224\)"):
        backbone.embed(batch(backbone, 1)[0], ["pooled"])


def test_convolutional_networks_run_channels_last_and_others_do_not():
    def formats(name: str) -> set[bool]:
        kernels = [p for p in loaded(name).module.parameters() if p.ndim == 4 and p.shape[-1] > 1]
        wide = [kernel for kernel in kernels if kernel.shape[1] > 1]
        return {kernel.is_contiguous(memory_format=torch.channels_last) for kernel in wide}

    assert formats("random:test_resnet") == {True}
    assert formats("efficientnet_lite0") == {True}
    assert formats("random:test_vit") == {False}


def test_bf16_on_the_cpu_is_near_fp32_and_leaves_the_output_float32():
    exact = loaded("random:test_vit")
    rough = load_backbone("random:test_vit", compute="bf16")
    images = batch(exact, 2)
    left, right = (one.embed(images, ["pooled"])["pooled"] for one in (exact, rough))
    assert right.dtype == torch.float32
    assert not torch.equal(left, right)
    assert torch.nn.functional.cosine_similarity(left, right).min() > 0.999
    assert exact.identity == rough.identity


@pytest.mark.parametrize("compute", ["fp16", "tf32"])
def test_precisions_that_need_a_gpu_are_refused_on_the_cpu(compute):
    backbone = load_backbone("random:test_vit", compute=compute)
    with pytest.raises(OptionError, match=rf"'{compute}' must run on a CUDA device"):
        backbone.to("cpu")
    with pytest.raises(OptionError, match=rf"'{compute}' must run on a CUDA device"):
        backbone.embed(batch(backbone, 1), ["pooled"])


def test_the_process_wide_precision_flags_are_put_back_and_do_not_matter():
    backbone = loaded("random:test_vit")
    images = batch(backbone, 1)
    expected = backbone.embed(images, ["pooled"])["pooled"]
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert torch.equal(backbone.embed(images, ["pooled"])["pooled"], expected)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    ("compute", "tolerance"), [("fp32", 1e-4), ("tf32", 1e-2), ("bf16", 5e-2), ("fp16", 1e-2)]
)
@pytest.mark.parametrize("name", ["efficientnet_lite0", "random:test_vit"])
def test_every_precision_on_the_gpu_is_near_the_cpu(name, compute, tolerance):
    images = batch(loaded(name))
    expected = loaded(name).embed(images, ["pooled"])["pooled"]
    backbone = load_backbone(name, compute=compute).to("cuda")
    got = backbone.embed(images.cuda(), ["pooled"])["pooled"].cpu()
    assert (got - expected).abs().max() < tolerance * expected.abs().max()
    if compute != "fp32":
        assert not torch.equal(
            got, load_backbone(name).to("cuda").embed(images.cuda(), ["pooled"])["pooled"].cpu()
        )
