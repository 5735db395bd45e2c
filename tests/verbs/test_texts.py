"""Texts embedded once, and zero-shot probes that need no further word."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch

import featcache
from featcache.backbones import factory, text
from featcache.datasets.prompts import prompts_for
from featcache.datasets.texts import TextSplit
from featcache.errors import BackboneError, ExtractionError, OptionError, StoreError
from featcache.extraction.options import Options
from featcache.head_store import HeadStore
from featcache.store.cache import Cache
from featcache.store.verify import verify
from featcache.verbs.check import Means, recompute
from featcache.verbs.extract import BackboneRequest
from featcache.verbs.heads import text_head
from featcache.verbs.texts import embed_texts
from tests.backbones.clip_models import registered
from tests.verbs.test_heads import extract
from tests.verbs.test_verbs import paint

open_clip = pytest.importorskip("open_clip")

TOWERS = "random:open_clip:tiny-vit"


@pytest.fixture(autouse=True)
def _models(tmp_path, monkeypatch):
    """Register tiny models as open_clip's own: their configurations lie beside its others."""
    folder = tmp_path / "configs"
    folder.mkdir()
    real = factory._open_clip_files

    def files(request):
        found = real(request)
        return found and [folder / path.name if path.suffix == ".json" else path for path in found]

    monkeypatch.setattr(factory, "_open_clip_files", files)
    with registered(folder):
        yield


@pytest.fixture
def no_model(monkeypatch):
    """Return a function after which no text tower can be loaded."""

    def fail(request):
        raise AssertionError(f"{request.name} was loaded")

    return lambda: monkeypatch.setattr(text, "open_text_tower", fail)


@pytest.fixture
def texts():
    return TextSplit(
        name="captions",
        split="test",
        ids=tuple(str(row) for row in range(300)),
        texts=tuple(f"a photo of {row} dogs" for row in range(300)),
        labels=np.full(300, -1),
    )


def model_of(name="tiny-vit"):
    from featcache.backbones.open_clip_source import load_model
    from featcache.backbones.request import Request

    return load_model(Request(name=f"random:open_clip:{name}")).module


def test_texts_become_an_ordinary_sealed_set(texts, cache):
    one = embed_texts(TOWERS, texts, cache=cache.root)
    with torch.inference_mode():
        expected = model_of().encode_text(open_clip.get_tokenizer("tiny-vit")(list(texts.texts)))
    np.testing.assert_allclose(one.features(), expected.numpy(), atol=1e-5)
    assert verify(one.path) == []
    assert (one.spec.tap, one.spec.backbone.name) == ("text", TOWERS)
    assert one.spec.dataset == texts.identity()
    assert one.path == cache.path_of(one.spec)
    assert one.ids.tolist() == list(texts.ids)
    assert one.provenance["scale"] == pytest.approx(float(model_of().logit_scale.exp().detach()))
    assert one.provenance["offset"] == 0
    damaged = next(one.path.glob("features/c/0/*"))
    content = bytearray(damaged.read_bytes())
    content[5] ^= 1
    damaged.write_bytes(content)
    assert verify(one.path)[0].rows == (0, 299)


def test_a_second_run_loads_no_model(texts, cache, no_model):
    first = embed_texts(TOWERS, texts, cache=cache.root)
    no_model()
    assert embed_texts(TOWERS, texts, cache=cache.root).digest == first.digest
    other = dataclasses.replace(texts, split="train")
    with pytest.raises(AssertionError, match="was loaded"):
        embed_texts(TOWERS, other, cache=cache.root)


def test_a_set_is_found_by_the_image_tower_where_nothing_is_remembered(texts, cache, no_model):
    first = embed_texts(TOWERS, texts, cache=cache.root)
    shutil.rmtree(cache.root / "requests")
    images = text.image_tower_of(first.spec.backbone)
    no_model()
    assert embed_texts(TOWERS, texts, images=images, cache=cache.root).key == first.key
    other = dataclasses.replace(images, weights="ab" * 32)
    with pytest.raises(AssertionError, match="was loaded"):
        embed_texts(TOWERS, texts, images=other, cache=cache.root)


def test_texts_for_other_images_are_refused(texts, cache):
    first = embed_texts(TOWERS, texts, cache=cache.root)
    images = dataclasses.replace(text.image_tower_of(first.spec.backbone), weights="ab" * 32)
    for _ in range(2):  # remembered or not
        with pytest.raises(OptionError, match=r"weights 'abababababab'.*loads .*--checkpoint FILE"):
            embed_texts(TOWERS, texts, images=images, cache=cache.root)
        shutil.rmtree(cache.root / "requests", ignore_errors=True)


