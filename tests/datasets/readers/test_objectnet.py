"""ObjectNet: its red border, and which of its classes are ImageNet's."""

import json

import numpy as np
import pytest
from PIL import Image

from featcache.datasets.catalog import open_dataset
from featcache.errors import DatasetError

FOLDERS = {"air_freshener": "Air freshener", "alarm_clock": "Alarm clock", "banana": "Banana"}
OVERLAP = {"Alarm clock": "analog clock; digital clock", "Banana": "banana"}
LABELS = ["kit fox, Vulpes macrotis", "banana", "analog clock", "digital clock"]
NUMBERS = {"954": 1, "409": 2, "530": 3, "278": 0}  # index of a class to its number in 2012


@pytest.fixture
def root(tmp_path):
    for seed, folder in enumerate(FOLDERS):
        (tmp_path / "images" / folder).mkdir(parents=True)
        pixels = np.zeros((14, 12, 3), np.uint8)
        pixels[..., 0] = 255
        pixels[2:-2, 2:-2] = np.arange(80).reshape(10, 8, 1) + seed
        for name in ("b.png", "a.png"):
            Image.fromarray(pixels).save(tmp_path / "images" / folder / name)
    mappings = tmp_path / "mappings"
    mappings.mkdir()
    (mappings / "folder_to_objectnet_label.json").write_text(json.dumps(FOLDERS))
    (mappings / "objectnet_to_imagenet_1k.json").write_text(json.dumps(OVERLAP))
    (mappings / "pytorch_to_imagenet_2012_id.json").write_text(json.dumps(NUMBERS))
    (mappings / "imagenet_to_label_2012_v2").write_text("\n".join(LABELS) + "\n")
    return tmp_path


def test_only_the_classes_that_imagenet_has_too_are_in_objectnet(root):
    split = open_dataset(f"objectnet@{root}?part").load("test")
    assert split.class_names == ("alarm_clock", "banana")
    assert split.ids[:2] == ("alarm_clock/a.png", "alarm_clock/b.png")
    assert split.labels.tolist() == [0, 0, 1, 1]
    assert split.facts["imagenet_classes"] == {
        "alarm_clock": ["n02708093", "n03196217"],
        "banana": ["n07753592"],
    }


def test_all_classes_are_in_the_other(root):
    split = open_dataset(f"objectnet-all@{root}?part").load("test")
    assert split.class_names == tuple(FOLDERS)
    assert len(split) == 6


def test_no_red_is_left_of_the_border(root):
    split = open_dataset(f"objectnet@{root}?part").load("test")
    pixels = np.asarray(split.images.read(0))
    np.testing.assert_array_equal(pixels[..., 0], np.arange(80).reshape(10, 8) + 1)


def test_tables_that_do_not_fit_are_refused(root):
    pairs = root / "mappings" / "objectnet_to_imagenet_1k.json"
    pairs.write_text(json.dumps({"Banana": "plantain"}))
    with pytest.raises(DatasetError, match="'Banana': 'plantain' names classes that other tables"):
        open_dataset(f"objectnet@{root}?part").load("test")
    pairs.write_text("{")
    with pytest.raises(DatasetError, match=r"objectnet_to_imagenet_1k.json is no JSON"):
        open_dataset(f"objectnet@{root}?part").load("test")
    pairs.unlink()
    with pytest.raises(DatasetError, match=r"no 'mappings/objectnet_to_imagenet_1k.json'. Fetch"):
        open_dataset(f"objectnet@{root}?part").load("test")
