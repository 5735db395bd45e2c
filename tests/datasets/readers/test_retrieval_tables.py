"""CUB-200, Stanford Online Products, Cars196, Copydays and Google Landmarks as published."""

import numpy as np
import pytest
from scipy.io import savemat

import featcache
from featcache.datasets.catalog import open_dataset
from featcache.errors import DatasetError
from tests.datasets.miniatures import gldv2_tables
from tests.datasets.pictures import write


@pytest.fixture
def cub(tmp_path):
    names = ["001.Black_footed_Albatross/Black_0046_18.jpg", "002.Laysan_Albatross/Laysan_1.jpg"]
    names.append("001.Black_footed_Albatross/Black_0009_34.jpg")
    for seed, name in enumerate(names):
        write(tmp_path / "images" / name, seed)
    lines = "".join(f"{number} {name}\n" for number, name in enumerate(names, start=1))
    (tmp_path / "images.txt").write_text(lines)
    (tmp_path / "image_class_labels.txt").write_text("1 1\n2 2\n3 1\n")
    (tmp_path / "train_test_split.txt").write_text("1 0\n2 1\n3 1\n")
    (tmp_path / "classes.txt").write_text("1 001.Black_footed_Albatross\n2 002.Laysan_Albatross\n")
    return tmp_path


def test_cub_is_split_by_its_table(cub):
    data = open_dataset(f"cub200@{cub}?part")
    train, test = data.load("train"), data.load("test")
    assert test.ids == ("001.Black_footed_Albatross/Black_0046_18.jpg",)
    assert train.labels.tolist() == [1, 0]
    assert train.class_names == test.class_names == (
        "001.Black_footed_Albatross",
        "002.Laysan_Albatross",
    )  # fmt: skip


def test_tables_of_cub_that_do_not_fit_are_refused(cub):
    (cub / "image_class_labels.txt").write_text("1 1\n2 3\n3 1\n")
    with pytest.raises(DatasetError, match="classes.txt lacks the class '3'"):
        open_dataset(f"cub200@{cub}?part").load("train")
    (cub / "image_class_labels.txt").write_text("1 1\n")
    with pytest.raises(DatasetError, match="its tables are about different images"):
        open_dataset(f"cub200@{cub}?part").load("train")


def test_products_of_test_are_others_than_those_of_train(tmp_path):
    header = "image_id class_id super_class_id path\n"
    (tmp_path / "Ebay_train.txt").write_text(f"{header}1 1 1 bicycle_final/1_0.JPG\n")
    (tmp_path / "Ebay_test.txt").write_text(f"{header}59552 11319 1 bicycle_final/2_0.JPG\n")
    for seed in (1, 2):
        write(tmp_path / "bicycle_final" / f"{seed}_0.JPG", seed)
    data = open_dataset(f"sop@{tmp_path}?part")
    train, test = data.load("train"), data.load("test")
    assert (train.labels.tolist(), test.labels.tolist()) == ([0], [11318])
    assert test.class_names[11318] == "11319"
    assert train.class_names == test.class_names
    (tmp_path / "Ebay_test.txt").write_text("1 1 1 bicycle_final/1_0.JPG\n")
    with pytest.raises(DatasetError, match="begins with '1 1 1 bicycle_final/1_0.JPG', not with"):
        data.load("test")


def test_cars_are_split_by_class_whatever_the_table_says(tmp_path):
    fields = [("relative_im_path", object), ("bbox_x1", object), ("class", object)]
    rows = [("car_ims/000001.jpg", 112, 1, 0), ("car_ims/000002.jpg", 4, 98, 1)]
    rows += [("car_ims/000003.jpg", 9, 99, 0), ("car_ims/000004.jpg", 30, 196, 1)]
    table = np.array([rows], dtype=[*fields, ("test", object)])
    names = np.array([[f"Model {number} 2012" for number in range(196)]], dtype=object)
    savemat(tmp_path / "cars_annos.mat", {"annotations": table, "class_names": names})
    for seed, row in enumerate(rows):
        write(tmp_path / row[0], seed)
    data = open_dataset(f"cars196-retrieval@{tmp_path}?part")
    train, test = data.load("train"), data.load("test")
    assert train.ids == ("car_ims/000001.jpg", "car_ims/000002.jpg")
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 97], [98, 195])
    assert test.class_names[195] == "Model 195 2012"
    savemat(tmp_path / "cars_annos.mat", {"annotations": 1})
    with pytest.raises(DatasetError, match=r"cars_annos.mat is not of its form: KeyError"):
        data.load("test")