def test_whatever_decides_the_vectors_makes_another_set(texts, cache):
    sets = [
        embed_texts(TOWERS, texts, cache=cache.root),
        embed_texts(TOWERS, texts, cache=cache.root, stored="float16"),
        embed_texts("random:open_clip:tiny-bias", texts, cache=cache.root),
        embed_texts(TOWERS, dataclasses.replace(texts, texts=texts.texts[::-1]), cache=cache.root),
    ]
    assert len({one.key for one in sets}) == 4
    assert [one.features().dtype.name for one in sets[:2]] == ["float32", "float16"]
    assert sets[2].provenance["offset"] == -10


def test_a_killed_run_goes_on_where_it_stopped(texts, cache, monkeypatch):
    whole = embed_texts(TOWERS, texts, cache=cache.root / "other")
    real, seen = text.TextTower.encode, []

    def stop(self, some):
        if len(seen) == 2:  # the width, the first batch
            raise KeyboardInterrupt
        seen.append(len(some))
        return real(self, some)

    monkeypatch.setattr(text.TextTower, "encode", stop)
    with pytest.raises(KeyboardInterrupt):
        embed_texts(TOWERS, texts, cache=cache.root)
    again = []
    monkeypatch.setattr(
        text.TextTower, "encode", lambda self, some: again.append(len(some)) or real(self, some)
    )
    one = embed_texts(TOWERS, texts, cache=cache.root)
    assert (seen, again) == ([1, 256], [1, 44])
    assert one.digest == whole.digest


def test_vectors_that_cannot_be_stored_are_refused(texts, cache, monkeypatch):
    def encode(self, some):
        return np.array([[1e5 if "7 dogs" in one else 1] for one in some], np.float32)

    monkeypatch.setattr(text.TextTower, "encode", encode)
    with pytest.raises(ExtractionError, match=r"'a photo of 7 dogs' \(row 7\) is not"):
        embed_texts(TOWERS, texts, cache=cache.root, stored="float16")


def test_a_backbone_without_text_tower_is_refused(texts, cache):
    with pytest.raises(BackboneError, match="'pixels' has none here"):
        embed_texts("pixels", texts, cache=cache.root)


def test_vectors_of_texts_are_not_recomputed_as_images(texts, cache):
    one = embed_texts(TOWERS, texts, cache=cache.root)
    with pytest.raises(OptionError, match="holds vectors of texts"):
        recompute(one.path, cache, 3, Means())


def test_a_set_of_texts_travels_like_any_other(texts, cache, tmp_path):
    from featcache.verbs.merge import merge_caches
    from featcache.verbs.share import pull_sets, push_sets

    one = embed_texts(TOWERS, texts, cache=tmp_path / "there")
    merge_caches([tmp_path / "there"], cache=cache.root)
    assert cache.open(one.key).digest == one.digest
    (tmp_path / "remote").mkdir()
    push_sets(str(tmp_path / "remote"), "captions/*", cache=cache.root)
    pull_sets(str(tmp_path / "remote"), "*", cache=tmp_path / "third")
    pulled = Cache(tmp_path / "third").open(one.key)
    assert (pulled.digest, verify(pulled.path)) == (one.digest, [])
    assert pulled.provenance["scale"] == one.provenance["scale"]


@pytest.fixture
def digits(cache):
    options = Options(device="cpu", batch_size=16, workers=0)
    featcache.extract(
        backbone=TOWERS,
        dataset="digits?rows=80",
        splits=["test"],
        cache=cache.root,
        options=options,
    )


def run_probe(cache, *, backbone=TOWERS, dataset="digits-80", task="zeroshot", **given):
    return featcache.probe(
        backbone=backbone, dataset=dataset, task=task, cache=cache.root, device="cpu", **given
    )[0]


def test_zero_shot_needs_no_further_word(digits, cache, no_model):
    result = run_probe(cache)
    prompts = prompts_for("digits", [str(digit) for digit in range(10)])
    classifier = open_clip.build_zero_shot_classifier(
        model_of(),
        open_clip.get_tokenizer("tiny-vit"),
        prompts.names,
        [lambda name: f'a photo of the number: "{name}".'],
    )
    table = next(cache.stored("digits-80/test/*")).open().table()
    rows = table.features.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    expected = (rows @ classifier.numpy()).argmax(axis=1)
    np.testing.assert_array_equal(result.predictions()["prediction"], expected)
    told = result.record["details"]["head"]
    assert told["prompt_list"] == "mnist"
    assert told["templates"] == ['a photo of the number: "{}".']
    assert json.loads(json.dumps(told)) == told
    stored = next(cache.stored("prompts/mnist/*"))
    assert (stored.spec.dataset.rows, stored.spec.tap) == (10, "text")
    no_model()
    shutil.rmtree(cache.root / "heads")
    shutil.rmtree(cache.root / "requests")
    assert run_probe(cache).id == result.id  # the head is made again, of the cached vectors


