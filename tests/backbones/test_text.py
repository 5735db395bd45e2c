"""Class vectors against open_clip's own zero-shot classifier."""

import dataclasses
import logging

import numpy as np
import pytest
import torch

from featcache.backbones.factory import load_backbone
from featcache.backbones.request import Request
from featcache.backbones.text import TEMPLATES, class_vectors, prompts_of, text_head
from featcache.errors import BackboneError, OptionError
from featcache.probes.linear.head import LinearHead
from tests.backbones.clip_models import registered

open_clip = pytest.importorskip("open_clip")

NAMES = ("tench", "great white shark", "crane {bird}", "été")


@pytest.fixture(autouse=True)
def _models(tmp_path):
    (tmp_path / "configs").mkdir()
    with registered(tmp_path / "configs"):
        yield


@pytest.fixture
def saved(tmp_path):
    """Return a model of open_clip's own making, and a request for it from a file."""

    def make(name="tiny-vit"):
        torch.manual_seed(1)
        logging.disable(logging.WARNING)
        model = open_clip.create_model(name, pretrained_text=False).eval()
        logging.disable(logging.NOTSET)
        path = tmp_path / f"{name}.pt"
        torch.save(model.state_dict(), path)
        return model, Request(name=f"open_clip:{name}", checkpoint=path)

    return make


@pytest.mark.parametrize("name", ["tiny-vit", "tiny-bias", "tiny-coca"])
@pytest.mark.parametrize("templates", list(TEMPLATES))
def test_class_vectors_are_those_of_open_clips_builder(saved, name, templates):
    model, request = saved(name)
    head = text_head(request, NAMES, TEMPLATES[templates])
    functions = [lambda c, t=t: t.replace("{}", c) for t in TEMPLATES[templates]]
    expected = open_clip.build_zero_shot_classifier(
        model, open_clip.get_tokenizer(name), NAMES, functions
    )
    np.testing.assert_allclose(head.weights, expected.numpy(), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(head.weights, axis=0), 1, rtol=1e-6)
    assert head.weights.dtype == np.float32


@pytest.mark.parametrize("name", ["tiny-vit", "tiny-bias"])
def test_logits_are_those_of_the_model(saved, name):
    model, request = saved(name)
    head = text_head(request, NAMES, TEMPLATES["photo"])
    backbone = load_backbone(request.name, checkpoint=request.checkpoint)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8, generator=generator)
    features = backbone.embed(images, ["projection"])["projection"].numpy()
    pixels = images.float() / 255
    mean, std = (torch.tensor(backbone.transform.spec[k])[:, None, None] for k in ("mean", "std"))
    tokens = open_clip.get_tokenizer(name)([prompts_of(c, TEMPLATES["photo"])[0] for c in NAMES])
    with torch.inference_mode():
        expected, _ = model.get_logits((pixels - mean) / std, tokens)
    found = LinearHead.of_stored(head).logits(features)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-4)
    assert head.backbone.weights == backbone.identity.weights
    assert head.tap == "projection"


def test_facts_say_where_the_head_came_from(saved):
    model, request = saved()
    head = text_head(request, NAMES, TEMPLATES["openai7"])
    assert (head.kind, head.is_unit_norm) == ("text", True)
    assert head.scale == pytest.approx(float(model.logit_scale.detach().exp()))
    assert head.origin["templates"] == list(TEMPLATES["openai7"])
    assert len(head.origin["text_tower"]) == 64
    tokenizer = head.origin["tokenizer"]
    assert (tokenizer["kind"], tokenizer["context_length"]) == ("SimpleTokenizer", 16)


def test_whatever_decides_the_vectors_changes_the_key(saved):
    model, request = saved()
    keys = {
        text_head(request, NAMES, TEMPLATES["photo"]).key,
        text_head(request, NAMES, TEMPLATES["openai7"]).key,
        text_head(request, NAMES[::-1], TEMPLATES["photo"]).key,
        text_head(request, NAMES, TEMPLATES["photo"], prompt_names=NAMES[::-1]).key,
    }
    with torch.no_grad():
        model.text_projection += 1
    torch.save(model.state_dict(), request.checkpoint)
    keys.add(text_head(request, NAMES, TEMPLATES["photo"]).key)
    assert len(keys) == 5
    assert text_head(request, NAMES, TEMPLATES["photo"]).key in keys


