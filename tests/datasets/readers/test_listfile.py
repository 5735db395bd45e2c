"""Lists of images: DTD, SUN397, Food-101, FGVC-Aircraft, Oxford-IIIT Pet and VTAB's copies."""

import pytest

from featcache.datasets.catalog import open_dataset
from featcache.datasets.named import named
from featcache.errors import DatasetError
from tests.datasets.miniatures import picture, text


def test_textures_are_their_folders_in_the_first_partition(tmp_path):
    for name in ("banded/banded_0002", "banded/banded_0004", "zigzagged/zigzagged_0001"):
        picture(tmp_path / "images" / f"{name}.jpg")
    text(tmp_path / "labels/train1.txt", "zigzagged/zigzagged_0001.jpg", "banded/banded_0004.jpg")
    text(tmp_path / "labels/val1.txt", "banded/banded_0002.jpg")
    text(tmp_path / "labels/test1.txt", "wrinkled/wrinkled_0001.jpg")
    data = open_dataset(f"dtd@{tmp_path}?part")
    train = data.load("train")
    assert train.ids == ("zigzagged/zigzagged_0001.jpg", "banded/banded_0004.jpg")
    assert train.class_names == ("banded", "wrinkled", "zigzagged")
    assert train.labels.tolist() == [2, 0]
    assert data.load("val").class_names == train.class_names
    assert train.images.read(1).size == (5, 5)


def test_scenes_have_a_letter_before_and_may_have_a_kind_behind_their_name(tmp_path):
    text(tmp_path / "ClassName.txt", "/a/abbey", "/c/church/indoor", "/c/church/outdoor")
    names = "/c/church/outdoor/sun_b.jpg", "/a/abbey/sun_a.jpg", "/c/church/indoor/sun_c.jpg"
    text(tmp_path / "Training_01.txt", *names)
    for name in names:
        picture(tmp_path / name[1:])
    split = open_dataset(f"sun397@{tmp_path}?part").load("train")
    assert split.class_names == ("abbey", "church/indoor", "church/outdoor")
    assert split.labels.tolist() == [2, 0, 1]
    assert split.ids[0] == "c/church/outdoor/sun_b.jpg"


def test_dishes_are_listed_without_extension(tmp_path):
    text(tmp_path / "meta/classes.txt", "apple_pie", "baby_back_ribs")
    text(tmp_path / "meta/train.txt", "baby_back_ribs/1005293", "apple_pie/1005649")
    text(tmp_path / "meta/test.txt", "waffles/1011328")
    for name in ("baby_back_ribs/1005293", "apple_pie/1005649"):
        picture(tmp_path / "images" / f"{name}.jpg")
    data = open_dataset(f"food101@{tmp_path}?part")
    split = data.load("train")
    assert (split.ids[0], split.labels.tolist()) == ("baby_back_ribs/1005293.jpg", [1, 0])
    with pytest.raises(DatasetError, match="'waffles' in 'meta/test.txt' is no class of it"):
        data.load("test")


def test_variants_of_aircraft_may_have_spaces_and_keep_the_order_of_their_list(tmp_path):
    text(tmp_path / "variants.txt", "707-320", "BAE 146-200", "F/A-18", "A300B4")
    text(tmp_path / "images_variant_trainval.txt", "1025794 BAE 146-200", "0056978 F/A-18")
    text(tmp_path / "images_variant_test.txt", "1514522 707-320")
    for name in ("1025794", "0056978", "1514522"):
        picture(tmp_path / "images" / f"{name}.jpg")
    data = open_dataset(f"fgvc-aircraft@{tmp_path}?part")
    split = data.load("train")
    assert (split.ids, split.labels.tolist()) == (("1025794.jpg", "0056978.jpg"), [1, 2])
    assert split.class_names == ("707-320", "BAE 146-200", "F/A-18", "A300B4")
    assert data.load("test").labels.tolist() == [0]


