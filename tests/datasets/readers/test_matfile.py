"""Flowers-102 and Stanford Cars: MATLAB's tables with the published variables."""

import pytest
from scipy.io import savemat

from featcache.datasets.catalog import open_dataset
from featcache.errors import DatasetError
from tests.datasets.miniatures import cars_tables, flowers_tables, picture


def flowers(root):
    parts = {"trnid": [4, 2], "valid": [9], "tstid": [1, 3, 5, 6, 7, 8]}
    flowers_tables(root, [77, 1, 1, 102, 77, 1, 102, 102, 77], parts)
    for number in range(1, 10):
        picture(root / "jpg" / f"image_{number:05d}.jpg", number)


def test_flowers_are_numbered_from_one(tmp_path):
    flowers(tmp_path)
    data = open_dataset(f"flowers102@{tmp_path}?part")
    train, val, test = (data.load(split) for split in ("train", "val", "test"))
    assert train.ids == ("jpg/image_00004.jpg", "jpg/image_00002.jpg")
    assert train.labels.tolist() == [101, 0]
    assert (val.ids, val.labels.tolist()) == (("jpg/image_00009.jpg",), [76])
    assert test.labels.tolist() == [76, 0, 76, 0, 101, 101]
    assert train.class_names == val.class_names == test.class_names
    assert [train.class_names[label] for label in (0, 76, 101)] == [
        "pink primrose",
        "passion flower",
        "blackberry lily",
    ]
    assert len(set(train.class_names)) == 102


def cars(root):
    train = [(39, 116, 569, 375, 2, "00001.jpg"), (36, 1, 8, 9, 1, "00002.jpg")]
    names = ["AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012"]
    cars_tables(root, names, train, [(30, 52, 246, 147, 2, "00001.jpg")])
    for name in ("cars_train/00001", "cars_train/00002", "cars_test/00001"):
        picture(root / f"{name}.jpg")


def test_cars_are_read_from_their_annotations(tmp_path):
    cars(tmp_path)
    data = open_dataset(f"stanford-cars@{tmp_path}?part")
    train, test = data.load("train"), data.load("test")
    assert (train.ids, train.labels.tolist()) == (("00001.jpg", "00002.jpg"), [1, 0])
    assert test.labels.tolist() == [1]  # a table of one row
    assert test.class_names == ("AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012")
    assert train.images.path(0) == str(tmp_path / "cars_train/00001.jpg")


def test_the_test_annotations_may_lie_in_the_devkit_but_must_have_labels(tmp_path):
    cars(tmp_path)
    moved = tmp_path / "devkit/cars_test_annos_withlabels.mat"
    (tmp_path / "cars_test_annos_withlabels.mat").rename(moved)
    assert len(open_dataset(f"stanford-cars@{tmp_path}?part").load("test")) == 1
    (tmp_path / "devkit/cars_test_annos.mat").rename(moved)
    with pytest.raises(DatasetError, match="has no column 'class': it is the one without labels"):
        open_dataset(f"stanford-cars@{tmp_path}?part").load("test")


def test_a_table_that_is_another_is_refused(tmp_path):
    flowers(tmp_path)
    savemat(tmp_path / "setid.mat", {"other": [1]})
    with pytest.raises(DatasetError, match=r"'setid.mat' has no variable 'trnid'"):
        open_dataset(f"flowers102@{tmp_path}?part").load("train")
    (tmp_path / "setid.mat").write_text("<html>not found</html>" * 20)
    with pytest.raises(DatasetError, match=r"'setid.mat' has no variable 'trnid' to be read"):
        open_dataset(f"flowers102@{tmp_path}?part").load("train")
