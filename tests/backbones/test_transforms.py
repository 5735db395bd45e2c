import dataclasses
import pickle

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torchvision import transforms as reference
from torchvision.transforms import InterpolationMode

from featcache.backbones.open_clip_source import native_transform as open_clip_transform
from featcache.backbones.timm_config import native_transform
from featcache.backbones.transforms import PilTransform, normalise, with_overrides
from featcache.errors import BackboneError, OptionError, ShapeError
from featcache.spec import TransformSpec

SIZES = [(320, 213), (213, 320), (224, 224), (99, 301), (37, 37), (255, 256), (641, 483)]


def image(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def as_array(result: Image.Image) -> np.ndarray:
    return np.array(result).transpose(2, 0, 1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_shorter_side_and_crop_equal_torchvision(size, interpolation):
    spec = TransformSpec(resize=95, crop=72, interpolation=interpolation)
    mode = InterpolationMode(interpolation)
    expected = reference.Compose([reference.Resize(95, mode), reference.CenterCrop(72)])
    assert np.array_equal(PilTransform(spec)(image(*size)), as_array(expected(image(*size))))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("crop", [32, 33, 100, 225, 400])
def test_a_crop_without_resize_pads_and_rounds_as_torchvision(size, crop):
    spec = TransformSpec(resize=1, resize_mode="none", crop=crop)
    expected = as_array(reference.CenterCrop(crop)(image(*size)))
    assert np.array_equal(PilTransform(spec)(image(*size)), expected)


def test_squash_takes_height_then_width_as_torchvision():
    spec = TransformSpec(resize=(40, 60), resize_mode="squash", interpolation="bilinear")
    transform = PilTransform(spec)
    expected = reference.Resize((40, 60), InterpolationMode.BILINEAR)(image(99, 301))
    assert transform.input_shape == (3, 40, 60)
    assert np.array_equal(transform(image(99, 301)), as_array(expected))


@pytest.mark.parametrize(
    "name",
    [
        "resnet50.a1_in1k",  # crop_pct 0.95
        "resnet50.tv_in1k",  # bilinear
        "tf_efficientnet_lite1.in1k",  # 240 / 0.882
        "tf_efficientnet_lite2.in1k",  # 260 / 0.89
        "vit_small_patch14_dinov2.lvd142m",  # 518 px
        "vit_base_patch16_clip_224.openai",
        "swinv2_base_window12_192.ms_in22k",
        "convnext_base.clip_laion2b_augreg_ft_in12k_in1k_384",  # squash
        "efficientnet_b1.ft_in1k",
        "beitv2_base_patch16_224.in1k_ft_in22k",
    ],
)
def test_native_transforms_equal_timms_own(name):
    config = timm.get_pretrained_cfg(name).to_dict()
    expected = create_transform(
        **resolve_data_config(pretrained_cfg=config), is_training=False, normalize=False
    )
    transform = PilTransform(native_transform(name, config))
    for size in SIZES[:4]:
        assert torch.equal(transform(image(*size)), expected(image(*size))), size


@pytest.mark.parametrize("box", [(451, 299), (299, 419), (97, 131), (640, 83), (17, 301)])
def test_crops_of_a_photograph_are_prepared_as_by_timm_and_open_clip(box):
    library = pytest.importorskip("open_clip.transform")
    photograph = Image.fromarray(pytest.importorskip("skimage.data").rocket())  # 640 x 427
    picture = photograph.crop((0, 0, *box))
    config = timm.get_pretrained_cfg("vit_small_patch16_224.augreg_in21k").to_dict()
    by_timm = create_transform(**resolve_data_config(pretrained_cfg=config))
    pairs = [(native_transform("it", config), by_timm)]
    for mode in ("shortest", "squash"):
        cfg = library.PreprocessCfg(size=224, resize_mode=mode, interpolation="bilinear")
        theirs = library.image_transform_v2(cfg, is_train=False)
        pairs.append((open_clip_transform("it", dataclasses.asdict(cfg)), theirs))
    for spec, theirs in pairs:
        ours = normalise(PilTransform(spec)(picture)[None], spec.mean, spec.std)[0]
        assert torch.equal(ours, theirs(picture)), spec


def test_some_native_transform_squashes():
    config = timm.get_pretrained_cfg("convnext_base.clip_laion2b_augreg_ft_in12k_in1k_384")
    assert native_transform("it", config.to_dict()).resize_mode == "squash"


def test_a_network_for_images_that_are_not_square_is_refused():
    config = timm.get_pretrained_cfg("vit_base_patch16_sapiens2.fb").to_dict()
    with pytest.raises(BackboneError, match=r"square RGB.*1024, 768.*package.module:factory"):
        native_transform("vit_base_patch16_sapiens2.fb", config)


def test_normalise_equals_to_tensor_and_normalize_bit_for_bit():
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    batch = torch.stack([PilTransform(TransformSpec(resize=64, crop=64))(image(80, 70))])
    expected = reference.Normalize(mean, std)(batch.float() / 255)
    assert torch.equal(normalise(batch, mean, std), expected)


def test_the_result_is_contiguous_uint8_and_the_transform_survives_pickling():
    transform = PilTransform(TransformSpec(resize=40, crop=32))
    result = transform(image(50, 60))
    assert (result.dtype, result.shape, result.is_contiguous()) == (
        torch.uint8,
        transform.input_shape,
        True,
    )
    again = pickle.loads(pickle.dumps(transform))
    assert again == transform
    assert torch.equal(again(image(50, 60)), result)


def test_an_image_that_is_not_rgb_is_refused():
    with pytest.raises(ShapeError, match=r"mode 'RGB'; got 'L'.*convert"):
        PilTransform(TransformSpec(resize=40, crop=32))(Image.new("L", (50, 50)))


def test_overrides_replace_fields_and_keep_the_rest():
    spec = TransformSpec(resize=235, crop=224, interpolation="bilinear", mean=(0.5, 0.5, 0.5))
    asked = {"resize": 256, "crop": 224, "interpolation": "bicubic", "std": [1, 1, 1]}
    changed = with_overrides(spec, asked)
    assert (changed.resize, changed.interpolation, changed.mean, changed.std) == (
        256,
        "bicubic",
        (0.5, 0.5, 0.5),
        (1, 1, 1),
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"crops": 224}, r"got 'crops'.*Did you mean 'crop'"),
        ({"engine": "torchvision"}, r"one of resize.*got 'engine'"),
        ({"crop": 300}, r"must not exceed `resize`.*crop 300 and resize 256"),
        ({"resize": 0}, r"pixels >= 1; got resize 0"),
        ({"resize": 25.5}, r"pixels >= 1; got resize 25.5"),
        ({"interpolation": "cubic"}, r"`interpolation` must be one of nearest.*got 'cubic'"),
        ({"crop": None}, r"`crop` must be set"),
        ({"resize": [256, 256]}, r"one side, or \(height, width\) with mode 'squash'"),
        ({"antialias": False}, r"PIL always antialiases"),
        ({"std": [0, 1, 1]}, r"`std` must not be zero"),
        ({"mean": [0.5]}, r"`mean` must be three numbers"),
    ],
)
def test_overrides_that_cannot_be_carried_out_are_refused(overrides, message):
    with pytest.raises(OptionError, match=message):
        with_overrides(TransformSpec(resize=256, crop=224), overrides)
