"""Boxes and pixels, from files as COCO, Pascal VOC and Cityscapes publish them."""

import json

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import Cityscapes, VOCDetection, VOCSegmentation

from featcache.datasets.annotations import IGNORED, open_annotations
from featcache.datasets.catalog import open_dataset
from featcache.datasets.dataset import NO_LABEL
from featcache.errors import DatasetError, OptionError
from tests.datasets.pictures import write

VAL = "annotations/instances_val2017.json"


def coco_table(images, annotations):
    kinds = {1: "person", 2: "bicycle", 90: "toothbrush"}
    categories = [{"id": k, "name": v, "supercategory": "s"} for k, v in reversed(kinds.items())]
    return {
        "info": {"year": 2017},
        "licenses": [],
        "images": [{"id": n, "file_name": f"{n:012d}.jpg", "width": 9} for n in images],
        "annotations": annotations,
        "categories": categories,
    }


@pytest.fixture
def coco(tmp_path):
    outline = [[1.0, 1.0, 4.0, 1.0, 4.0, 3.0]]
    crowd = {"counts": [0, 12, 69], "size": [9, 9]}
    drawn = [
        {"image_id": 9, "category_id": 90, "bbox": [1.0, 1.5, 3.0, 2.0], "area": 3.25, "iscrowd": 0,
         "segmentation": outline, "id": 7},
        {"image_id": 25, "category_id": 2, "bbox": [0, 0, 9, 9], "area": 50, "iscrowd": 0,
         "segmentation": outline, "id": 8},
        {"image_id": 9, "category_id": 1, "bbox": [0, 0, 5, 4], "area": 12, "iscrowd": 1,
         "segmentation": crowd, "id": 9},
    ]  # fmt: skip
    (tmp_path / "annotations").mkdir()
    (tmp_path / VAL).write_text(json.dumps(coco_table([25, 9, 30], drawn)))
    for number in (9, 25, 30):
        write(tmp_path / "val2017" / f"{number:012d}.jpg", number, size=9)
    return tmp_path


def test_coco_boxes_are_corners_and_categories_have_no_gaps(coco):
    found = open_annotations(f"coco2017@{coco}", "val")
    assert found.class_names == ("person", "bicycle", "toothbrush")
    assert list(found) == [f"{number:012d}.jpg" for number in (25, 9, 30)]
    boxes = found["000000000009.jpg"]
    np.testing.assert_array_equal(boxes.corners, [[1, 1.5, 4, 3.5], [0, 0, 5, 4]])
    assert boxes.labels.tolist() == [2, 0]
    assert boxes.is_crowd.tolist() == [False, True]
    assert not boxes.is_difficult.any()
    assert boxes.areas.tolist() == [3.25, 12]
    assert boxes.outlines[1]["size"] == [9, 9]
    empty = found["000000000030.jpg"]
    assert (len(empty), empty.corners.shape) == (0, (0, 4))
    with pytest.raises(KeyError):
        found["000000000031.jpg"]


def test_coco_images_have_the_set_of_their_classes_without_crowds(coco):
    split = open_dataset(f"coco2017@{coco}?part").load("val")
    assert split.ids == tuple(open_annotations(f"coco2017@{coco}", "val"))
    assert [split.class_names[label] for label in split.labels] == ["bicycle", "toothbrush", "|"]
    train = coco_table([1], [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1]}])
    (coco / "annotations/instances_train2017.json").write_text(json.dumps(train))
    again = open_dataset(f"coco2017@{coco}?part").load("val")
    assert again.class_names == ("bicycle", "person", "toothbrush", "|")


@pytest.mark.parametrize(
    "table", [{"images": []}, coco_table([9], [{"image_id": 9, "category_id": 3, "bbox": [0] * 4}]),
              coco_table([9], [{"image_id": 9, "category_id": 1, "bbox": [0] * 3}])]
)  # fmt: skip
def test_a_table_of_another_form_is_refused(coco, table):
    (coco / VAL).write_text(json.dumps(table))
    with pytest.raises(DatasetError, match=r"'instances_val2017.json' is no table of objects"):
        open_annotations(f"coco2017@{coco}", "val")


OBJECT = """<object><name>{name}</name><pose>Left</pose><truncated>1</truncated>
<difficult>{difficult}</difficult><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin>
<xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox>{more}</object>"""


@pytest.fixture
def voc(tmp_path):
    root = tmp_path / "VOCdevkit" / "VOC2012"
    part = "<part><name>head</name><bndbox><xmin>2</xmin></bndbox></part>"
    objects = {
        "2008_000008": [
            OBJECT.format(name="horse", difficult=0, box=(1, 2, 7, 8), more=part),
            OBJECT.format(name="person", difficult=1, box=(3, 3, 3, 3), more=""),
        ],
        "2008_000015": [OBJECT.format(name="bottle", difficult=0, box=(1, 1, 9, 9), more="")],
    }
    (root / "Annotations").mkdir(parents=True)
    (root / "ImageSets" / "Main").mkdir(parents=True)
    (root / "ImageSets" / "Segmentation").mkdir()
    for number, (name, found) in enumerate(objects.items()):
        text = f"<annotation><filename>{name}.jpg</filename>{''.join(found)}</annotation>"
        (root / "Annotations" / f"{name}.xml").write_text(text)
        write(root / "JPEGImages" / f"{name}.jpg", number, size=9)
        levels = np.full((9, 9), 255, np.uint8)
        levels[2:7, 2:7] = (13, 5)[number]
        levels[3, 3] = 0
        palette = Image.frombytes("P", (9, 9), levels.tobytes())
        palette.putpalette([value for index in range(256) for value in (index, 0, 255 - index)])
        (root / "SegmentationClass").mkdir(exist_ok=True)
        palette.save(root / "SegmentationClass" / f"{name}.png")
    for folder in ("Main", "Segmentation"):
        (root / "ImageSets" / folder / "train.txt").write_text("2008_000015\n2008_000008\n")
        (root / "ImageSets" / folder / "val.txt").write_text("2008_000008\n")
    return tmp_path


