"""torchvision's datasets, on files of their exact layout."""

import bz2
import json
import struct

import numpy as np
import pytest

from featcache.datasets.catalog import dataset_name, open_dataset
from featcache.datasets.memo import FileDigestMemo
from featcache.datasets.named import named
from featcache.errors import DatasetError, UnknownNameError
from tests.datasets.pictures import noise, write
from tests.datasets.test_embedded import clothes, idx


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("FEATCACHE_DATA", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", ["FashionMNIST", "MNIST", "KMNIST"])
def test_grey_arrays_are_read_from_idx_files(root, name):
    clothes(root / name / "raw")
    data = open_dataset(f"torchvision:{name}")
    assert (data.name, data.splits) == (name, ("train", "test"))
    split = data.load("test")
    assert (len(split), split.ids[3], len(split.class_names)) == (10, "test/00003", 10)
    np.testing.assert_array_equal(
        np.asarray(split.images.read(4))[:, :, 2], noise(10, 28, 28, seed=10)[4]
    )
    assert split.labels.tolist() == list(range(10))
    assert split.facts["chance"] == 0.1


def test_channels_first_arrays_become_channels_last():
    from featcache.datasets.torchvision import _arrays

    class Inner:
        data, labels = noise(2, 3, 5, 5), [1, 0]

    images, labels = _arrays(Inner)
    np.testing.assert_array_equal(np.asarray(images.read(1)), Inner.data[1].transpose(1, 2, 0))
    assert labels.tolist() == [1, 0]


def test_folders_of_classes_have_file_ids_and_one_split(root):
    for i in range(10):
        write(root / "eurosat" / "2750" / f"Class{i}" / "1.png", i)
    data = open_dataset("torchvision:EuroSAT")
    assert data.splits == ("all",)
    split = data.load("all")
    assert split.ids[1] == "eurosat/2750/Class1/1.png"
    assert split.class_names[9] == "Class9"
    assert split.labels.tolist() == list(range(10))
    assert split.images.read(0).size == (5, 5)


def test_lists_of_files_are_read_and_sorted(root):
    base = root / "dtd" / "dtd"
    for folder, text in (("train", "b/2.jpg\na/1.jpg\n"), ("val", "a/3.jpg\n"), ("test", "")):
        (base / "labels").mkdir(parents=True, exist_ok=True)
        (base / "labels" / f"{folder}1.txt").write_text(text)
    write(base / "images" / "a" / "1.jpg")
    data = open_dataset("torchvision:DTD")
    assert data.splits == ("train", "val", "test")
    split = data.load("train")
    assert split.ids == ("dtd/dtd/images/a/1.jpg", "dtd/dtd/images/b/2.jpg")
    assert split.class_names == ("a", "b")
    assert split.images.read(0).size == (5, 5)
    assert split.images.digests(FileDigestMemo())[1] == ""


def test_pets_train_is_the_official_trainval(root):
    folder = root / "oxford-iiit-pet"
    (folder / "annotations").mkdir(parents=True)
    (folder / "images").mkdir()
    (folder / "annotations" / "trainval.txt").write_text("Abyssinian_1 1 1 1\nred_setter_2 2 2 1\n")
    split = open_dataset("torchvision:OxfordIIITPet").load("train")
    assert split.class_names == ("Abyssinian", "Red Setter")
    assert split.ids[1] == "oxford-iiit-pet/images/red_setter_2.jpg"
    assert split.facts["torchvision"] == {"split": "trainval"}


def test_food_is_read_from_its_json(root):
    folder = root / "food-101"
    (folder / "meta").mkdir(parents=True)
    (folder / "images").mkdir()
    (folder / "meta" / "test.json").write_text(json.dumps({"pie": ["pie/1"], "ale": ["ale/2"]}))
    split = open_dataset("torchvision:Food101").load("test")
    assert split.ids == ("food-101/images/ale/2.jpg", "food-101/images/pie/1.jpg")
    assert split.labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("name", "folder", "file"),
    [
        ("Caltech101", "101_ObjectCategories", "image_{:04d}.jpg"),
        ("Caltech256", "256_ObjectCategories", "001_{:04d}.jpg"),
    ],
)
def test_caltechs_files_are_numbered(root, name, folder, file):
    base = root / name.lower() / folder
    write(base / "001.cat" / file.format(1))
    write(base / "001.cat" / file.format(2))
    if name == "Caltech101":
        (base / "BACKGROUND_Google").mkdir()
    split = open_dataset(f"torchvision:{name}").load("all")
    assert split.ids[1] == f"{name.lower()}/{folder}/001.cat/{file.format(2)}"
    assert split.images.read(1).size == (5, 5)
    assert split.class_names == ("001.cat",)


