"""ImageNet in each layout in which it lies on disks, on files with the published names."""

import csv

import pytest

from featcache.datasets.catalog import open_dataset
from featcache.datasets.imagenet import imagenet_wnids
from featcache.datasets.memo import FileDigestMemo
from featcache.errors import DatasetError
from tests.datasets.miniatures import ilsvrc_devkit, picture

TENCH, GOLDFISH, TOILET_TISSUE = "n01440764", "n01443537", "n15075141"
TRUTH = {1: GOLDFISH, 2: TOILET_TISSUE, 3: TENCH}
NUMBERS = {TENCH: 449, GOLDFISH: 450, TOILET_TISSUE: 1000}
"""The devkit's numbers of the classes."""
NAMES = tuple(f"ILSVRC2012_val_{number:08d}.JPEG" for number in TRUTH)


def val_in_folders(root):
    for number, wnid in TRUTH.items():
        picture(root / "val" / wnid / f"ILSVRC2012_val_{number:08d}.JPEG", number)


def val_flat(root, val="val"):
    for number in TRUTH:
        picture(root / val / f"ILSVRC2012_val_{number:08d}.JPEG", number)


def kaggle_table(root):
    with (root / "LOC_val_solution.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("ImageId", "PredictionString"))
        for number, wnid in reversed(TRUTH.items()):
            boxes = f"{wnid} 85 1 499 272 " * number
            table.writerow((f"ILSVRC2012_val_{number:08d}", boxes))


def both_flat(root):
    val_flat(root)
    ilsvrc_devkit(root, NUMBERS, list(TRUTH.values()))


def kaggle(root):
    val_flat(root, "ILSVRC/Data/CLS-LOC/val")
    kaggle_table(root)


@pytest.mark.parametrize("layout", [val_in_folders, both_flat, kaggle])
def test_val_has_one_identity_in_every_layout(tmp_path, layout):
    layout(tmp_path)
    split = open_dataset(f"imagenet@{tmp_path}?part").load("val")
    assert split.ids == NAMES
    assert split.labels.tolist() == [1, 999, 0]
    assert split.class_names == imagenet_wnids()
    (tmp_path / "other").mkdir()
    val_in_folders(tmp_path / "other")
    other = open_dataset(f"imagenet@{tmp_path / 'other'}?part").load("val")
    assert split.identity(FileDigestMemo()) == other.identity(FileDigestMemo())


@pytest.mark.parametrize("folder", ["train", "ILSVRC/Data/CLS-LOC/train"])
def test_train_lies_in_folders_of_classes(tmp_path, folder):
    for wnid, number in ((TOILET_TISSUE, 3), (TENCH, 18), (TENCH, 10026)):
        picture(tmp_path / folder / wnid / f"{wnid}_{number}.JPEG", number)
    split = open_dataset(f"imagenet@{tmp_path}?part").load("train")
    assert split.ids == (
        f"{TENCH}/{TENCH}_10026.JPEG",
        f"{TENCH}/{TENCH}_18.JPEG",
        f"{TOILET_TISSUE}/{TOILET_TISSUE}_3.JPEG",
    )
    assert split.labels.tolist() == [0, 0, 999]


@pytest.mark.parametrize("place", [".", "imagenet_subsets"])
def test_the_subset_of_simclr_is_what_its_list_names(tmp_path, place):
    for number in range(4):
        picture(tmp_path / "train" / GOLDFISH / f"{GOLDFISH}_{number}.JPEG", number)
    picture(tmp_path / "train" / TENCH / f"{TENCH}_7.JPEG", 7)
    (tmp_path / place).mkdir(exist_ok=True)
    (tmp_path / place / "1percent.txt").write_text(
        f"{GOLDFISH}_2.JPEG\n{TENCH}_7.JPEG\n{GOLDFISH}_0.JPEG\n"
    )
    split = open_dataset(f"imagenet-1pct@{tmp_path}?part").load("train")
    assert split.ids == (
        f"{TENCH}/{TENCH}_7.JPEG",
        f"{GOLDFISH}/{GOLDFISH}_0.JPEG",
        f"{GOLDFISH}/{GOLDFISH}_2.JPEG",
    )
    assert split.labels.tolist() == [0, 1, 1]
    assert (split.dataset, split.images.read(0).size) == ("imagenet-1pct-part", (5, 5))


def test_a_subset_without_its_list_says_where_to_get_it(tmp_path):
    picture(tmp_path / "train" / TENCH / f"{TENCH}_7.JPEG", 7)
    with pytest.raises(DatasetError, match=r"there is no '10percent.txt'.*simclr"):
        open_dataset(f"imagenet-10pct@{tmp_path}?part").load("train")


def test_all_of_it_must_be_there(tmp_path):
    val_in_folders(tmp_path)
    with pytest.raises(DatasetError, match="must have 50000 images; .* holds 3"):
        open_dataset(f"imagenet@{tmp_path}").load("val")
    with pytest.raises(
        DatasetError, match="there is no 'train' and no 'ILSVRC/Data/CLS-LOC/train'"
    ):
        open_dataset(f"imagenet@{tmp_path}").load("train")


def test_flat_images_without_ground_truth_are_refused(tmp_path):
    val_flat(tmp_path)
    with pytest.raises(
        DatasetError, match="there is no 'ILSVRC2012_devkit_t12/data/ILSVRC2012_val"
    ):
        open_dataset(f"imagenet@{tmp_path}?part").load("val")
    kaggle_table(tmp_path)
    picture(tmp_path / "val" / "ILSVRC2012_val_00000004.JPEG", 4)
    with pytest.raises(
        DatasetError, match="'ILSVRC2012_val_00000004.JPEG' has no class in the gro"
    ):
        open_dataset(f"imagenet@{tmp_path}?part").load("val")


def test_a_folder_that_is_no_class_is_refused(tmp_path):
    picture(tmp_path / "train" / "n00000001" / "n00000001_1.JPEG", 1)
    with pytest.raises(DatasetError, match="'n00000001' is no class of ImageNet"):
        open_dataset(f"imagenet@{tmp_path}?part").load("train")
