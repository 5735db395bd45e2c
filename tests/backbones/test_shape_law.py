"""Laws of every backbone in the registry; a new row is tested by being there.

Networks are built without their weights: on the `meta` device, where a pass costs no arithmetic,
for shapes at the resolution of the row; with untrained weights for the values of small images.
Rows of one architecture are one network here. The large ones are marked slow.
"""

import numpy as np
import open_clip
import pytest
import timm
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torchvision import transforms as torchvision_transforms
from torchvision.transforms import InterpolationMode

from featcache.backbones import open_clip_source, timm_source
from featcache.backbones.catalog import entries
from featcache.backbones.factory import load_backbone
from featcache.backbones.request import Request
from featcache.backbones.timm_config import CLASS_COUNTS, native_transform
from featcache.backbones.transforms import PilTransform, normalise, with_overrides
from featcache.spec import TransformSpec

ROWS = {name: entry.facts for name, entry in entries().items()}
LARGE_M = 45
"""Millions of parameters from which a network is built by the slow tests only."""
LARGE_TEXT = ("siglip2_vitb16_openclip", "pe_core_vitb16_openclip")
"""Rows that are large by their text towers, of a quarter of a thousand million and more."""
SIDES = {"open_clip": None, "package": 64}
"""Pixels of a small image by scheme, where it is not 32; None: one size only, the row's."""
BUILT = ("timm", "open_clip", "package", "checkpoint", "pixels")
"""Schemes whose networks are built here; the others are files or pipelines of their own."""


def scheme(name: str) -> str:
    return str(ROWS[name]["source"].partition(":")[0])


def weights_of(name: str) -> str:
    return str(ROWS[name]["source"].partition(":")[2])


def of_schemes(*wanted: str) -> list[str]:
    return [name for name in ROWS if scheme(name) in wanted]


def one_per(key, names: list[str]) -> list[str]:
    """Return the first name of each kind, by `key`."""
    return list({key(name): name for name in reversed(names)}.values())[::-1]


def cases(names: list[str]):
    large = {name for name in names if ROWS[name]["params_m"] > LARGE_M or name in LARGE_TEXT}
    return [pytest.param(name, marks=[pytest.mark.slow] if name in large else []) for name in names]


def classes_of(name: str) -> int:
    """Return the width of the head that timm's weights have; 0 for open_clip's towers."""
    config = timm.get_pretrained_cfg(weights_of(name)) if scheme(name) == "timm" else None
    return int(config.num_classes) if config else 0


@pytest.fixture
def without_weights(monkeypatch):
    """Have both libraries build what they would load, on the `meta` device."""

    def timm_network(name, arguments, *, pretrained=False):
        head = {"num_classes": timm.get_pretrained_cfg(name).num_classes} if pretrained else {}
        with torch.device("meta"):
            return timm.create_model(name, **{**head, **arguments})

    def open_clip_model(library, architecture, *, pretrained, force_quick_gelu):
        assert pretrained
        with open_clip_source._quiet():
            return library.create_model(
                architecture, force_quick_gelu=force_quick_gelu, device="meta"
            )

    monkeypatch.setattr(timm_source, "_create", timm_network)
    monkeypatch.setattr(open_clip_source, "_create", open_clip_model)
    for source in (timm_source, open_clip_source):
        monkeypatch.setattr(source, "weights_digest", lambda _module: "0" * 64)


def is_classifier(name: str) -> bool:
    return classes_of(name) in CLASS_COUNTS


def loaded_alike(name: str) -> tuple[object, ...]:
    return ROWS[name]["architecture"], ROWS[name]["resolution"], is_classifier(name)


@pytest.mark.usefixtures("without_weights")
@pytest.mark.parametrize("name", cases(one_per(loaded_alike, of_schemes("timm", "open_clip"))))
def test_a_row_declares_its_taps_and_no_head_but_its_own(name):
    backbone = load_backbone(name)
    facts, taps, side = ROWS[name], backbone.taps, ROWS[name]["resolution"]
    assert backbone.transform.input_shape == (3, side, side)
    assert backbone.default_tap == facts["default_tap"]
    assert {facts["default_tap"], facts.get("bob_tap", facts["default_tap"])} <= set(taps)
    if scheme(name) == "timm":
        assert taps["pooled"] == (backbone.module.head_hidden_size,)
        assert taps.get("projection", (0,)) == (0 if is_classifier(name) else classes_of(name),)
    assert classifier_taps(backbone) == (
        {"logits": classes_of(name)} if is_classifier(name) else {}
    )
    assert not any(part.training for part in backbone.module.modules())