def pets(root):
    """Three breeds of the published lists: cats are capitalised, dogs are not."""
    lines = "american_bulldog_100 2 2 1", "Abyssinian_100 1 1 1", "basset_hound_10 4 2 3"
    text(root / "annotations/trainval.txt", *lines)
    text(root / "annotations/test.txt", "american_bulldog_203 2 2 1", "Bengal_1 6 1 2")
    for line in (*lines, "american_bulldog_203", "Bengal_1"):
        picture(root / "images" / f"{line.split()[0]}.jpg")
    (root / "images" / "Abyssinian_100.mat").write_text("")


def test_breeds_are_numbered_by_the_lists_not_by_their_sorted_names(tmp_path):
    pets(tmp_path)
    data = open_dataset(f"oxford-pets@{tmp_path}?part")
    train, test = data.load("train"), data.load("test")
    assert train.labels.tolist() == [1, 0, 3]
    assert test.labels.tolist() == [1, 5]
    assert train.class_names == test.class_names
    assert [train.class_names[label] for label in (0, 1, 3, 5)] == [
        "Abyssinian",
        "american_bulldog",
        "basset_hound",
        "Bengal",
    ]
    by_name = sorted({"Abyssinian", "american_bulldog", "basset_hound", "Bengal"})
    assert by_name.index("Bengal") < by_name.index("american_bulldog")  # what the trap is
    assert len(train.class_names) == 37


def test_lists_of_pets_that_contradict_each_other_are_refused(tmp_path):
    pets(tmp_path)
    text(tmp_path / "annotations/test.txt", "Bengal_1 2 1 2")
    with pytest.raises(DatasetError, match="class 1 is both 'american_bulldog' and 'Bengal'"):
        open_dataset(f"oxford-pets@{tmp_path}?part").load("train")
    text(tmp_path / "annotations/test.txt", "Bengal_1")
    with pytest.raises(DatasetError, match="'Bengal_1' in 'annotations/test.txt' has no number"):
        open_dataset(f"oxford-pets@{tmp_path}?part").load("test")


VTAB = sorted(name for name in named() if name.startswith("vtab1k-"))


def test_vtab_has_nineteen_tasks_of_a_thousand_images():
    assert len(VTAB) == 19
    for name in VTAB:
        rows = named()[name]["rows"]
        assert (rows["train"], rows["val"]) == (800, 200)
        assert rows["test"] > 700
    assert len({named()[name]["folder"] for name in VTAB}) == 19


@pytest.mark.parametrize("name", ["vtab1k-clevr-count", "vtab1k-sun397"])
def test_a_copy_of_vtab_is_numbered_files_and_numbers_of_classes(tmp_path, name):
    classes = named()[name]["classes"]
    for split in ("train800", "val200", "test"):
        text(
            tmp_path / f"{split}.txt",
            f"images/{split}/000000.jpg {classes - 1}",
            f"images/{split}/000001.jpg 0",
        )
        picture(tmp_path / "images" / split / "000000.jpg")
        picture(tmp_path / "images" / split / "000001.jpg")
    data = open_dataset(f"{name}@{tmp_path}?part")
    assert data.splits == ("train", "val", "test")
    for split, ids in (
        ("train", "images/train800/000000.jpg"),
        ("val", "images/val200/000000.jpg"),
    ):
        found = data.load(split)
        assert (found.ids[0], found.labels.tolist()) == (ids, [classes - 1, 0])
        assert found.class_names == tuple(map(str, range(classes)))
    text(tmp_path / "test.txt", f"images/test/000000.jpg {classes}")
    with pytest.raises(DatasetError, match=f"'{classes}' in 'test.txt' is no class of it"):
        data.load("test")


def test_a_listed_image_that_is_missing_makes_the_split_a_part(tmp_path):
    text(tmp_path / "meta/classes.txt", "apple_pie")
    text(tmp_path / "meta/train.txt", "apple_pie/1", "apple_pie/2")
    picture(tmp_path / "images/apple_pie/2.jpg")
    assert open_dataset(f"food101@{tmp_path}?part").load("train").ids == ("apple_pie/2.jpg",)
    with pytest.raises(DatasetError, match="must have 75750 images; .* holds 1"):
        open_dataset(f"food101@{tmp_path}").load("train")
