"""CheXpert and VOC2007: images of several classes, down to what the task `multilabel` reads."""

import numpy as np
import pytest

from featcache.datasets.catalog import open_dataset
from featcache.errors import DatasetError
from featcache.probes.linear.multilabel import targets_of
from featcache.store.table import Table
from tests.datasets.miniatures import chexpert_table, picture

FINDINGS = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")


def members(split):
    """Return the names of the classes, and for each row whether it is in them."""
    features = np.zeros((len(split), 2), np.float32)
    ids = np.array(split.ids)
    table = Table(features=features, labels=split.labels, ids=ids, class_names=split.class_names)
    return targets_of(table, "|")


def chexpert(root, table, rows):
    chexpert_table(root / table, rows)
    for path, *_ in rows:
        picture(root / path)


@pytest.fixture
def radiographs(tmp_path):
    unsure = dict.fromkeys(FINDINGS, "-1.0")
    sure = {"Cardiomegaly": "1.0", "Edema": "0.0", "Pleural Effusion": "1.0"}
    chexpert(
        tmp_path,
        "train.csv",
        [
            ("train/patient00001/study1/view1_frontal.jpg", "Frontal", {"No Finding": "1.0"}),
            ("train/patient00002/study2/view1_frontal.jpg", "Frontal", unsure),
            ("train/patient00003/study1/view2_lateral.jpg", "Lateral", sure),
        ],
    )
    test = {**dict.fromkeys(FINDINGS, "0.0"), "Edema": "1.0"}
    chexpert(
        tmp_path,
        "valid.csv",
        [("valid/patient64541/study1/view1_frontal.jpg", "Frontal", test)],
    )
    return tmp_path


def test_uncertain_findings_count_as_the_row_says(radiographs):
    data = open_dataset(f"chexpert@{radiographs}?part")
    names, found = members(data.load("train"))
    assert names == FINDINGS
    assert found.tolist() == [
        [False] * 5,
        [True, False, False, True, False],
        [False, True, False, False, True],
    ]
    assert members(data.load("test"))[1].tolist() == [[False, False, False, True, False]]


def test_no_finding_is_a_label_and_all_sets_are_names(radiographs):
    data = open_dataset(f"chexpert@{radiographs}?part")
    train, test = data.load("train"), data.load("test")
    assert train.class_names == test.class_names
    assert len(set(train.class_names)) == 2**5
    assert train.class_names[train.labels[0]] == "|"
    assert (train.labels >= 0).all()
    assert train.ids[0] == "train/patient00001/study1/view1_frontal.jpg"
    assert (train.facts["chance"], train.facts["metric"]) == (0.5, "auroc")


def test_the_frontal_views_are_a_dataset_of_their_own(radiographs):
    split = open_dataset(f"chexpert-frontal@{radiographs}?part").load("train")
    assert len(split) == 2
    assert all(one.endswith("frontal.jpg") for one in split.ids)


def test_other_tables_and_values_are_refused(radiographs):
    table = radiographs / "valid.csv"
    text = table.read_text()
    table.write_text(text.replace("Edema", "Oedema"))
    with pytest.raises(DatasetError, match="'valid.csv' has no column 'Edema'"):
        open_dataset(f"chexpert@{radiographs}?part").load("test")
    table.write_text(text.replace(",1.0,0.0,", ",2.0,0.0,"))
    with pytest.raises(
        DatasetError, match="'Edema' of '.*view1_frontal.jpg' is '2.0', not 1, 0, -1"
    ):
        open_dataset(f"chexpert@{radiographs}?part").load("test")


def annotation(root, name, *objects):
    """An annotation as VOC2007 writes it, with parts of objects, which are no objects."""
    parts = "".join(
        f"<object><name>{kind}</name><pose>Left</pose><truncated>1</truncated>"
        f"<difficult>{difficult}</difficult><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax>"
        "<ymax>4</ymax></bndbox><part><name>head</name></part></object>"
        for kind, difficult in objects
    )
    file = root / "Annotations" / f"{name}.xml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(
        f"<annotation><folder>VOC2007</folder><filename>{name}.jpg</filename><size>"
        f"<width>500</width><height>375</height><depth>3</depth></size>{parts}</annotation>"
    )
    picture(root / "JPEGImages" / f"{name}.jpg")


def images_of_objects(root):
    annotation(root, "000005", ("chair", 0), ("chair", 1), ("person", 0))
    annotation(root, "000007", ("car", 0), ("chair", 1))
    annotation(root, "000001", ("dog", 0), ("person", 0))
    annotation(root, "000002", ("train", 1))
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "trainval.txt").write_text("000005\n000007\n")
    (lists / "test.txt").write_text("000001\n000002\n")


@pytest.fixture
def voc(tmp_path):
    images_of_objects(tmp_path)
    return tmp_path


def test_objects_marked_as_difficult_do_not_count(voc):
    data = open_dataset(f"voc2007@{voc}?part")
    train, test = data.load("train"), data.load("test")
    assert (train.ids, test.ids) == (("000005.jpg", "000007.jpg"), ("000001.jpg", "000002.jpg"))
    assert train.class_names == test.class_names == ("car", "chair|person", "dog|person", "|")
    assert [train.class_names[label] for label in train.labels] == ["chair|person", "car"]
    assert [test.class_names[label] for label in test.labels] == ["dog|person", "|"]
    names, found = members(test)
    assert names == ("car", "chair", "dog", "person")
    assert found.tolist() == [[False, False, True, True], [False] * 4]


def test_an_annotation_that_is_cut_off_is_refused(voc):
    (voc / "Annotations" / "000007.xml").write_text("<annotation><object>")
    with pytest.raises(DatasetError, match="'000007.xml' is no XML of objects"):
        open_dataset(f"voc2007@{voc}?part").load("train")


def test_an_image_whose_annotation_is_missing_is_left_out(voc):
    (voc / "Annotations" / "000007.xml").unlink()
    assert open_dataset(f"voc2007@{voc}?part").load("train").ids == ("000005.jpg",)
    with pytest.raises(DatasetError, match="must have 5011 images; .* holds 1"):
        open_dataset(f"voc2007@{voc}").load("train")