def classifier_taps(backbone) -> dict[str, int]:
    """Return the taps that are a classifier's: by their name, or as wide as one."""
    flat = {tap: shape[0] for tap, shape in backbone.taps.items() if len(shape) == 1}
    return {t: width for t, width in flat.items() if t == "logits" or width in CLASS_COUNTS}


def twin(name: str):
    """Return the row's network with untrained weights, for small images where it takes them."""
    if scheme(name) == "pixels":
        return load_backbone(name)
    facts, side = ROWS[name], SIDES.get(scheme(name), 32)
    small = {"resize": [side, side], "resize_mode": "squash", "crop": side} if side else {}
    if scheme(name) == "open_clip":
        source, module = f"random:open_clip:{facts['architecture']}", open_clip_source
    else:
        network = weights_of(name) if scheme(name) == "timm" else facts["architecture"]
        source, module = f"random:{network}", timm_source
    request = Request(name=name, facts={**facts, "source": source}, transform_overrides=small)
    return module.open_backbone(request)


def same_network(name: str) -> tuple[object, ...]:
    return scheme(name), ROWS[name].get("renamer"), ROWS[name]["architecture"]


@pytest.mark.parametrize("name", cases(one_per(same_network, of_schemes(*BUILT))))
def test_an_image_has_the_same_features_in_every_batch(name):
    backbone = twin(name)
    taps = tuple(backbone.taps)
    shape = backbone.transform.input_shape
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, *shape), np.uint8))
    together = backbone.embed(images, taps)
    turned = backbone.embed(images.flip(0), taps)
    alone = backbone.embed(images[1:2], taps)
    for tap, features in together.items():
        assert tuple(features.shape) == (3, *backbone.taps[tap])
        scale = float(features.abs().max())
        assert 0 < scale < float("inf"), tap
        assert (features - turned[tap].flip(0)).abs().max() < 1e-4 * scale, tap
        assert (features[1:2] - alone[tap]).abs().max() < 1e-4 * scale, tap
    assert classifier_taps(backbone) == {}  # an untrained head is no feature
    assert backbone.default_tap == ROWS[name]["default_tap"]
    if scheme(name) != "pixels":
        assert not any(part.training for part in backbone.module.modules())
        assert not any(item.requires_grad for item in backbone.module.parameters())


def photographs() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    sizes = [(320, 213), (213, 320), (640, 601), (97, 130)]
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3), np.uint8)) for w, h in sizes]


def timm_config(name: str):
    is_timms = scheme(name) == "timm"
    return timm.get_pretrained_cfg(
        weights_of(name) if is_timms else ROWS[name]["architecture"]
    ).to_dict()


def own_transform(name: str) -> PilTransform:
    return PilTransform(with_overrides(TransformSpec(resize=1), ROWS[name]["transform"]))


def normalised(transform: PilTransform, image: Image.Image) -> torch.Tensor:
    spec = transform.spec
    return normalise(transform(image)[None], tuple(spec["mean"]), tuple(spec["std"]))[0]


def preprocessing(name: str) -> str:
    return str(own_transform(name).spec)


