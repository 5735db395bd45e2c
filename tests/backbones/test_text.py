"""Text towers and class vectors against open_clip's own zero-shot classifier."""

import dataclasses
import logging

import numpy as np
import pytest
import torch

from featcache.backbones.factory import load_backbone
from featcache.backbones.request import Request
from featcache.backbones.text import image_tower_of, open_text_tower
from featcache.backbones.text_head import class_vectors
from featcache.datasets.prompts import Prompts, prompts_of, templates_of
from featcache.errors import BackboneError
from featcache.probes.linear.head import LinearHead
from featcache.verbs.extract import BackboneRequest
from featcache.verbs.heads import keep_text_head
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


@pytest.fixture
def text_head(cache):
    """Return a function that embeds prompts and makes a head of them."""

    def make(request, names, templates, prompt_names=None):
        prompts = Prompts(
            list_name="given",
            class_names=tuple(names),
            names=tuple(prompt_names or names),
            templates=tuple(templates),
        )
        one = BackboneRequest(name=request.name, checkpoint=request.checkpoint)
        return keep_text_head(cache, one, prompts, is_own=False)

    return make


@pytest.mark.parametrize("name", ["tiny-vit", "tiny-bias", "tiny-coca"])
@pytest.mark.parametrize("templates", ["photo", "openai7"])
def test_class_vectors_are_those_of_open_clips_builder(saved, text_head, name, templates):
    model, request = saved(name)
    head = text_head(request, NAMES, templates_of(templates))
    functions = [lambda c, t=t: t.replace("{}", c) for t in templates_of(templates)]
    expected = open_clip.build_zero_shot_classifier(
        model, open_clip.get_tokenizer(name), NAMES, functions
    )
    np.testing.assert_allclose(head.weights, expected.numpy(), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(head.weights, axis=0), 1, rtol=1e-6)
    assert head.weights.dtype == np.float32


@pytest.mark.parametrize("name", ["tiny-vit", "tiny-bias"])
def test_logits_are_those_of_the_model(saved, text_head, name):
    model, request = saved(name)
    head = text_head(request, NAMES, templates_of("photo"))
    backbone = load_backbone(request.name, checkpoint=request.checkpoint)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8, generator=generator)
    features = backbone.embed(images, ["projection"])["projection"].numpy()
    pixels = images.float() / 255
    mean, std = (torch.tensor(backbone.transform.spec[k])[:, None, None] for k in ("mean", "std"))
    tokens = open_clip.get_tokenizer(name)([prompts_of(c, templates_of("photo"))[0] for c in NAMES])
    with torch.inference_mode():
        expected, _ = model.get_logits((pixels - mean) / std, tokens)
    found = LinearHead.of_stored(head).logits(features)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-4)
    assert head.backbone == backbone.identity
    assert head.tap == "projection"


def test_a_tower_encodes_as_the_model_does_and_knows_its_partner(saved):
    model, request = saved()
    tower = open_text_tower(request)
    texts = ["a dog", "two dogs on a beach " * 9]  # the second is cut off
    with torch.inference_mode():
        expected = model.encode_text(open_clip.get_tokenizer("tiny-vit")(texts)).numpy()
    vectors = tower.encode(texts)
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    assert (vectors.dtype, vectors.shape) == (np.float32, (2, 12))
    images = load_backbone(request.name, checkpoint=request.checkpoint).identity
    assert image_tower_of(tower.identity) == images
    assert len(tower.identity.weights) == 64
    assert tower.identity.weights != images.weights


def test_the_transform_tells_what_the_tower_reads_of_the_texts(saved):
    tower = open_text_tower(saved()[1])
    found = tower.transform(["A dog"])
    assert (found["tokenizer"], found["context_length"]) == ("SimpleTokenizer", 16)
    assert found == tower.transform(["a  dog"])  # the tokenizer cleans both to one
    assert found != tower.transform(["a cat"])
    assert tower.transform(["a dog", "a cat"]) != tower.transform(["a cat", "a dog"])


