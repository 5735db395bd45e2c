"""The verbs end to end, on images on disk and a backbone without weights."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import featcache
from featcache.errors import (
    DatasetError,
    ExtractionError,
    OptionError,
    ProtocolError,
    ShapeError,
    StoreError,
    UnknownNameError,
)
from featcache.extraction import run as extraction
from featcache.extraction.options import Options
from featcache.store.cache import Cache
from featcache.store.verify import verify
from featcache.verbs.extract import BackboneRequest

COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}


def paint(folder, n=12, *, seed=0):
    """Write `n` noisy images per colour, one folder per class."""
    rng = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for i in range(n):
            noise = rng.integers(-40, 40, (20, 24, 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i:02d}.png")
    return folder


@pytest.fixture
def photos(tmp_path):
    return paint(tmp_path / "photos")


@pytest.fixture
def extract(cache):
    def run(source, **given):
        fields = {"backbone": "pixels", "cache": cache.root, **given}
        return featcache.extract(dataset=str(source), **fields)

    return run


@pytest.fixture
def probe(cache):
    def run(source, task="knn", **given):
        fields = {"backbone": "pixels", "cache": cache.root, "device": "cpu", **given}
        return featcache.probe(dataset=str(source), task=task, **fields)

    return run


def test_a_folder_is_extracted_once_and_probed_without_its_images(extract, probe, photos):
    source = f"imagefolder:{photos}"
    first = extract(source)
    assert [one.computed for one in first] == [36]
    assert [one.computed for one in extract(source)] == [0]
    shutil.rmtree(photos)
    result, stored = probe(source)
    assert (result.score, stored) == (1.0, False)
    assert result.record["inputs"]["held_out"] == 0.2
    again, stored = probe("photos")
    assert (again.id, stored) == (result.id, True)


def test_a_cached_set_is_found_without_torch(extract, photos, cache):
    extract(f"imagefolder:{photos}")
    code = (
        "import sys, featcache\n"
        "source, cache = sys.argv[1:]\n"
        "done = featcache.extract(backbone='pixels', dataset=source, cache=cache)\n"
        "assert done and not any(one.computed for one in done), done\n"
        "heavy = {'torch', 'timm', 'torchvision', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    command = [sys.executable, "-c", code, f"imagefolder:{photos}", str(cache.root)]
    subprocess.run(command, check=True)


def test_maps_are_stored_with_their_shape_beside_what_is_pooled(extract, probe, photos):
    sets = extract(
        f"imagefolder:{photos}", backbone="random:convnext_atto", taps=["map16", "pooled"]
    )
    maps, pooled = (featcache.open(str(one.path)).features() for one in sets)
    assert maps.shape == (36, 160, 14, 14)
    assert pooled.shape == (36, 320)
    with pytest.raises(ShapeError, match="takes one vector per image; tap .map16. gives"):
        probe("photos", backbone="random:convnext_atto", tap="map16")


def test_features_too_large_to_be_written_by_chance_are_refused(extract, photos, cache):
    given = {"backbone": "random:convnext_atto", "taps": ["map4", "pooled"]}
    size = 36 * 2 * (40 * 56 * 56 + 320)
    with pytest.raises(
        OptionError, match=r"at most 0.00905 GB .* photos/all would take map4 0.00903 GB"
    ):
        extract(f"imagefolder:{photos}", options=Options(max_bytes=size - 1), **given)
    assert cache.paths() == []
    assert extract(f"imagefolder:{photos}", options=Options(max_bytes=size), **given)
    shutil.rmtree(cache.root)
    assert extract(f"imagefolder:{photos}", options=Options(max_bytes=None), **given)


@pytest.mark.parametrize("task", ["linear", "knn", "retrieval"])
def test_each_task_separates_colours(extract, probe, photos, task):
    extract(f"imagefolder:{photos}")
    result, _ = probe("photos", task)
    assert result.score == 1.0
    predictions = result.predictions()
    assert len(set(predictions["id"])) == len(predictions["id"]) == result.record["n"]


def test_a_command_names_the_source_that_was_extracted_not_its_name_in_the_cache(extract, probe):
    extract("digits?rows=30")
    with pytest.raises(ProtocolError, match=r"--dataset 'digits\?rows=30'"):
        probe("digits-30", task=None, protocol="dino-knn@1")
    with pytest.raises(StoreError, match=r"--dataset 'digits\?rows=30'"):
        probe("digits-30", backbone="random:test_vit")


def test_ood_tells_another_dataset_apart(extract, probe, photos, tmp_path):
    noise = tmp_path / "noise" / "one"
    noise.mkdir(parents=True)
    rng = np.random.default_rng(1)
    for i in range(10):
        Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)).save(noise / f"{i}.png")
    extract(f"imagefolder:{photos}")
    extract(f"imagefolder:{noise.parent}")
    result, _ = probe("photos", "ood", ood_datasets=["noise"])
    assert result.score > 0.9
    assert result.record["inputs"]["ood"]["noise"]["rows"] == 10
    assert "positive" in json.dumps(result.record["details"])


def test_a_further_ood_set_is_scored_on_what_was_learnt_before(
    extract, probe, tmp_path, monkeypatch, cache
):
    from featcache.probes.ood import own_head

    paint(tmp_path / "photos")
    for seed, name in enumerate(["first", "second"], start=1):
        noise = tmp_path / name / "one"
        noise.mkdir(parents=True)
        rng = np.random.default_rng(seed)
        for i in range(8):
            Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)).save(noise / f"{i}.png")
    for name in ("photos", "first", "second"):
        extract(f"imagefolder:{tmp_path / name}")
    one, _ = probe("photos", "ood", ood_datasets=["first"])
    alone, _ = probe("photos", "ood", ood_datasets=["second"])
    shutil.rmtree(cache.root / "results")
    monkeypatch.setattr(own_head, "fit_and_hold_out", None)
    other, _ = probe("photos", "ood", ood_datasets=["second"])
    assert other.record["metrics"] == alone.record["metrics"]
    assert other.record["details"] == alone.record["details"]
    assert one.record["details"]["head_key"] == other.record["details"]["head_key"]
    assert len(list((cache.root / "heads").rglob("*.safetensors"))) == 1
    assert len(list((cache.root / "fits").rglob("*.safetensors"))) == 1


def test_train_and_test_folders_are_used_as_such(extract, probe, tmp_path):
    paint(tmp_path / "set" / "train")
    paint(tmp_path / "set" / "test", 5, seed=1)
    assert [one.spec.dataset.split for one in extract(f"imagefolder:{tmp_path / 'set'}")] == [
        "train",
        "test",
    ]
    result, _ = probe("set")
    assert result.record["n"] == 15
    assert "held_out" not in result.record["inputs"]


def test_a_moved_folder_has_the_same_key_and_a_changed_image_another(extract, photos, tmp_path):
    key = extract(f"imagefolder:{photos}")[0].spec.key
    moved = tmp_path / "elsewhere" / "photos"
    moved.parent.mkdir()
    photos.rename(moved)
    assert extract(f"imagefolder:{moved}")[0].spec.key == key
    Image.new("RGB", (20, 24)).save(moved / "red" / "00.png")
    assert extract(f"imagefolder:{moved}")[0].spec.key != key


def test_the_set_of_the_folder_as_it_is_now_is_probed(extract, probe, photos, tmp_path):
    first = extract(f"imagefolder:{photos}")[0].spec.key
    aside = tmp_path / "aside"
    (photos / "blue").rename(aside)
    second = extract(f"imagefolder:{photos}")[0].spec.key

    def probed(source, **given):
        return probe(source, **given)[0].record["inputs"]["test"]["key"]

    assert probed(f"imagefolder:{photos}") == second
    aside.rename(photos / "blue")
    assert probed(f"imagefolder:{photos}") == first
    with pytest.raises(OptionError, match="One version of photos/all must be meant; several"):
        probe("photos")
    assert probed("photos", key=second[:12]) == second


def test_another_folder_of_the_same_name_is_not_probed(extract, probe, photos, tmp_path):
    other = paint(tmp_path / "other" / "photos", 9, seed=3)
    extract(f"imagefolder:{photos}")
    with pytest.raises(StoreError, match="featcache extract --backbone pixels"):
        probe(f"imagefolder:{other}")


def test_images_that_change_while_they_are_embedded_are_not_sealed(extract, photos, monkeypatch):
    real = extraction.Extraction._fill

    def fill(self):
        real(self)
        Image.new("RGB", (9, 9)).save(photos / "red" / "00.png")

    before = (photos / "red" / "00.png").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(extraction.Extraction, "_fill", fill)
        with pytest.raises(ExtractionError, match="Images must not change while"):
            extract(f"imagefolder:{photos}")
    assert extract(f"imagefolder:{photos}")[0].computed == 36
    (photos / "red" / "00.png").write_bytes(before)  # nothing of the first run counts for its key
    assert extract(f"imagefolder:{photos}")[0].computed == 36


def test_options_that_contradict_the_protocol_are_refused(extract, photos):
    with pytest.raises(ProtocolError, match="`tap` must be 'cls' or 'pooled'; got 'logits'"):
        extract(
            f"imagefolder:{photos}",
            backbone=BackboneRequest(name="efficientnet_lite0", protocol="dino-knn@1"),
            taps=["logits"],
        )


def test_unreadable_images_are_rows_with_a_reason_for_every_backbone(extract, probe, photos, cache):
    (photos / "red" / "00.png").write_bytes(b"")
    data = (photos / "green" / "03.png").read_bytes()
    (photos / "green" / "03.png").write_bytes(data[: len(data) // 2])
    done = extract(f"imagefolder:{photos}")[0]
    assert done.unreadable == 2
    one = featcache.open(done.spec.key[:8], cache=cache.root)
    reasons = {one.ids[row]: why for row, why in one.reasons.items()}
    assert reasons["red/00.png"] == "empty file"
    assert "truncated" in reasons["green/03.png"]
    assert probe("photos", "retrieval")[0].record["n"] == 34


def test_a_user_factory_is_extracted_and_probed_by_its_name(
    extract, probe, photos, tmp_path, monkeypatch
):
    (tmp_path / "mynet_for_test.py").write_text(
        "import torch\n"
        "def build():\n"
        "    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())\n"
    )
    monkeypatch.chdir(tmp_path)
    extract(f"imagefolder:{photos}", backbone="mynet_for_test:build")
    assert probe("photos", backbone="mynet_for_test:build")[0].score == 1.0


def test_a_missing_feature_set_is_answered_with_the_command_that_makes_it(extract, probe, photos):
    with pytest.raises(
        StoreError,
        match=r"it has none. Extract it with:\n  featcache extract "
        r"--backbone pixels --dataset imagefolder:\S+ --protocol knn@1$",
    ):
        probe(f"imagefolder:{photos}")
    extract(f"imagefolder:{photos}")
    with pytest.raises(StoreError, match="it has those of pixels"):
        probe(f"imagefolder:{photos}", backbone="resnet50")


def test_a_protocol_refuses_features_it_was_not_defined_for(extract, probe, photos):
    extract(f"imagefolder:{photos}")
    with pytest.raises(
        ProtocolError,
        match=r"Protocol dino-knn@1 does not fit.*`transform.resize` "
        r"must be 256; got .*Extract what it requires with:\n.*--protocol dino-knn",
    ):
        probe(f"imagefolder:{photos}", protocol="dino-knn@1")


def test_the_command_a_protocol_gives_makes_features_that_fit(extract, probe, photos):
    request = BackboneRequest(name="random:resnet10t", protocol="dino-knn@1")
    spec = extract(f"imagefolder:{photos}", backbone=request)[0].spec
    assert (spec.transform["resize"], spec.transform["crop"]) == (256, 224)
    result, _ = probe("photos", backbone="random:resnet10t", protocol="dino-knn@1")
    assert result.record["protocol"] == "dino-knn@1"
    assert {"top1@10", "top1@20"} <= result.record["metrics"].keys()


def test_several_recipes_are_never_guessed_between(extract, probe, photos):
    extract(f"imagefolder:{photos}")
    half = extract(
        f"imagefolder:{photos}", backbone=BackboneRequest(name="pixels", stored="float32")
    )[0]
    with pytest.raises(OptionError, match="which differ in numerics.stored.*Choose with --tap"):
        probe("photos")
    result, _ = probe("photos", key=half.spec.key[:12])
    assert result.record["inputs"]["test"]["key"] == half.spec.key


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"dataset": "imagefolder:/no/such/dir"}, DatasetError, "no/such/dir"),
        ({"dataset": "digit"}, UnknownNameError, "Did you mean 'digits'"),
        ({"backbone": "pixel"}, UnknownNameError, "Did you mean 'pixels'"),
        ({"taps": ["cls"]}, OptionError, "must be one of pooled; got cls"),
        ({"splits": ["tset"]}, DatasetError, "must be one of train, test"),
    ],
)
def test_misuse_of_extract_is_one_clear_message(cache, given, error, message):
    fields = {"backbone": "pixels", "dataset": "digits?rows=20", "cache": cache.root, **given}
    with pytest.raises(error, match=message):
        featcache.extract(**fields)
    assert not list(cache.root.rglob("*.zarr"))


def test_an_empty_class_is_named(extract, photos):
    (photos / "yellow").mkdir()
    with pytest.raises(DatasetError, match="yellow"):
        extract(f"imagefolder:{photos}")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"task": None}, "needs a task or a protocol"),
        ({"task": "ood"}, "Add --ood-dataset"),
        ({"task": "knn", "ood_datasets": ["x"]}, "takes no --ood-dataset"),
        ({"task": "linear", "protocol": "knn@1"}, "is for task 'knn'; got --task linear"),
        ({"task": "lineer"}, "Did you mean 'linear'"),
        ({"task": "ood", "ood_datasets": ["photos"]}, "must be another than 'photos'"),
    ],
)
def test_misuse_of_probe_is_one_clear_message(extract, probe, photos, given, message):
    extract(f"imagefolder:{photos}")
    with pytest.raises(OptionError, match=message):
        probe("photos", **given)


def test_everything_extracted_is_sound(extract, photos):
    for one in extract(f"imagefolder:{photos}"):
        assert verify(one.path) == []
        assert Cache(one.path.parents[4]).path_of(one.spec) == one.path