IN_OPEN_CLIP = {
    **{"clip_vitb32": "ViT-B-32.openai", "clip_vitb16": "ViT-B-16.openai"},
    **{"clip_vitl14": "ViT-L-14.openai", "clip_resnet50": "RN50.openai"},
    **{"clip_resnet101": "RN101.openai", "clip_resnet50x64": "RN50x64.openai"},
    **{"clip_vitb32_laion2b": "ViT-B-32.laion2b_s34b_b79k"},
    **{"clip_vitb16_laion2b": "ViT-B-16.laion2b_s34b_b88k"},
    **{"clip_vitl14_laion2b": "ViT-L-14.laion2b_s32b_b82k"},
    **{"siglip_vitb16": "ViT-B-16-SigLIP.webli", "siglip_vitl16_256": "ViT-L-16-SigLIP-256.webli"},
    **{"siglip_so400m14": "ViT-SO400M-14-SigLIP.webli"},
    **{"siglip2_vitb16": "ViT-B-16-SigLIP2.webli"},
    **{"siglip2_vitl16_256": "ViT-L-16-SigLIP2-256.webli"},
    **{"siglip2_so400m14": "ViT-SO400M-14-SigLIP2.webli"},
    **{"siglip2_vitgopt16_256": "ViT-gopt-16-SigLIP2-256.webli"},
    **{"pe_core_vits16_384": "PE-Core-S-16-384.meta", "pe_core_vitb16": "PE-Core-B-16.meta"},
    **{"pe_core_vitl14_336": "PE-Core-L-14-336.meta"},
    **{"pe_core_vitg14_448": "PE-Core-bigG-14-448.meta"},
    **{"eva02_clip_vitb16": "EVA02-B-16.merged2b_s8b_b131k"},
    **{"eva02_clip_vitl14": "EVA02-L-14.merged2b_s4b_b131k"},
    **{"mobileclip_s1": "MobileCLIP-S1.datacompdr", "mobileclip_s2": "MobileCLIP-S2.datacompdr"},
    **{"mobileclip_b": "MobileCLIP-B.datacompdr", "mobileclip2_b": "MobileCLIP2-B.dfndr2b"},
    **{"mobileclip2_s0": "MobileCLIP2-S0.dfndr2b", "mobileclip2_s2": "MobileCLIP2-S2.dfndr2b"},
    **{"mobileclip2_s3": "MobileCLIP2-S3.dfndr2b", "mobileclip2_s4": "MobileCLIP2-S4.dfndr2b"},
}
"""Rows of timm's whose weights open_clip has too."""


AS_DINO_AND_MAE = [
    name
    for name in of_schemes("timm")
    if name.startswith(("dino", "mae")) and not name.startswith("dinov3")
]
"""Rows of timm's with the evaluation transform of their authors' code."""
AS_TIMM = [
    name
    for name in of_schemes("timm", "package")
    if name not in {*IN_OPEN_CLIP, *AS_DINO_AND_MAE, "mobileclip_s0"}
]


@pytest.mark.parametrize("name", AS_TIMM)
def test_a_row_of_a_network_of_timms_has_its_transform(name):
    assert own_transform(name).spec == native_transform(name, timm_config(name)).to_json()


@pytest.mark.parametrize("name", one_per(preprocessing, AS_TIMM))
def test_a_row_prepares_images_as_timm_does(name):
    expected = create_transform(**resolve_data_config(pretrained_cfg=timm_config(name)))
    for image in photographs():
        assert torch.equal(normalised(own_transform(name), image), expected(image))


@pytest.mark.parametrize("name", [*IN_OPEN_CLIP, *of_schemes("open_clip")])
def test_a_row_prepares_images_as_open_clip_does_for_the_same_weights(name):
    weights = IN_OPEN_CLIP.get(name) or ROWS[name]["source"].removeprefix("open_clip:")
    architecture, _, tag = weights.partition(".")
    config = open_clip.get_pretrained_cfg(architecture, tag)
    fields = {k: config[k] for k in ("mean", "std", "interpolation", "resize_mode")}
    size = open_clip.get_model_config(architecture)["vision_cfg"]["image_size"]
    expected = image_transform_v2(PreprocessCfg(size=size, **fields), is_train=False)
    for image in photographs():
        assert torch.equal(normalised(own_transform(name), image), expected(image))


def test_a_network_of_a_family_is_prepared_as_its_sister():
    assert own_transform("mobileclip_s0") == own_transform("mobileclip_s1")


@pytest.mark.parametrize("name", AS_DINO_AND_MAE)
def test_dino_and_mae_rows_prepare_images_as_their_authors_evaluate(name):
    parts = torchvision_transforms
    expected = parts.Compose(
        [
            parts.Resize(256, InterpolationMode.BICUBIC),
            parts.CenterCrop(224),
            parts.ToTensor(),
            parts.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    image = photographs()[0]
    assert torch.equal(normalised(own_transform(name), image), expected(image))