def test_facts_say_where_the_head_came_from(saved, text_head):
    model, request = saved()
    head = text_head(request, NAMES, templates_of("openai7"))
    assert (head.kind, head.is_unit_norm) == ("text", True)
    assert head.scale == pytest.approx(float(model.logit_scale.detach().exp()))
    assert head.origin["templates"] == list(templates_of("openai7"))
    assert len(head.origin["text_tower"]) == 64
    tokenizer = head.origin["tokenizer"]
    assert (tokenizer["kind"], tokenizer["context_length"]) == ("SimpleTokenizer", 16)


def test_whatever_decides_the_vectors_changes_the_key(saved, text_head):
    model, request = saved()
    keys = {
        text_head(request, NAMES, templates_of("photo")).key,
        text_head(request, NAMES, templates_of("openai7")).key,
        text_head(request, NAMES[::-1], templates_of("photo")).key,
        text_head(request, NAMES, templates_of("photo"), prompt_names=NAMES[::-1]).key,
    }
    with torch.no_grad():
        model.text_projection += 1
    torch.save(model.state_dict(), request.checkpoint)
    keys.add(text_head(request, NAMES, templates_of("photo")).key)
    assert len(keys) == 5
    assert text_head(request, NAMES, templates_of("photo")).key in keys


def test_other_names_for_prompts_change_the_vectors_and_not_the_classes(saved, text_head):
    _, request = saved()
    codes = tuple(f"n{i}" for i in range(4))
    plain = text_head(request, NAMES, templates_of("photo"))
    coded = text_head(request, codes, templates_of("photo"), prompt_names=NAMES)
    np.testing.assert_array_equal(plain.weights, coded.weights)
    assert coded.class_names == codes
    assert coded.origin["prompt_names"] == list(NAMES)


def test_each_prompt_counts_alike_however_long_its_vector():
    vectors = np.array([[9.0, 0], [0, 0.1], [0, 3], [7, 0]], np.float32)
    found = class_vectors(vectors, np.array([0, 0, 1, 1]), ["a", "b"])
    np.testing.assert_allclose(found, np.full((2, 2), 0.5**0.5), rtol=1e-6)


def test_classes_may_have_other_numbers_of_prompts_in_any_order():
    vectors = np.array([[0.0, 2], [5, 0], [0, 1]], np.float32)
    found = class_vectors(vectors, np.array([1, 0, 0]), ["a", "b"])
    np.testing.assert_allclose(found[:, 1], [0, 1])
    np.testing.assert_allclose(found[:, 0], [0.5**0.5, 0.5**0.5], rtol=1e-6)


def test_vectors_without_direction_are_refused():
    labels = np.array([0, 1])
    with pytest.raises(BackboneError, match="one of 'b' is zero or not finite"):
        class_vectors(np.array([[1.0, 0], [0, 0]]), labels, ["a", "b"])
    with pytest.raises(BackboneError, match="one of 'a' is zero"):
        class_vectors(np.array([[1.0], [-1.0]]), np.array([0, 0]), ["a"])
    with pytest.raises(BackboneError, match="one of 'a' is zero or not finite"):
        class_vectors(np.array([[np.nan], [-1.0]]), labels, ["a", "b"])


def test_a_backbone_without_text_tower_is_refused():
    with pytest.raises(
        BackboneError, match=r"'efficientnet_lite0' has none here. .*open_clip:ARCH"
    ):
        open_text_tower(Request(name="efficientnet_lite0"))


def test_a_tokenizer_out_of_reach_is_told(saved, monkeypatch):
    def fail(_):
        raise OSError("offline")

    _, request = saved()
    monkeypatch.setattr(open_clip, "get_tokenizer", fail)
    with pytest.raises(BackboneError, match=r"The tokenizer of 'tiny-vit' .*OSError: offline"):
        open_text_tower(request)


def test_random_towers_have_texts_too():
    request = Request(name="random:open_clip:tiny-vit")
    assert open_text_tower(request).encode(["a", "b"]).shape == (2, 12)
    assert dataclasses.replace(request).is_open_clip
