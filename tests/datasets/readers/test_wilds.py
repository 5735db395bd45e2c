"""The tables of WILDS, and the splits that it makes of them."""

import pytest

from featcache.datasets.catalog import open_dataset
from featcache.errors import DatasetError
from tests.datasets.pictures import write


def ids(data):
    return {split: data.load(split).ids for split in data.splits}


def test_iwildcam_splits_as_its_table_says(tmp_path):
    rows = ["split,location_remapped,location,sequence_remapped,datetime,y,category_id,filename"]
    for seed, split in enumerate(("train", "test", "val", "id_val", "id_test", "train")):
        rows.append(f"{split},0,4,1,2013-05-29 02:40:00.000,{seed * 3},5,{seed:02}a.jpg")
        write(tmp_path / "train" / f"{seed:02}a.jpg", seed)
    (tmp_path / "metadata.csv").write_text("\n".join(rows) + "\n")
    data = open_dataset(f"iwildcam@{tmp_path}?part")
    assert ids(data) == {
        "train": ("train/00a.jpg", "train/05a.jpg"),
        "val": ("train/02a.jpg",),
        "test": ("train/01a.jpg",),
        "id_test": ("train/04a.jpg",),
        "id_val": ("train/03a.jpg",),
    }
    assert data.load("train").labels.tolist() == [0, 15]
    assert data.load("train").class_names[-1] == "181"


def test_fmow_splits_by_year_and_numbers_the_withheld_too(tmp_path):
    rows = ["split,country_code,timestamp,category"]
    for number, (part, stamp) in enumerate(
        [
            ("seq", "2010-01-01T00:00:00Z"),
            ("train", "2012-12-31T23:59:59Z"),
            ("train", "2013-01-01T00:00:00Z"),
            ("val", "2012-06-01T00:00:00Z"),
            ("val", "2013-01-01T00:00:00Z"),
            ("val", "2016-01-01T00:00:00Z"),
            ("test", "2012-06-01T00:00:00Z"),
            ("test", "2015-12-31T00:00:00Z"),
            ("test", "2016-01-01T00:00:00Z"),
        ]
    ):
        rows.append(f"{part},USA,{stamp},{('zoo', 'airport')[number % 2]}")
        write(tmp_path / "images" / f"rgb_img_{number}.png", number)
    (tmp_path / "rgb_metadata.csv").write_text("\n".join(rows) + "\n")
    data = open_dataset(f"fmow@{tmp_path}?part")
    numbers = {split: [name[len("images/rgb_img_") : -4] for name in ids(data)[split]]
               for split in data.splits}  # fmt: skip
    assert numbers == {
        "train": ["1"],
        "val": ["4"],
        "test": ["8"],
        "id_val": ["3"],
        "id_test": ["6"],
    }
    assert data.load("train").labels.tolist() == [0]
    assert data.load("test").labels.tolist() == [61]
    assert (data.load("test").class_names[0], data.load("test").class_names[61]) == (
        "airport",
        "zoo",
    )


def test_camelyon17_splits_by_hospital(tmp_path):
    rows = [",patient,node,x_coord,y_coord,tumor,slide,center,split"]
    wanted = {"train": [], "id_val": [], "val": [], "test": []}
    for number, (center, part, split) in enumerate(
        [(0, 0, "train"), (1, 0, "val"), (2, 0, "test"), (3, 1, "id_val"), (2, 1, "test")]
    ):
        rows.append(f"{number},004,{number},3328,21792,{number % 2},0,{center},{part}")
        node = f"patient_004_node_{number}"
        wanted[split].append(f"patches/{node}/patch_{node}_x_3328_y_21792.png")
        write(tmp_path / wanted[split][-1], number)
    (tmp_path / "metadata.csv").write_text("\n".join(rows) + "\n")
    data = open_dataset(f"camelyon17@{tmp_path}?part")
    assert ids(data) == {split: tuple(files) for split, files in wanted.items()}
    assert data.load("val").labels.tolist() == [1]
    assert data.load("val").class_names == ("normal", "tumor")


def test_a_table_without_the_columns_is_refused(tmp_path):
    (tmp_path / "metadata.csv").write_text("split,y\ntrain,1\n")
    with pytest.raises(DatasetError, match="its columns are not those of WILDS: 'filename'"):
        open_dataset(f"iwildcam@{tmp_path}?part").load("train")