def test_voc_boxes_are_those_of_torchvision_counted_from_zero(voc):
    root = voc / "VOCdevkit/VOC2012"
    found = open_annotations(f"voc2012-detection@{root}", "train")
    theirs = VOCDetection(voc, year="2012", image_set="train")
    assert len(found) == len(theirs) == 2
    for (_, target), boxes in zip(theirs, found.values(), strict=True):
        objects = target["annotation"]["object"]
        assert [found.class_names[label] for label in boxes.labels] == [o["name"] for o in objects]
        edges = [[int(o["bndbox"][e]) for e in ("xmin", "ymin", "xmax", "ymax")] for o in objects]
        np.testing.assert_array_equal(boxes.corners, np.array(edges) - [1, 1, 0, 0])
        assert boxes.is_difficult.tolist() == [o["difficult"] == "1" for o in objects]
    assert found["2008_000008.jpg"].areas.tolist() == [7 * 7, 1]
    assert not found["2008_000008.jpg"].is_crowd.any()


def test_voc_classes_of_an_image_are_those_that_are_not_difficult(voc):
    split = open_dataset(f"voc2012-detection@{voc / 'VOCdevkit/VOC2012'}?part").load("train")
    assert split.ids == ("2008_000015.jpg", "2008_000008.jpg")
    assert [split.class_names[label] for label in split.labels] == ["bottle", "horse"]


def test_an_object_of_an_unknown_class_is_refused(voc):
    root = voc / "VOCdevkit/VOC2012"
    text = OBJECT.format(name="unicorn", difficult=0, box=(1, 1, 2, 2), more="")
    (root / "Annotations/2008_000008.xml").write_text(f"<annotation>{text}</annotation>")
    found = open_annotations(f"voc2012-detection@{root}", "train")
    with pytest.raises(DatasetError, match=r"'2008_000008.xml' has an object without class.*unic"):
        found["2008_000008.jpg"]


def test_voc_pixels_are_those_of_torchvision(voc):
    root = voc / "VOCdevkit/VOC2012"
    found = open_annotations(f"voc2012-segmentation@{root}", "train")
    theirs = VOCSegmentation(voc, year="2012", image_set="train")
    for (_, mask), ours in zip(theirs, found.values(), strict=True):
        np.testing.assert_array_equal(ours, np.asarray(mask))
    assert (found.class_names[5], found.class_names[13]) == ("bottle", "horse")
    assert np.unique(found["2008_000015.jpg"]).tolist() == [0, 5, IGNORED]
    split = open_dataset(f"voc2012-segmentation@{root}?part").load("train")
    assert split.ids == tuple(found)
    assert set(split.labels) == {NO_LABEL}


@pytest.fixture
def cityscapes(tmp_path):
    levels = np.arange(34, dtype=np.uint8).reshape(2, 17)
    for part in ("train", "val"):
        for city, number in (("aachen", 19), ("lindau", 7)):
            name = f"{city}_000000_{number:06d}"
            write(tmp_path / "leftImg8bit" / part / city / f"{name}_leftImg8bit.png", number)
            folder = tmp_path / "gtFine" / part / city
            folder.mkdir(parents=True)
            Image.fromarray(levels).save(folder / f"{name}_gtFine_labelIds.png")
            Image.fromarray(levels).save(folder / f"{name}_gtFine_instanceIds.png")
    return tmp_path


def test_cityscapes_pixels_have_the_nineteen_numbers_of_training(cityscapes):
    found = open_annotations(f"cityscapes@{cityscapes}", "val")
    theirs = Cityscapes(cityscapes, split="val", mode="fine", target_type="semantic")
    wanted = {one.id: one.train_id for one in Cityscapes.classes if one.id >= 0}
    kept = [one for one in Cityscapes.classes if 0 <= one.train_id < IGNORED]
    names = {one.train_id: one.name for one in kept}
    assert found.class_names == tuple(names[number] for number in range(19))
    masks = {
        path.rpartition("/")[2]: mask for path, (_, mask) in zip(theirs.images, theirs, strict=True)
    }
    for row_id, ours in found.items():
        mask = np.asarray(masks[row_id.rpartition("/")[2]])
        expected = np.vectorize(lambda level: min(wanted[level] % 256, IGNORED))(mask)
        np.testing.assert_array_equal(ours, expected)


def test_cityscapes_photographs_are_sorted_by_city(cityscapes):
    split = open_dataset(f"cityscapes@{cityscapes}?part").load("train")
    assert split.ids == (
        "aachen/aachen_000000_000019_leftImg8bit.png",
        "lindau/lindau_000000_000007_leftImg8bit.png",
    )


def test_a_mask_in_colours_is_refused(cityscapes):
    mask = cityscapes / "gtFine/val/aachen/aachen_000000_000019_gtFine_labelIds.png"
    Image.new("RGB", (4, 4)).save(mask)
    found = open_annotations(f"cityscapes@{cityscapes}", "val")
    with pytest.raises(DatasetError, match="has the mode RGB, not one channel"):
        found["aachen/aachen_000000_000019_leftImg8bit.png"]


def test_other_datasets_and_splits_are_refused(tmp_path):
    with pytest.raises(OptionError, match=r"as cityscapes, coco2017.*'cifar10' has none"):
        open_annotations("cifar10", "train")
    with pytest.raises(OptionError, match=r"has the splits train, val; got 'test'"):
        open_annotations(f"coco2017@{tmp_path}", "test")
