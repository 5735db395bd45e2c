"""EuroSAT and Caltech-101: class folders with a split of our own."""

import pytest

from featcache.datasets.catalog import open_dataset
from featcache.datasets.readers.classfolders import train_part
from featcache.errors import DatasetError
from tests.datasets.pictures import write


def eurosat(root, folder):
    for name, count in (("AnnualCrop", 10), ("SeaLake", 5)):
        for number in range(1, count + 1):
            path = root / folder / name / f"{name}_{number}.jpg"
            write(path.with_suffix(".png"), number).rename(path)


@pytest.mark.parametrize("folder", ["2750", "EuroSAT_RGB"])
def test_eurosat_is_parted_class_by_class(tmp_path, folder):
    eurosat(tmp_path, folder)
    data = open_dataset(f"eurosat@{tmp_path}?part")
    train, test = data.load("train"), data.load("test")
    assert train.class_names == test.class_names == ("AnnualCrop", "SeaLake")
    assert train.labels.tolist() == [0] * 8 + [1] * 4
    assert test.labels.tolist() == [0] * 2 + [1]
    assert not set(train.ids) & set(test.ids)
    assert len(set(train.ids) | set(test.ids)) == 15
    assert list(train.ids) == sorted(train.ids)


def test_caltech_has_thirty_train_images_of_each_and_no_background(tmp_path):
    root = tmp_path / "101_ObjectCategories"
    for name, count in (("Faces", 33), ("BACKGROUND_Google", 3), ("accordion", 31)):
        for number in range(1, count + 1):
            write(root / name / f"image_{number:04d}.png")
    (root / "BACKGROUND_Google" / "tmp").write_text("")
    data = open_dataset(f"caltech101@{tmp_path}?part")
    train, test = data.load("train"), data.load("test")
    assert train.class_names == ("Faces", "accordion")
    assert train.labels.tolist() == [0] * 30 + [1] * 30
    assert test.labels.tolist() == [0] * 3 + [1]


def test_the_choice_is_fixed():
    images = [f"Forest/Forest_{number}.jpg" for number in range(1, 11)]
    expected = {f"Forest/Forest_{number}.jpg" for number in (1, 3)}  # by sha256sum of the paths
    assert set(images) - train_part(images, 0.8) == expected
    assert train_part(images[::-1], 8) == train_part(images, 0.8)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DatasetError, match="there is no '2750' and no 'EuroSAT_RGB'"):
        open_dataset(f"eurosat@{tmp_path}").load("train")
