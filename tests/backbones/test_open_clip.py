"""Towers of open_clip against open_clip itself, on untrained models of a few thousand weights."""

import logging
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from featcache.backbones.catalog import entries
from featcache.backbones.factory import load_backbone, request_identity
from featcache.backbones.open_clip_source import native_transform
from featcache.backbones.transforms import PilTransform, normalise
from featcache.errors import (
    BackboneError,
    CheckpointError,
    MissingDependencyError,
    OptionError,
    UnknownNameError,
)
from tests.backbones.clip_models import MODELS, registered

open_clip = pytest.importorskip("open_clip")

WITH_PREPROJECTION = {"tiny-vit": 64, "tiny-timm": 512, "tiny-timm-head": 512, "tiny-coca": 12}
"""Width of what the projection reads. CoCa's tower pools into the shared width, then projects."""


@pytest.fixture(autouse=True)
def _models(tmp_path):
    (tmp_path / "configs").mkdir()
    with registered(tmp_path / "configs"):
        yield


@pytest.fixture
def saved(tmp_path):
    """Return a model of open_clip's own making, and the file of its weights."""

    def make(name="tiny-vit", wrap=lambda state: state):
        torch.manual_seed(1)
        logging.disable(logging.WARNING)
        model = open_clip.create_model(name, pretrained_text=False).eval()
        logging.disable(logging.NOTSET)
        path = tmp_path / f"{name}.pt"
        torch.save(wrap(model.state_dict()), path)
        return model, path

    return make


def noise(n=3, side=32):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("name", list(MODELS))
def test_the_projection_is_what_encode_image_gives(saved, name):
    model, path = saved(name)
    backbone = load_backbone(f"open_clip:{name}", checkpoint=path)
    spec = backbone.transform.spec
    pixels = normalise(noise(), tuple(spec["mean"]), tuple(spec["std"]))
    taps = backbone.embed(noise(), list(backbone.taps))
    with torch.inference_mode():
        expected = model.encode_image(pixels)
        expected = expected[0] if isinstance(expected, tuple) else expected
        own = model.visual(pixels)
        own = own[0] if isinstance(own, tuple) else own
    np.testing.assert_allclose(taps["projection"], own, rtol=1e-5, atol=1e-6)
    unit = torch.nn.functional.normalize(taps["projection"], dim=-1)
    expected = torch.nn.functional.normalize(expected, dim=-1)  # CoCa's is normalised already
    np.testing.assert_allclose(unit, expected, rtol=1e-5, atol=1e-6)
    assert backbone.default_tap == "projection"
    assert ("preprojection" in taps) == (name in WITH_PREPROJECTION)
    if name in WITH_PREPROJECTION:
        assert backbone.taps["preprojection"] == (WITH_PREPROJECTION[name],)


@pytest.mark.parametrize(("name", "matrix"), [("tiny-vit", "proj"), ("tiny-timm", "head.proj")])
def test_the_projection_is_a_matrix_on_the_preprojection(saved, name, matrix):
    model, path = saved(name)
    taps = load_backbone(f"open_clip:{name}", checkpoint=path).embed(
        noise(), ["preprojection", "projection"]
    )
    weight = model.visual.state_dict().get(matrix)
    weight = model.visual.state_dict()[f"{matrix}.weight"].T if weight is None else weight
    np.testing.assert_allclose(taps["projection"], taps["preprojection"] @ weight, atol=1e-5)


def test_the_transform_is_open_clips_own(saved):
    data = pytest.importorskip("skimage.data")
    config = dict(open_clip.get_model_preprocess_cfg(saved()[0]), size=(64, 64))
    for mode in ("shortest", "squash"):
        for filter_name in ("bicubic", "bilinear"):
            chosen = {**config, "resize_mode": mode, "interpolation": filter_name}
            spec = native_transform("x", chosen)
            theirs = open_clip.image_transform(
                64, is_train=False, resize_mode=mode, interpolation=filter_name
            )
            for pixels in (data.chelsea(), data.rocket()):
                image = Image.fromarray(pixels)
                ours = normalise(PilTransform(spec)(image)[None], spec.mean, spec.std)[0]
                assert torch.equal(ours, theirs(image))


def test_a_transform_that_cannot_be_expressed_is_refused(saved):
    config = open_clip.get_model_preprocess_cfg(saved()[0])
    for change in ({"resize_mode": "longest"}, {"size": (32, 48)}):
        with pytest.raises(
            BackboneError, match="square RGB images, cropped or squashed; 'x' takes"
        ):
            native_transform("x", {**config, **change})
    _, path = saved()
    with pytest.raises(OptionError, match="images of 32 x 32 pixels; .* asked for 24 x 24"):
        load_backbone("open_clip:tiny-vit", checkpoint=path, transform_overrides={"crop": 24})
    wider = load_backbone("open_clip:tiny-vit", checkpoint=path, transform_overrides={"resize": 40})
    assert wider.transform.spec["resize"] == 40


def test_the_digest_is_of_the_image_tower_alone(saved):
    model, path = saved()
    first = load_backbone("open_clip:tiny-vit", checkpoint=path).identity
    with torch.no_grad():
        model.text_projection += 1
    torch.save(model.state_dict(), path)
    second = load_backbone("open_clip:tiny-vit", checkpoint=path).identity
    assert first.weights == second.weights
    with torch.no_grad():
        model.visual.proj += 1
    torch.save(model.state_dict(), path)
    assert load_backbone("open_clip:tiny-vit", checkpoint=path).identity.weights != first.weights
    assert first.architecture == "open_clip/tiny-vit"


