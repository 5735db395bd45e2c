"""Stored heads through the verbs: made, kept, chosen, and refused where they do not fit."""

import dataclasses
import functools
import json

import numpy as np
import pytest
from PIL import Image

import featcache
from featcache.errors import BackboneError, OptionError, ShapeError, StoreError
from featcache.extraction.options import Options
from featcache.head_store import HeadStore, StoredHead
from featcache.probes.linear.head import LinearHead
from featcache.result_store import FittedHead
from featcache.spec import BackboneIdentity
from featcache.verbs.heads import chosen_templates, native_head, text_head
from tests.backbones.clip_models import registered
from tests.verbs.test_verbs import paint


def extract(backbone, folder, cache, **given):
    options = Options(device="cpu", batch_size=4, workers=0)
    source = f"imagefolder:{folder}"
    featcache.extract(backbone=backbone, dataset=source, cache=cache.root, options=options, **given)


@pytest.fixture
def sets(cache, tmp_path):
    """Extract one folder of colours, and another of the same colours."""
    for name, seed in (("one", 0), ("two", 1)):
        paint(tmp_path / name, 6, seed=seed)
        extract("pixels", tmp_path / name, cache)


@pytest.fixture
def probe(cache):
    def run(dataset="one", task="linear", **given):
        fields = {"backbone": "pixels", "cache": cache.root, "device": "cpu", **given}
        return featcache.probe(dataset=dataset, task=task, **fields)[0]

    return run


@pytest.fixture
def fitting(monkeypatch):
    """Let the task `linear` give its head back, as a fake runner around the real fit."""
    from featcache.probes.linear import task
    from featcache.probes.linear.options import LinearOptions
    from featcache.probes.linear.probe import fit_linear

    real = task.run_linear

    def run(protocol, inputs):
        outcome = real(protocol, inputs)
        rng = np.random.default_rng(inputs.seed)
        order = np.argsort(inputs.train.ids)
        table = inputs.train.take(order)
        options = LinearOptions(strengths=(1.0,))
        head = fit_linear(table.features, table.labels, options, rng)
        names = tuple(table.class_names[c] for c in head.classes)
        fitted = FittedHead(weights=head.weights, bias=head.bias, class_names=names)
        return dataclasses.replace(outcome, head=fitted)

    monkeypatch.setattr(task, "run_linear", run)


def stored(cache):
    return HeadStore(cache.root)


def spec_of(cache):
    return next(iter(cache.stored())).spec


def made(cache, **given):
    """Keep a head of any numbers for the cached features."""
    spec = spec_of(cache)
    fields = {
        "kind": "native",
        "weights": np.random.default_rng(0).normal(size=(768, 3)),
        "bias": np.zeros(3),
        "class_names": ("blue", "green", "red"),
        "backbone": spec.backbone,
        "tap": spec.tap,
    }
    return stored(cache).save(StoredHead(**{**fields, **given}))


def test_a_fitted_head_is_kept_and_scores_another_dataset(sets, fitting, probe, cache):
    result = probe()
    key = result.record["details"]["head_key"]
    head = stored(cache).find(key)
    assert head.kind == "probe"
    assert head.class_names == ("blue", "green", "red")
    assert head.origin["result"] == result.id
    assert head.origin["inputs"]["train"]["digest"]
    assert head.origin["options"]["strengths"]
    other = probe("two", "head", head=key)
    assert other.score == 1.0
    assert other.record["inputs"]["head"] == {"key": key, "kind": "probe", "digest": head.digest}
    assert other.record["n"] == 18
    table = next(one for one in cache.stored("two/*/*")).open().table()
    expected = LinearHead.of_stored(head).logits(table.features).argmax(axis=1)
    np.testing.assert_array_equal(other.predictions()["prediction"], expected)


def test_one_question_has_one_head_and_another_seed_another(sets, fitting, probe, cache):
    keys = [probe(seed=seed).record["details"]["head_key"] for seed in (0, 0, 1)]
    assert keys[0] == keys[1] != keys[2]
    assert len(stored(cache).entries()) == 2


def test_a_task_that_fits_no_head_keeps_none(sets, probe, cache):
    assert "head_key" not in probe(task="knn").record["details"]
    assert stored(cache).entries() == []


def test_the_only_head_is_taken_and_of_several_one_must_be_named(sets, probe, cache):
    with pytest.raises(
        StoreError,
        match=r"(?s)must be a head for tap 'pooled' of 'pixels' .*head native --backbone pix",
    ):
        probe("two", "head")
    first = made(cache)
    assert probe("two", "head").record["inputs"]["head"]["key"] == first.key
    second = made(cache, kind="probe")
    assert probe("two", "head", head="probe").record["inputs"]["head"]["key"] == second.key
    with pytest.raises(OptionError, match="2 fit the features of 'pixels'.*--head KEY") as error:
        probe("two", "head")
    assert first.key[:12] in str(error.value)
    named = probe("two", "head", head=first.key[:12])
    assert named.record["inputs"]["head"]["kind"] == "native"
    assert named.id != probe("two", "head", head="probe").id