def test_other_names_for_prompts_change_the_vectors_and_not_the_classes(saved):
    _, request = saved()
    codes = tuple(f"n{i}" for i in range(4))
    plain = text_head(request, NAMES, TEMPLATES["photo"])
    coded = text_head(request, codes, TEMPLATES["photo"], prompt_names=NAMES)
    np.testing.assert_array_equal(plain.weights, coded.weights)
    assert coded.class_names == codes
    assert coded.origin["prompt_names"] == list(NAMES)


def test_vectors_do_not_depend_on_batches_or_on_other_classes(saved, monkeypatch):
    from featcache.backbones import text

    _, request = saved()
    whole = text_head(request, NAMES, TEMPLATES["openai7"]).weights
    monkeypatch.setattr(text, "_BATCH", 3)
    cut = text_head(request, NAMES, TEMPLATES["openai7"]).weights
    np.testing.assert_allclose(whole, cut, atol=1e-6)
    few = text_head(request, NAMES[:2], TEMPLATES["openai7"]).weights
    np.testing.assert_allclose(whole[:, :2], few, atol=1e-6)


def test_each_prompt_counts_alike_however_long_its_vector():
    def encode(prompts):
        return np.array([[9.0, 0] if "big" in text else [0, 0.1] for text in prompts], np.float32)

    vectors = class_vectors(encode, ["a", "b"], ["big {}", "small {}"])
    np.testing.assert_allclose(vectors, np.full((2, 2), 0.5**0.5), rtol=1e-6)


def test_vectors_without_direction_are_refused():
    with pytest.raises(BackboneError, match="that of 'p b' is zero or not finite"):
        class_vectors(
            lambda texts: np.array([[float("a" in t), 0.0] for t in texts]), ["a", "b"], ["p {}"]
        )
    with pytest.raises(BackboneError, match="that of 'a' is zero"):
        class_vectors(
            lambda texts: np.array([[-1.0 if "no" in t else 1.0] for t in texts]),
            ["a"],
            ["no {}", "{}"],
        )


@pytest.mark.parametrize(
    ("names", "templates", "message"),
    [
        (NAMES, (), "got None"),
        (NAMES, ("a photo",), "got 'a photo'"),
        (NAMES, ("{} and {}",), "got '{} and {}'"),
        (("a", "a"), ("{}",), "Class names must differ"),
        (("a", " "), ("{}",), "none may be empty"),
        ((), ("{}",), "got 0 for 0 classes"),
    ],
)
def test_prompts_that_cannot_be_made_are_refused(names, templates, message):
    with pytest.raises(OptionError, match=message):
        text_head(Request(name="open_clip:tiny-vit"), names, templates)


def test_an_empty_class_is_refused_whatever_stands_in_its_prompts():
    request, templates = Request(name="open_clip:tiny-vit"), TEMPLATES["photo"]
    for names in (("a", ""), ("a", " ")):
        with pytest.raises(OptionError, match="none may be empty"):
            text_head(request, names, templates, prompt_names=("cat", "dog"))
    with pytest.raises(OptionError, match="none may be empty"):
        text_head(request, ("a", "b"), templates, prompt_names=("cat", ""))


def test_a_backbone_without_text_tower_is_refused():
    with pytest.raises(
        BackboneError, match=r"'efficientnet_lite0' has none here. .*open_clip:ARCH"
    ):
        text_head(Request(name="efficientnet_lite0"), NAMES, TEMPLATES["photo"])


def test_a_tokenizer_out_of_reach_is_told(saved, monkeypatch):
    def fail(_):
        raise OSError("offline")

    _, request = saved()
    monkeypatch.setattr(open_clip, "get_tokenizer", fail)
    with pytest.raises(BackboneError, match=r"The tokenizer of 'tiny-vit' .*OSError: offline"):
        text_head(request, NAMES, TEMPLATES["photo"])


def test_the_seven_templates_are_those_that_open_clip_ships():
    theirs = [one("X") for one in open_clip.SIMPLE_IMAGENET_TEMPLATES]
    assert prompts_of("X", TEMPLATES["openai7"]) == theirs


def test_random_towers_can_have_a_text_head():
    request = Request(name="random:open_clip:tiny-vit")
    assert text_head(request, NAMES, TEMPLATES["photo"]).weights.shape == (12, 4)
    assert dataclasses.replace(request).is_open_clip