def test_a_root_may_be_given_in_the_name(tmp_path, monkeypatch):
    monkeypatch.delenv("FEATCACHE_DATA", raising=False)
    clothes(tmp_path / "my data" / "MNIST" / "raw")
    split = open_dataset(f"torchvision:MNIST@{tmp_path / 'my data'}").load("train")
    assert len(split) == 20
    assert dataset_name("torchvision:MNIST@C:\\data") == "MNIST"


def test_without_a_root_it_says_how_to_give_one(monkeypatch):
    monkeypatch.delenv("FEATCACHE_DATA", raising=False)
    with pytest.raises(DatasetError, match=r"Set FEATCACHE_DATA, or write torchvision:MNIST@ROOT"):
        open_dataset("torchvision:MNIST")


def test_missing_files_are_told_with_the_line_that_gets_them(root):
    with pytest.raises(
        DatasetError,
        match=r"must lie in '.*' as torchvision .* Get them with: python -c \"from "
        r"torchvision.datasets import CIFAR10; CIFAR10\('.*', train=False, download=True\)\"",
    ):
        open_dataset("torchvision:CIFAR10").load("test")
    with pytest.raises(DatasetError, match=r"EuroSAT\('[^']*', download=True\)"):
        open_dataset("torchvision:EuroSAT").load("all")
    with pytest.raises(DatasetError, match=r"Get them with: by hand, .* cannot download"):
        open_dataset("torchvision:StanfordCars").load("train")
    with pytest.raises(DatasetError, match=r"got: there is no folder '/nope'"):
        open_dataset("torchvision:SVHN@/nope").load("train")


def test_damaged_files_are_a_dataset_error(root):
    raw = clothes(root / "MNIST" / "raw")
    (raw / "t10k-labels-idx1-ubyte").write_bytes(b"junk")
    with pytest.raises(DatasetError, match="as torchvision lays them out; got: "):
        open_dataset("torchvision:MNIST").load("test")


def test_labels_beyond_the_classes_are_refused(root):
    raw = clothes(root / "MNIST" / "raw")
    (raw / "t10k-labels-idx1-ubyte").write_bytes(idx(np.full(10, 11, np.uint8)))
    with pytest.raises(DatasetError, match=r"must be below 10, .*; got 11\.\.11\. Fetch"):
        open_dataset("torchvision:MNIST").load("test")


def test_an_unknown_class_is_answered_with_near_ones():
    with pytest.raises(UnknownNameError, match="Did you mean 'torchvision:CIFAR10' or"):
        open_dataset("torchvision:CIFAR11")


def test_every_named_class_exists_and_takes_its_arguments():
    import inspect

    import torchvision.datasets

    for name, facts in named().items():
        if name.startswith("torchvision:"):
            parameters = inspect.signature(
                getattr(torchvision.datasets, name.partition(":")[2])
            ).parameters
            for arguments in facts["splits"].values():
                assert set(arguments) <= set(parameters), name


def test_usps_is_read_from_its_text(root):
    line = "3 " + " ".join(f"{i + 1}:{v:.2f}" for i, v in enumerate(np.linspace(-1, 1, 256)))
    (root / "usps.t.bz2").write_bytes(bz2.compress(f"{line}\n".encode()))
    split = open_dataset("torchvision:USPS").load("test")
    assert split.images.read(0).size == (16, 16)
    assert split.labels.tolist() == [2]


def test_a_changed_pixel_changes_the_identity(root):
    raw = clothes(root / "MNIST" / "raw")
    before = open_dataset("torchvision:MNIST").load("test").identity(FileDigestMemo())
    pixels = noise(10, 28, 28, seed=10)
    pixels[0, 0, 0] ^= 1
    (raw / "t10k-images-idx3-ubyte").write_bytes(
        bytes([0, 0, 8, 3]) + struct.pack(">III", 10, 28, 28) + pixels.tobytes()
    )
    after = open_dataset("torchvision:MNIST").load("test").identity(FileDigestMemo())
    assert before.fingerprint != after.fingerprint