def test_of_several_heads_the_one_that_knows_the_classes_is_meant(sets, probe, cache):
    made(cache, class_names=("a", "b", "c"))
    right = made(cache)
    assert probe("two", "head").record["inputs"]["head"]["key"] == right.key


@pytest.mark.parametrize(
    ("kind", "command"),
    [
        ("native", "featcache head native --backbone pixels"),
        ("probe", "featcache probe --task linear --backbone pixels --dataset two"),
    ],
)
def test_a_missing_head_is_answered_with_the_command_that_makes_it(sets, probe, kind, command):
    with pytest.raises(StoreError, match=f"head of kind '{kind}' .*there is none") as error:
        probe("two", "head", head=kind)
    assert str(error.value).endswith(command)


def test_class_names_need_a_text_tower(sets, probe, cache):
    for asked in ({"task": "zeroshot"}, {"task": "head", "head": "text"}):
        with pytest.raises(BackboneError, match=r"'pixels' has none here.*ls backbones '\*_open"):
            probe("two", **asked)
    with pytest.raises(BackboneError, match="'pixels' has none here"):
        text_head("pixels", dataset="nowhere", cache=cache.root)


def test_a_head_of_other_features_is_refused_with_both_names(sets, probe, cache):
    other = BackboneIdentity(name="net", architecture="a", weights="ef" * 32)
    foreign = made(cache, backbone=other)
    with pytest.raises(
        OptionError,
        match=r"tap 'pooled' of 'pixels' \(none, weights ''\); head \w+ reads tap 'pooled' of "
        r"'net' \(a, weights 'efefefefefef'\)",
    ):
        probe("two", "head", head=foreign.key)
    with pytest.raises(StoreError, match="there are those of 'net' at 'pooled'"):
        probe("two", "head", head="native")
    nameless = made(cache, backbone=dataclasses.replace(other, weights=""))
    with pytest.raises(OptionError, match="of 'net'"):
        probe("two", "head", head=nameless.key)


def test_a_head_at_another_tap_asks_for_features_of_its_tap(sets, probe, cache):
    made(cache, tap="cls")
    with pytest.raises(StoreError, match="(?s)at tap 'cls'.*--tap cls"):
        probe("two", "head")
    with pytest.raises(
        StoreError, match="for tap 'pooled' .* there are those of 'pixels' at 'cls'"
    ):
        probe("two", "head", tap="pooled")


def test_a_head_of_the_same_weights_in_another_architecture_is_refused(sets, probe, cache):
    network = dataclasses.replace(spec_of(cache).backbone, architecture="quickgelu")
    head = made(cache, backbone=network)
    with pytest.raises(StoreError, match="There must be a head of kind 'native'"):
        probe("two", "head", head="native")
    with pytest.raises(OptionError, match=r"A head must read the features at hand.*\(quickgelu,"):
        probe("two", "head", head=head.key[:12])


def test_a_task_without_heads_takes_none(sets, probe, cache):
    with pytest.raises(OptionError, match="Task 'knn' takes no --head; leave it out"):
        probe(task="knn", head="native")


def test_an_unknown_key_is_refused(sets, probe):
    with pytest.raises(OptionError, match="starts with 'abc'; none does.*ls heads"):
        probe("two", "head", head="abc")


def test_a_head_reads_features_as_extracted(sets, probe, cache):
    made(cache)
    for given in ({"derive": "l2"}, {"derive": "pca:4"}):
        with pytest.raises(OptionError, match="as the network gave them.*--derive and --concat"):
            probe("two", "head", head="native", **given)


def test_views_keep_no_head_but_their_baseline_does(sets, fitting, probe, cache):
    result = probe(derive="pca:4")
    assert "head_key" not in result.record["details"]
    assert [one.origin["options"] for one in stored(cache).entries()] == [result.record["options"]]


def test_classes_that_the_head_lacks_are_named(sets, probe, cache):
    made(cache, class_names=("blue", "g", "r"))
    with pytest.raises(ShapeError, match="2 of 3 are not: 'green', 'red'"):
        probe("two", "head", head="native")


@functools.cache
def photographs():
    data = pytest.importorskip("skimage.data")
    from sklearn.datasets import load_sample_image

    return {  # WordNet's tabby, espresso, palace and daisy
        "n02123045": data.chelsea(),
        "n07920052": data.coffee(),
        "n03877845": load_sample_image("china.jpg"),
        "n11939491": load_sample_image("flower.jpg"),
    }


