"""One CLIP tower, built by open_clip and by timm with the same weights, gives the same features.

timm's own conversion carries the weights over; ours only loads its result. The tower is small and
every weight in it random, so that no bias, scale or position can be swapped unseen.
"""

import dataclasses
import logging
from types import SimpleNamespace

import pytest
import timm
import torch
from timm.models.vision_transformer import checkpoint_filter_fn

from featcache.backbones import renamers
from featcache.backbones.catalog import entries
from featcache.backbones.factory import load_backbone
from featcache.backbones.transforms import normalise
from tests.backbones import clip_models

open_clip = pytest.importorskip("open_clip")

WIDTH, DEPTH, HEADS, PROJECTION, SIDE, PATCH = 128, 3, 2, 24, 32, 8
TOWERS = {
    "tiny-agreement": "vit_base_patch32_clip_224",
    "tiny-agreement-quickgelu": "vit_base_patch32_clip_quickgelu_224",
}
"""Tower of open_clip to architecture of timm: GELU and QuickGELU."""
TIMM_SIZE = {
    **{"patch_size": PATCH, "embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS},
    "num_classes": PROJECTION,
}
TO_TIMM = {"resize": SIDE, "crop": SIDE}
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(autouse=True)
def _towers(monkeypatch, tmp_path):
    """Make the small tower known to both libraries by the names in `TOWERS`."""
    vision = {"image_size": SIDE, "layers": DEPTH, "width": WIDTH, "patch_size": PATCH}
    config = {"embed_dim": PROJECTION, "vision_cfg": vision, "text_cfg": clip_models.TEXT}
    for name in TOWERS:
        quick = name.endswith("quickgelu")
        monkeypatch.setitem(clip_models.MODELS, name, {**config, "quick_gelu": quick})
    same_keys = renamers.get_renamer("none")
    small = dataclasses.replace(same_keys, model_args=dict.fromkeys(TOWERS.values(), TIMM_SIZE))
    monkeypatch.setitem(renamers.RENAMERS, "small", small)
    (tmp_path / "configs").mkdir()
    with clip_models.registered(tmp_path / "configs"):
        yield


def saved(tower: str, folder) -> SimpleNamespace:
    """Return open_clip's model, its file, and the file of what timm's conversion makes of it."""
    torch.manual_seed(1)
    logging.disable(logging.WARNING)
    model = open_clip.create_model(tower, pretrained_text=False).eval()
    logging.disable(logging.NOTSET)
    with torch.no_grad():
        for weight in model.visual.parameters():
            weight += 0.1 * torch.randn_like(weight)
    twin = timm.create_model(TOWERS[tower], img_size=SIDE, **TIMM_SIZE).eval()
    converted = checkpoint_filter_fn(model.state_dict(), twin)
    files = folder / "open_clip.pt", folder / "timm.pt"
    for file, state in zip(files, (model.state_dict(), converted), strict=True):
        torch.save(state, file)
    return SimpleNamespace(model=model, twin=twin, converted=converted, files=files)


def noise():
    generator = torch.Generator().manual_seed(0)
    shape = (4, 3, SIDE, SIDE)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("tower", TOWERS)
def test_timms_network_gives_what_encode_image_gives(tower, tmp_path):
    made = saved(tower, tmp_path)
    made.twin.load_state_dict(made.converted)
    images = torch.randn(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(made.twin(images), made.model.encode_image(images), **TOLERANCE)


@pytest.mark.parametrize("tower", TOWERS)
def test_the_loader_gives_the_same_features_through_both_libraries(tower, tmp_path):
    made = saved(tower, tmp_path)
    theirs = load_backbone(f"open_clip:{tower}", checkpoint=made.files[0])
    ours = load_backbone(
        f"timm:{TOWERS[tower]}",
        checkpoint=made.files[1],
        renamer="small",
        transform_overrides=TO_TIMM,
    )
    assert ours.transform == theirs.transform
    assert ours.default_tap == "pooled"
    one, other = (x.embed(noise(), ["preprojection", "projection"]) for x in (ours, theirs))
    assert one["projection"].shape == (4, PROJECTION)
    assert one["preprojection"].shape == (4, WIDTH)
    for tap, values in other.items():
        torch.testing.assert_close(one[tap], values, **TOLERANCE)
    spec = theirs.transform.spec
    with torch.inference_mode():
        pixels = normalise(noise(), tuple(spec["mean"]), tuple(spec["std"]))
        expected = made.model.encode_image(pixels)
    torch.testing.assert_close(one["projection"], expected, **TOLERANCE)


def test_the_wrong_activation_would_be_seen(tmp_path):
    plain, quick = TOWERS
    file = saved(plain, tmp_path).files[1]
    first, second = (
        load_backbone(
            f"timm:{TOWERS[tower]}",
            checkpoint=file,
            renamer="small",
            transform_overrides=TO_TIMM,
        ).embed(noise(), ["projection"])["projection"]
        for tower in (plain, quick)
    )
    assert (first - second).abs().max() > 100 * TOLERANCE["atol"] * first.abs().max()


def test_rows_of_openais_weights_are_built_with_quickgelu_in_both_libraries():
    sources = [str(entry.facts["source"]) for entry in entries().values()]
    openai = [source for source in sources if source.endswith(".openai")]
    transformers = [s for s in openai if "vit" in s.lower()]
    assert len(transformers) >= 6
    assert all("quickgelu" in source for source in transformers)
    of_open_clip = [source for source in openai if source.startswith("open_clip:")]
    assert all("quickgelu" in source for source in of_open_clip)
    for name in (source.removeprefix("timm:") for source in sources if source.startswith("timm:")):
        notes = " ".join(timm.get_pretrained_cfg(name).notes or ())
        assert ("natively QuickGELU" in notes) <= ("quickgelu" in name), name
