"""ImageNet-A, -R, -Sketch, -V2 and -C: folders that are called like classes of ImageNet."""

from importlib.resources import files

import pytest

from featcache.datasets.catalog import open_dataset
from featcache.datasets.imagenet import imagenet_wnids
from featcache.datasets.named import named
from featcache.errors import DatasetError
from tests.datasets.pictures import write


def test_the_thousand_classes_are_those_of_timm_and_sorted():
    info = pytest.importorskip("timm.data").ImageNetInfo("imagenet-1k")
    assert imagenet_wnids() == tuple(info.label_names()) == tuple(sorted(imagenet_wnids()))
    assert len(set(imagenet_wnids())) == 1000


@pytest.mark.parametrize("name", ["imagenet-a", "imagenet-r"])
def test_the_two_hundred_classes_are_those_of_timm(name):
    subset = named()[name]["class_subset"]
    assert subset["of"] == "imagenet"
    listed = files(pytest.importorskip("timm.data")) / f"_info/{name.replace('-', '_')}_synsets.txt"
    assert subset["classes"] == listed.read_text().split()
    assert len(subset["classes"]) == named()[name]["classes"] == 200
    assert set(subset["classes"]) < set(imagenet_wnids())


def test_labels_of_imagenet_a_count_its_own_200_classes(tmp_path):
    write(tmp_path / "n01531178" / "0.01_finch.jpg")
    write(tmp_path / "n12267677" / "0.02_acorn.jpg")
    write(tmp_path / "n01498041" / "0.01_ray.jpg")
    (tmp_path / "README.txt").write_text("200 classes")
    split = open_dataset(f"imagenet-a@{tmp_path}?part").load("test")
    assert split.ids == (
        "n01498041/0.01_ray.jpg",
        "n01531178/0.01_finch.jpg",
        "n12267677/0.02_acorn.jpg",
    )
    assert split.labels.tolist() == [0, 1, 199]
    assert (len(split.class_names), split.class_names[0]) == (200, "n01498041")
    assert split.facts["chance"] == 1 / 200


def test_a_folder_that_is_no_class_of_the_dataset_is_refused(tmp_path):
    write(tmp_path / "n01440764" / "tench.jpg")  # of ImageNet, but neither of -A nor of -R
    for name in ("imagenet-a", "imagenet-r"):
        with pytest.raises(DatasetError, match=r"'n01440764' is no class of it \(such as 'n01"):
            open_dataset(f"{name}@{tmp_path}?part").load("test")


def test_sketches_lie_in_their_own_folder(tmp_path):
    write(tmp_path / "sketch" / "n01440764" / "sketch_0.JPEG")
    split = open_dataset(f"imagenet-sketch@{tmp_path}?part").load("test")
    assert (split.ids, split.labels.tolist()) == (("n01440764/sketch_0.JPEG",), [0])
    assert split.class_names == imagenet_wnids()


def test_folders_of_imagenet_v2_are_numbers_not_text(tmp_path):
    folder = tmp_path / "imagenetv2-matched-frequency-format-val"
    for number in (0, 1, 2, 10, 100, 999):
        write(folder / str(number) / "00af.jpeg", number)
    split = open_dataset(f"imagenet-v2@{tmp_path}?part").load("test")
    assert split.labels.tolist() == [0, 1, 2, 10, 100, 999]
    assert split.ids[2:4] == ("2/00af.jpeg", "10/00af.jpeg")
    assert split.class_names[10] == "n01530575"  # brambling, the eleventh class
    write(folder / "1000" / "x.jpeg")
    with pytest.raises(DatasetError, match=r"'1000' is no class of it \(such as '0'\)"):
        open_dataset(f"imagenet-v2@{tmp_path}?part").load("test")


def test_the_three_variants_of_imagenet_v2_are_three_splits(tmp_path):
    for seed, name in enumerate(("matched-frequency", "threshold0.7", "top-images")):
        write(tmp_path / f"imagenetv2-{name}-format-val" / "0" / f"{seed}.jpeg", seed)
    data = open_dataset(f"imagenet-v2@{tmp_path}?part")
    assert [data.load(name).ids for name in ("test", "threshold-0.7", "top-images")] == [
        ("0/0.jpeg",),
        ("0/1.jpeg",),
        ("0/2.jpeg",),
    ]


@pytest.mark.parametrize("group", ["noise/", ""])
def test_a_corruption_and_a_severity_make_a_split(tmp_path, group):
    for severity in (1, 2):
        write(tmp_path / f"{group}shot_noise/{severity}/n01443537/ILSVRC2012_val_1.JPEG", severity)
    data = open_dataset(f"imagenet-c@{tmp_path}?part")
    assert len(data.splits) == 19 * 5
    one, two = (data.load(f"shot_noise-{severity}") for severity in (1, 2))
    assert one.ids == two.ids == ("n01443537/ILSVRC2012_val_1.JPEG",)
    assert one.labels.tolist() == [1]
    assert one.images.path(0) != two.images.path(0)


def test_a_missing_folder_is_named_with_the_way_to_get_it(tmp_path):
    with pytest.raises(DatasetError, match=r"no 'noise/shot_noise/1' and no 'shot_noise/1'. Fetch"):
        open_dataset(f"imagenet-c@{tmp_path}").load("shot_noise-1")


def test_a_part_is_not_taken_for_the_whole(tmp_path):
    write(tmp_path / "n01443537" / "art_0.jpg")
    with pytest.raises(DatasetError, match=r"must have 30000 images; .* holds 1\. Fetch"):
        open_dataset(f"imagenet-r@{tmp_path}").load("test")