@pytest.mark.parametrize("task", ["tipadapter", "lpplusplus"])
def test_adapters_make_their_head_too(cache, task, monkeypatch):
    from featcache.probes import catalog

    real = catalog.default_protocol(task)
    small = {**real.options, "shots": [1], "primary_shots": 1, "n_draws": 1, "held_out_shots": 1}
    monkeypatch.setattr(
        catalog, "default_protocol", lambda _: dataclasses.replace(real, options=small)
    )
    options = Options(device="cpu", batch_size=16, workers=0)
    featcache.extract(backbone=TOWERS, dataset="digits?rows=80", cache=cache.root, options=options)
    told = run_probe(cache, task=task).record["details"]["head"]
    assert told["prompt_list"] == "mnist"
    assert [one.key for one in HeadStore(cache.root).entries()] == [told["key"]]


def test_a_head_made_ahead_is_the_one_that_the_probe_would_make(digits, cache, no_model):
    head = text_head(TOWERS, dataset="digits?rows=80", cache=cache.root)
    no_model()
    assert run_probe(cache).record["inputs"]["head"]["key"] == head.key


def test_a_users_prompts_count_where_the_datasets_own_are_not_made(digits, cache):
    mine = text_head(TOWERS, dataset="digits-80", templates=("the digit {}",), cache=cache.root)
    assert run_probe(cache).record["inputs"]["head"]["key"] == mine.key
    own = text_head(TOWERS, dataset="digits-80", cache=cache.root)
    assert run_probe(cache).record["inputs"]["head"]["key"] == own.key
    assert run_probe(cache, head=mine.key).record["inputs"]["head"]["key"] == mine.key
    (cache.root / "heads").rename(cache.root / "gone")
    for each in ("the number {}", "number {}"):
        text_head(TOWERS, dataset="digits-80", templates=(each,), cache=cache.root)
    with pytest.raises(OptionError, match="2 fit the features"):
        run_probe(cache)


def test_prompts_of_another_dataset_with_the_same_classes_are_not_taken(cache, tmp_path):
    paint(tmp_path / "one", 4)
    paint(tmp_path / "fashion-mnist", 4)
    for name in ("fashion-mnist", "one"):
        extract(TOWERS, tmp_path / name, cache)
    first = run_probe(cache, dataset="fashion-mnist").record["details"]["head"]
    assert first["templates"] == ["a photo of a {}, a type of clothing."]
    second = run_probe(cache, dataset="one").record["details"]["head"]
    assert (second["prompt_list"], second["templates"]) == ("photo", ["a photo of a {}."])


def test_features_of_a_checkpoint_need_the_file_once(cache, tmp_path):
    torch.manual_seed(3)
    path = tmp_path / "own.pt"
    torch.save(model_of().state_dict(), path)
    request = BackboneRequest(name="open_clip:tiny-vit", checkpoint=path)
    paint(tmp_path / "one", 4)
    extract(request, tmp_path / "one", cache)
    with pytest.raises(
        StoreError, match=r"(?s)head text --backbone open_clip:tiny-vit .*--checkpoint FILE"
    ):
        run_probe(cache, backbone=request.name, dataset="one")
    head = text_head(request, dataset="one", cache=cache.root)
    found = run_probe(cache, backbone=request.name, dataset="one")
    assert found.record["inputs"]["head"]["key"] == head.key


def test_images_of_two_taps_are_told_apart(cache, tmp_path):
    paint(tmp_path / "one", 4)
    extract(TOWERS, tmp_path / "one", cache, taps=["preprojection", "projection"])
    assert run_probe(cache, dataset="one").record["tap"] == "projection"
    with pytest.raises(StoreError, match="head of kind 'text' for tap 'preprojection'"):
        run_probe(cache, dataset="one", tap="preprojection")


def test_other_templates_make_another_set_of_prompts(digits, cache):
    for templates in (None, "openai7", ("the digit {}",)):
        text_head(TOWERS, dataset="digits-80", templates=templates, cache=cache.root)
    rows = {
        one.spec.dataset.split: one.spec.dataset.rows
        for one in Cache(cache.root).stored("prompts/*/*")
    }
    assert rows == {"mnist": 10, "openai7": 70, "given": 10}