def test_a_training_checkpoint_is_read_with_a_renamer(saved):
    def wrap(state):
        return {"epoch": 3, "state_dict": {f"module.{name}": one for name, one in state.items()}}

    model, path = saved(wrap=wrap)
    backbone = load_backbone("open_clip:tiny-vit", checkpoint=path, renamer="strip-module")
    assert backbone.identity.options["wrapper"] == "state_dict"
    plain = normalise(noise(), *(tuple(backbone.transform.spec[m]) for m in ("mean", "std")))
    with torch.inference_mode():
        expected = model.encode_image(plain)
    found = backbone.embed(noise(), ["projection"])["projection"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(CheckpointError, match="missing"):
        load_backbone("open_clip:tiny-rn", checkpoint=path, renamer="strip-module")


def test_random_weights_are_the_same_each_time_and_leave_torchs_seed_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = load_backbone("random:open_clip:tiny-vit")
    assert torch.rand(1) == expected
    assert load_backbone("random:open_clip:tiny-vit").identity == first.identity
    assert first.identity.options == {"seed": 0}
    assert not logging.root.manager.disable


def test_unknown_names_are_answered_with_the_nearest(tmp_path):
    with pytest.raises(
        UnknownNameError, match=r"does not have 'ViT-B32'\. Did you mean 'ViT-B-32'"
    ):
        load_backbone("open_clip:ViT-B32.openai")
    with pytest.raises(UnknownNameError, match=r"got 'opena'\. Did you mean 'openai'"):
        load_backbone("open_clip:ViT-B-32.opena")
    with pytest.raises(UnknownNameError, match=r"it has none; got ''\. .*--checkpoint"):
        load_backbone("open_clip:tiny-vit")
    with pytest.raises(OptionError, match="Random weights have no tag; got 'openai'"):
        load_backbone("random:open_clip:ViT-B-32.openai")
    with pytest.raises(OptionError, match="from a tag or from a file, not both"):
        load_backbone("open_clip:ViT-B-32.openai", checkpoint=tmp_path / "x.pt")
    with pytest.raises(OptionError, match="its weights are random"):
        load_backbone("random:open_clip:tiny-vit", checkpoint=tmp_path / "x.pt")


def test_weights_of_a_tag_run_with_the_activation_they_were_trained_with(monkeypatch):
    """OpenAI's tags need QuickGELU; the download is replaced by untrained weights."""
    made = {}
    create = open_clip.create_model

    def offline(architecture, *, pretrained=None, **given):
        made.update(given, pretrained=pretrained)
        return create("tiny-vit", **given)

    monkeypatch.setattr(open_clip, "create_model", offline)
    backbone = load_backbone("open_clip:ViT-B-32.openai")
    assert (made["pretrained"], made["force_quick_gelu"]) == ("openai", True)
    assert backbone.identity.options == {"pretrained": "openai", "quick_gelu": True}
    load_backbone("open_clip:ViT-B-32.laion2b_s34b_b79k")
    assert made["force_quick_gelu"] is False
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda *_: {"quick_gelu": False})
    with pytest.raises(BackboneError, match=r"plain GELU; .* Write open_clip:ViT-B-32\.openai"):
        load_backbone("open_clip:ViT-B-32-quickgelu.openai")


def test_weights_out_of_reach_say_what_can_be_done(monkeypatch):
    def fail(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(open_clip, "create_model", fail)
    with pytest.raises(
        BackboneError, match=r"once from the hub.*no route.*open_clip:ViT-B-32 --ch"
    ):
        load_backbone("open_clip:ViT-B-32.openai")


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'featcache\[open-clip\]'"):
        load_backbone("open_clip:ViT-B-32.openai")


def test_a_request_is_remembered_where_files_tell_what_is_loaded(saved):
    _, path = saved()
    assert request_identity("open_clip:ViT-B-32.openai") is None
    assert request_identity("open_clip:tiny-vit", checkpoint=path) is None  # not open_clip's own
    first = request_identity("open_clip:ViT-B-32", checkpoint=path)
    assert first is not None
    assert first != request_identity("open_clip:ViT-B-16", checkpoint=path)
    assert "open_clip_torch" in first["versions"]
    assert request_identity("random:open_clip:ViT-B-32") is not None


def test_the_rows_of_the_registry_name_weights_that_open_clip_has():
    rows = {n: e.facts for n, e in entries().items() if e.facts["source"].startswith("open_clip:")}
    assert len(rows) >= 9
    for facts in rows.values():
        architecture, _, tag = facts["source"].removeprefix("open_clip:").partition(".")
        assert facts["architecture"] == architecture
        weights = open_clip.get_pretrained_cfg(architecture, tag)
        config = open_clip.get_model_config(architecture)
        assert weights
        assert weights.get("quick_gelu", False) == config.get("quick_gelu", False)
        assert facts["resolution"] == config["vision_cfg"]["image_size"]


def test_parameter_counts_are_those_of_the_tower_without_projection():
    with torch.device("meta"):
        logging.disable(logging.WARNING)
        visual = open_clip.create_model("ViT-B-32", device="meta").visual
        logging.disable(logging.NOTSET)
    counted = sum(item.numel() for item in visual.parameters()) - visual.proj.numel()
    assert counted / 1e6 == pytest.approx(
        entries()["clip_vitb32_openclip"].facts["params_m"], abs=0.006
    )