@pytest.fixture
def copies(tmp_path):
    for scene in range(3):
        write(tmp_path / "original" / f"20{scene:02}00.jpg", scene, size=20)
        write(tmp_path / "strong" / f"20{scene:02}01.jpg", scene, size=20)
        for kind in ("jpegqual/3", "jpegqual/75", "crops/10"):
            write(tmp_path / kind / f"20{scene:02}00.jpg", scene, size=20)
    write(tmp_path / "strong" / "200202.jpg", 2, size=20)
    return tmp_path


def test_copies_are_named_after_their_scene(copies):
    data = open_dataset(f"copydays@{copies}?part")
    query, gallery = data.load("query"), data.load("gallery")
    assert gallery.ids == ("original/200000.jpg", "original/200100.jpg", "original/200200.jpg")
    assert query.labels.tolist() == [0, 1, 2, 2]
    assert query.class_names == gallery.class_names == ("2000", "2001", "2002")
    write(copies / "strong" / "203301.jpg")
    with pytest.raises(DatasetError, match=r"strong/203301.jpg has no original. Fetch copydays"):
        data.load("query")
    write(copies / "strong" / "20.jpg")
    with pytest.raises(DatasetError, match="'20.jpg' is not called like 200001.jpg"):
        data.load("query")


def test_a_folder_of_copies_that_is_not_there_is_named(copies):
    with pytest.raises(DatasetError, match="there is no 'jpegqual/5'"):
        open_dataset(f"copydays@{copies}?part").load("jpeg")


def test_copy_detection_runs_on_queries_and_gallery(copies, cache):
    source = f"copydays@{copies}?part"
    for split in ("query", "gallery"):
        featcache.extract(backbone="pixels", dataset=source, splits=[split], cache=cache.root)
    result, _ = featcache.probe(
        backbone="pixels", dataset=source, task="copydetection", cache=cache.root, device="cpu"
    )
    assert result.record["details"]["true_matches"] == 4
    assert result.score == 1.0


@pytest.fixture
def landmarks(tmp_path):
    index = ["000a1b2c3d4e5f60", "00f1b2c3d4e5f601", "a01b2c3d4e5f6012"]
    for seed, name in enumerate(index):
        write(tmp_path / "index" / name[0] / name[1] / name[2] / f"{name}.jpg", seed)
    for seed, name in enumerate(("b00", "c00", "d00")):
        write(tmp_path / "test" / name[0] / name[1] / name[2] / f"{name}.jpg", seed)
    answers = {"b00": [], "c00": [index[0], index[2]], "d00": [index[1]]}
    gldv2_tables(tmp_path, index, answers)
    return tmp_path


def test_only_test_images_with_an_answer_are_queries(landmarks):
    data = open_dataset(f"gldv2@{landmarks}?part")
    assert data.load("query").ids == ("c00", "d00")
    gallery = data.load("gallery")
    assert gallery.ids[2] == "a01b2c3d4e5f6012"
    assert gallery.images.read(2).size == (5, 5)


def test_a_part_of_landmarks_has_answers_to_its_queries(tmp_path):
    index = [f"{number:016x}" for number in range(200)]
    answers = {f"000f{number:012x}": index[4 * number : 4 * number + 4] for number in range(50)}
    gldv2_tables(tmp_path, index, answers)
    for folder, names in (("index", index), ("test", answers)):
        for seed, name in enumerate(names):
            write(tmp_path / folder / "0" / "0" / "0" / f"{name}.jpg", seed)
    data = open_dataset(f"gldv2@{tmp_path}?part&rows=9")
    query, gallery = data.load("query"), data.load("gallery")
    assert len(query) == len(gallery) == 9
    assert {answers[one][0] for one in query.ids} == set(gallery.ids)


def test_tables_of_landmarks_may_lie_with_their_images(landmarks):
    (landmarks / "index.csv").rename(landmarks / "index" / "index.csv")
    name = "retrieval_solution_v2.1.csv"
    (landmarks / name).rename(landmarks / "test" / name)
    data = open_dataset(f"gldv2@{landmarks}?part")
    assert (len(data.load("query")), len(data.load("gallery"))) == (2, 3)
    (landmarks / "test" / name).write_text("id,images\nb00,None\n")
    with pytest.raises(DatasetError, match="a table has no 'Usage' in"):
        data.load("query")
