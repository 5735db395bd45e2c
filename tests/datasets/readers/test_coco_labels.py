"""iNaturalist 2019 and 2021, on tables with the fields of the published ones."""

import json

import pytest

from featcache.datasets.catalog import open_dataset
from featcache.errors import DatasetError
from tests.datasets.miniatures import coco_table, picture


def inat2021(root, part):
    categories = [
        {
            "id": number,
            "name": name,
            "common_name": name.lower(),
            "supercategory": "Insects",
            "kingdom": "Animalia",
            "image_dir_name": f"{number:05d}_Animalia_{name.replace(' ', '_')}",
        }
        for number, name in ((1, "Aphonopelma hentzi"), (0, "Lumbricus terrestris"), (2, "Apis"))
    ]
    files = [
        f"{part}/00002_Animalia_Apis/b.jpg",
        f"{part}/00000_Animalia_Lumbricus_terrestris/a.jpg",
    ]
    coco_table(root / f"{part}.json", dict(zip(files, (2, 0), strict=True)), categories)
    for file in files:
        picture(root / file)


def test_species_are_ordered_by_their_ids_and_images_as_in_the_table(tmp_path):
    for part in ("train", "train_mini", "val"):
        inat2021(tmp_path, part)
    data = open_dataset(f"inat2021@{tmp_path}?part")
    assert data.splits == ("train", "val", "mini")
    for split, folder in (("train", "train"), ("mini", "train_mini"), ("val", "val")):
        found = data.load(split)
        assert found.class_names == ("Lumbricus terrestris", "Aphonopelma hentzi", "Apis")
        assert found.ids[0] == f"{folder}/00002_Animalia_Apis/b.jpg"
        assert found.labels.tolist() == [2, 0]


def test_names_that_are_not_unique_get_their_id(tmp_path):
    picture(tmp_path / "train_val2019/Plants/400/d1322d13ccd856eb4236c8b888546c79.jpg")
    table = {
        "images": [
            {
                "file_name": "train_val2019/Plants/400/d1322d13ccd856eb4236c8b888546c79.jpg",
                "rights_holder": "cheryl",
                "id": 0,
            }
        ],
        "annotations": [{"id": 0, "image_id": 0, "category_id": 400}],
        "categories": [
            {"id": 401, "name": "Plants", "supercategory": "Plants"},
            {"id": 400, "name": "Plants", "supercategory": "Plants"},
            {"id": 7, "name": "Fungi", "supercategory": "Fungi"},
        ],
    }
    (tmp_path / "val2019.json").write_text(json.dumps(table))
    split = open_dataset(f"inat2019@{tmp_path}?part").load("val")
    assert split.class_names == ("Fungi", "Plants 400", "Plants 401")
    assert split.labels.tolist() == [1]


@pytest.mark.parametrize("text", ["[1, 2]", "{", '{"images": [], "annotations": []}'])
def test_what_is_no_such_table_is_refused(tmp_path, text):
    (tmp_path / "val.json").write_text(text)
    with pytest.raises(DatasetError, match="'val.json' is no table as of COCO"):
        open_dataset(f"inat2021@{tmp_path}?part").load("val")


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(DatasetError, match="there is no 'train.json'"):
        open_dataset(f"inat2021@{tmp_path}").load("train")