def test_a_networks_own_head_names_cached_photographs(probe, cache, tmp_path):
    for name, pixels in photographs().items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / "photos" / name / "0.png")
    extract("efficientnet_lite0", tmp_path / "photos", cache, taps=["pooled", "logits"])
    head = native_head("efficientnet_lite0", cache=cache.root)
    result = probe("photos", "head", backbone="efficientnet_lite0")
    assert result.record["inputs"]["head"]["key"] == head.key
    assert result.record["tap"] == "pooled"
    assert result.score == 1
    tables = {one.spec.tap: one.open().table() for one in cache.stored()}
    logits = LinearHead.of_stored(head).logits(tables["pooled"].features)
    expected = tables["logits"].features.astype(np.float64)
    assert np.abs(logits - expected).max() < 1e-2 * np.abs(expected).max()


@pytest.fixture
def towers(cache, tmp_path):
    """Extract colours with the untrained image tower of a tiny open_clip model."""
    pytest.importorskip("open_clip")
    (tmp_path / "configs").mkdir()
    with registered(tmp_path / "configs"):
        paint(tmp_path / "one")
        extract("random:open_clip:tiny-vit", tmp_path / "one", cache)
        yield "random:open_clip:tiny-vit"


def test_class_names_of_a_cached_dataset_become_a_head(towers, probe, cache):
    head = text_head(towers, dataset="one", cache=cache.root)
    assert head.class_names == ("blue", "green", "red")
    result = probe("one", "head", backbone=towers, head="text")
    table = cache.open(spec_of(cache).key).table()
    unit = table.features / np.linalg.norm(table.features.astype(float), axis=1, keepdims=True)
    expected = (unit @ head.weights).argmax(axis=1)
    np.testing.assert_array_equal(result.predictions()["prediction"], expected)
    assert result.score == np.mean(expected == table.labels)
    assert text_head(towers, dataset="one", cache=cache.root).key == head.key
    more = text_head(towers, dataset="one", templates="openai7", cache=cache.root)
    assert more.key != head.key
    assert len(more.origin["templates"]) == 7


def test_class_names_of_a_file_become_a_head(towers, cache, tmp_path):
    file = tmp_path / "classes.txt"
    file.write_text("red\nn01\ttench\n\nblau\tblue sky \n", encoding="utf-8")
    head = text_head(towers, classes=file, cache=cache.root)
    assert head.class_names == ("red", "n01", "blau")
    assert head.origin["prompt_names"] == ["red", "tench", "blue sky"]


def test_classes_must_come_from_one_place(cache, tmp_path):
    for given in ({}, {"dataset": "one", "classes": tmp_path / "x"}):
        with pytest.raises(OptionError, match="from a cached dataset or from a file; got"):
            text_head("random:open_clip:ViT-B-32", cache=cache.root, **given)
    with pytest.raises(StoreError, match="must hold a set of 'digits' to read its classes from"):
        text_head("random:open_clip:ViT-B-32", dataset="digits", cache=cache.root)
    with pytest.raises(StoreError, match="Could not read"):
        text_head("random:open_clip:ViT-B-32", classes=tmp_path / "none", cache=cache.root)
    (tmp_path / "empty").write_text("\n \n")
    with pytest.raises(OptionError, match="must have a line of text"):
        text_head("random:open_clip:ViT-B-32", classes=tmp_path / "empty", cache=cache.root)
    (tmp_path / "latin").write_bytes(b"caf\xe9\n")
    with pytest.raises(OptionError, match="must be UTF-8 text"):
        text_head("random:open_clip:ViT-B-32", classes=tmp_path / "latin", cache=cache.root)


def test_templates_come_one_by_one_from_a_file_or_by_name(cache, tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("a {}\n\nthe {}\n")
    assert chosen_templates(["x {}"], None) == ("x {}",)
    assert chosen_templates([], None) is None
    assert chosen_templates([], str(file)) == ["a {}", "the {}"]
    assert chosen_templates([], "openai7") == "openai7"
    with pytest.raises(OptionError, match="got both"):
        chosen_templates(["x {}"], "openai7")
    (tmp_path / "c").write_text("a\n")
    with pytest.raises(OptionError, match="one of the lists photo, openai7, .*; got 'openai80'"):
        text_head(
            "random:open_clip:ViT-B-32",
            classes=tmp_path / "c",
            templates="openai80",
            cache=cache.root,
        )


def test_a_record_with_a_head_is_plain_json(sets, probe, cache):
    made(cache)
    record = probe("two", "head").record
    assert json.loads(json.dumps(record)) == record
