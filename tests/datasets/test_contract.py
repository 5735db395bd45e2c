"""What extraction may rely on, for every kind of dataset."""

import csv
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featcache.datasets.catalog import dataset_name, open_dataset
from featcache.errors import DatasetError
from featcache.testing import check_dataset
from tests.datasets.pictures import write
from tests.datasets.readers.test_cifar_binary import cifar10
from tests.datasets.readers.test_classfolders import eurosat
from tests.datasets.readers.test_multilabel import images_of_objects
from tests.datasets.test_embedded import clothes


def folders(root: Path) -> str:
    for seed, file in enumerate(("train/a/1.png", "train/b/2.jpg", "test/b/3.webp")):
        write(root / "pets" / file, seed)
    return f"imagefolder:{root / 'pets'}"


def flat(root: Path) -> str:
    write(root / "flat" / "1.png")
    return f"imagefolder:{root / 'flat'}"


def table(root: Path) -> str:
    with (root / "birds.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("path", "label", "split"))
        for seed in range(6):
            write(root / f"{seed}.png", seed)
            rows.writerow((f"{seed}.png", seed % 2, ("train", "test")[seed // 3]))
    return f"csv:{root / 'birds.csv'}"


def parquet(root: Path) -> str:
    pytest.importorskip("datasets")
    images = [{"bytes": write(root / f"{i}.png", i).read_bytes(), "path": None} for i in range(4)]
    pq.write_table(pa.table({"image": images, "label": [0, 1, 0, 1]}), root / "bugs.parquet")
    return f"hf:{root / 'bugs.parquet'}"


def arrays(root: Path) -> str:
    clothes(root / "MNIST" / "raw")
    return f"torchvision:MNIST@{root}"


def files(root: Path) -> str:
    for i in range(10):
        write(root / "eurosat" / "2750" / str(i) / "1.png", i)
    return f"torchvision:EuroSAT@{root}"


def fashion(root: Path) -> str:
    return f"fashion-mnist@{clothes(root, pack=True)}"


def textures(_root: Path) -> str:
    pytest.importorskip("skimage")
    return "textures"


def recorded_bytes(root: Path) -> str:
    cifar10(root)
    return f"cifar10@{root}?part"


def recorded_folders(root: Path) -> str:
    eurosat(root, "2750")
    return f"eurosat@{root}?part"


def recorded_sets(root: Path) -> str:
    images_of_objects(root)
    return f"voc2007@{root}?part"


KINDS: dict[str, Callable[[Path], str]] = {
    "folders": folders,
    "flat": flat,
    "csv": table,
    "parquet": parquet,
    "torchvision arrays": arrays,
    "torchvision files": files,
    "fashion-mnist": fashion,
    "digits": lambda _root: "digits",
    "bytes of a record": recorded_bytes,
    "folders of a record": recorded_folders,
    "sets of labels": recorded_sets,
    "textures": textures,
    "part of digits": lambda _root: "digits?rows=30",
    "part of folders": lambda root: f"{folders(root)}?rows=1",
    "part of csv": lambda root: f"{table(root)}?rows=2",
    "part of parquet": lambda root: f"{parquet(root)}?rows=3",
}


@pytest.fixture(params=KINDS)
def source(request, tmp_path, monkeypatch):
    if "parquet" in request.param:
        datasets = pytest.importorskip("datasets")
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    return KINDS[request.param](tmp_path)


def test_every_law_holds(source):
    check_dataset(source)


def test_the_name_is_known_without_opening(source):
    assert open_dataset(source).name == dataset_name(source)


def test_a_split_that_is_not_there_is_refused(source):
    with pytest.raises(DatasetError, match=r"must be one of .*; got 'nope'\. Choose one"):
        open_dataset(source).load("nope")


def _mode(images, row):
    return images.read(row).mode


def test_readers_work_in_a_spawned_process(tmp_path):
    readers = [open_dataset(s).load("train").images for s in (folders(tmp_path), "digits?rows=30")]
    with get_context("spawn").Pool(1) as pool:
        assert pool.starmap(_mode, [(images, 0) for images in readers]) == ["RGB", "RGB"]
