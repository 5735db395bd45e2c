"""Lists of paths and labels: OpenOOD, VisDA-2017 and DomainNet as they are published."""

import pytest

from featcache.datasets.catalog import open_dataset
from featcache.datasets.dataset import NO_LABEL
from featcache.datasets.imagenet import imagenet_wnids
from featcache.datasets.named import named
from featcache.errors import DatasetError
from featcache.probes.catalog import load_protocol
from featcache.probes.ood.warnings import contamination
from tests.datasets.pictures import write


def lists(root, files):
    """Write lists, and the images that they name below `folder`."""
    for (name, folder), lines in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("".join(f"{line}\n" for line in lines))
        for seed, line in enumerate(lines):
            write(root / folder / line.rpartition(" ")[0], seed)


SSB = ("benchmark_imglist/imagenet/test_ssb_hard.txt", "images_largescale")


def test_ood_images_have_no_label(tmp_path):
    lines = ["ssb_hard/n00470682/n00470682_1023.JPEG -1", "ssb_hard/n00470554/n00470554_2.JPEG -1"]
    lists(tmp_path, {SSB: lines})
    split = open_dataset(f"ssb_hard@{tmp_path}?part").load("test")
    assert split.ids == tuple(line.split()[0] for line in lines)  # in the order of the list
    assert split.labels.tolist() == [NO_LABEL, NO_LABEL]
    assert split.class_names == ()
    assert split.images.read(1).size == (5, 5)


def test_the_groups_of_the_protocol_are_datasets_of_that_name():
    groups = load_protocol("openood-v1.5@1").options["groups"]
    for group, members in {"near": 2, "far": 3}.items():
        ours = [name for name in groups[group] if named().get(name, {}).get("reader") == "imglist"]
        assert len(ours) == members


def test_sets_that_web_scale_networks_know_are_named_so():
    for name in ("ssb_hard", "ninco", "inaturalist", "openood_textures", "openimage_o"):
        assert contamination("laion-2b", name), name
    assert contamination("imagenet-1k", "tin_for_cifar10")
    assert not contamination("imagenet-1k", "svhn_for_cifar10")


def test_imagenet_in_openood_has_its_classes_by_index(tmp_path):
    name = "benchmark_imglist/imagenet/test_imagenet.txt"
    lines = [
        "imagenet_1k/val/ILSVRC2012_val_00000293.JPEG 0",
        "imagenet_1k/val/ILSVRC2012_val_1.JPEG 65",
    ]
    lists(tmp_path, {(name, "images_largescale"): lines})
    split = open_dataset(f"openood_imagenet@{tmp_path}?part").load("test")
    assert (split.labels.tolist(), split.class_names) == ([0, 65], imagenet_wnids())


def test_cifar_in_openood_takes_its_class_names_from_the_folders(tmp_path):
    names = ["airplane", "automobile", "bird", "cat", "deer"]
    names += ["dog", "frog", "horse", "ship", "truck"]
    files = {
        (f"benchmark_imglist/cifar10/{split}_cifar10.txt", "images_classic"): [
            f"cifar10/{folder}/{names[label]}/{label:04}.png {label}" for label in labels
        ]
        for split, folder, labels in (
            ("train", "train", range(10)),
            ("val", "test", [3]),
            ("test", "test", [9, 0]),
        )
    }
    lists(tmp_path, files)
    data = open_dataset(f"openood_cifar10@{tmp_path}?part")
    assert {data.load(split).class_names for split in data.splits} == {tuple(names)}
    assert data.load("test").labels.tolist() == [9, 0]


def test_a_part_leaves_out_listed_images_that_are_missing(tmp_path):
    lists(tmp_path, {SSB: ["ssb_hard/a/1.JPEG -1", "ssb_hard/a/2.JPEG -1"]})
    (tmp_path / "images_largescale/ssb_hard/a/1.JPEG").unlink()
    assert open_dataset(f"ssb_hard@{tmp_path}?part").load("test").ids == ("ssb_hard/a/2.JPEG",)
    with pytest.raises(DatasetError, match="must have 49000 images; .* holds 1"):
        open_dataset(f"ssb_hard@{tmp_path}").load("test")


def test_where_no_number_is_known_every_listed_image_must_be_there(tmp_path):
    name = "benchmark_imglist/cifar10/test_tin.txt"
    lists(tmp_path, {(name, "images_classic"): ["tin/a/1.JPEG -1", "tin/a/2.JPEG -1"]})
    assert len(open_dataset(f"tin_for_cifar10@{tmp_path}").load("test")) == 2
    (tmp_path / "images_classic/tin/a/1.JPEG").unlink()
    with pytest.raises(DatasetError, match=r"'tin/a/1.JPEG' are missing there. Fetch benchmark"):
        open_dataset(f"tin_for_cifar10@{tmp_path}").load("test")


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("ssb_hard/a/1.JPEG", "line 2 of 'test_ssb_hard.txt' is 'ssb_hard/a/1.JPEG', not a path"),
        ("ssb_hard/a/1.JPEG {'label': -1}", "line 2 of .* not a path and a label"),
        ("ssb_hard/a/1.JPEG 7", "its labels reach from -1 to 7, with 0 classes"),
        ("ssb_hard/a/0.JPEG -1", "1 rows are listed twice"),
    ],
)
def test_a_list_of_another_form_is_refused(tmp_path, line, match):
    lists(tmp_path, {SSB: ["ssb_hard/a/0.JPEG -1", "ssb_hard/a/1.JPEG -1"]})
    (tmp_path / SSB[0]).write_text(f"ssb_hard/a/0.JPEG -1\n{line}\n")
    with pytest.raises(DatasetError, match=match):
        open_dataset(f"ssb_hard@{tmp_path}?part").load("test")


def test_paths_of_visda_start_in_the_folder_of_their_list(tmp_path):
    train = ["aeroplane/src_1_02691156_3d0d__0_337_150.png 0", "truck/src_1_x.png 11"]
    lists(
        tmp_path,
        {
            ("train/image_list.txt", "train"): train,
            ("validation/image_list.txt", "validation"): ["bus/bus_100006.jpg 2"],
            ("test/image_list.txt", "test"): ["trunk10/10_001.jpg 4"],
        },
    )
    data = open_dataset(f"visda2017@{tmp_path}?part")
    assert data.splits == ("train", "val", "test")
    assert data.load("train").labels.tolist() == [0, 11]
    assert data.load("test").class_names[4] == "horse"
    assert len({data.load(split).class_names for split in data.splits}) == 1


def test_classes_of_domainnet_are_the_folders_of_all_lists(tmp_path):
    files = {
        ("clipart_train.txt", "."): ["clipart/aircraft_carrier/clipart_001_000001.jpg 0"],
        ("clipart_test.txt", "."): ["clipart/alarm_clock/clipart_003_000001.jpg 2"],
        ("sketch_train.txt", "."): ["sketch/airplane/sketch_002_000001.jpg 1"],
    }
    lists(tmp_path, files)
    data = open_dataset(f"domainnet@{tmp_path}?part")
    assert len(data.splits) == 12
    split = data.load("clipart-test")
    assert split.labels.tolist() == [2]
    assert split.class_names[:4] == ("aircraft_carrier", "airplane", "alarm_clock", "class 3")
    assert data.load("sketch-train").class_names == split.class_names
    write(tmp_path / "real/zoo/1.jpg")
    (tmp_path / "real_test.txt").write_text("real/zoo/1.jpg 0\n")
    with pytest.raises(DatasetError, match="label 0 is both 'aircraft_carrier' and 'zoo'"):
        data.load("clipart-test")
