"""Images with captions in Karpathy's splits: COCO's table and Flickr's."""

import json

import pytest

from featcache.datasets.captions import caption_id, captions, has_captions, parse_caption_id
from featcache.datasets.catalog import open_dataset
from featcache.datasets.dataset import NO_LABEL
from featcache.errors import DatasetError, OptionError
from featcache.testing import check_dataset
from tests.datasets.miniatures import caption_table, picture

COCO = {
    "val2014/COCO_val2014_000000391895.jpg": ("test", 5),
    "val2014/COCO_val2014_000000060623.jpg": ("restval", 5),
    "train2014/COCO_train2014_000000000009.jpg": ("train", 7),
    "val2014/COCO_val2014_000000000042.jpg": ("val", 5),
    "val2014/COCO_val2014_000000000073.jpg": ("test", 6),
}


@pytest.fixture
def coco(tmp_path):
    caption_table(tmp_path / "dataset_coco.json", COCO)
    for seed, name in enumerate(COCO):
        picture(tmp_path / name, seed)
    return tmp_path


def test_train_is_train_and_restval_and_rows_are_in_the_table_s_order(coco):
    data = open_dataset(f"coco-captions@{coco}?part")
    assert data.splits == ("train", "val", "test")
    names = list(COCO)
    assert data.load("train").ids == (names[1], names[2])
    assert data.load("val").ids == (names[3],)
    assert data.load("test").ids == (names[0], names[4])
    assert data.load("test").labels.tolist() == [NO_LABEL] * 2
    check_dataset(f"coco-captions@{coco}?part")


def test_a_split_has_the_published_number_of_images(coco):
    with pytest.raises(DatasetError, match=r"must have 5000 images; .* holds 2.*dataset_coco.json"):
        open_dataset(f"coco-captions@{coco}").load("test")


def test_captions_are_texts_beside_the_images(coco):
    found = captions(f"coco-captions@{coco}?part", "test")
    assert (found.name, found.split) == ("coco-captions-part-texts", "test")
    first, second = (name for name, (split, _) in COCO.items() if split == "test")
    assert found.ids == (*(f"{first}#{i}" for i in range(5)), *(f"{second}#{i}" for i in range(6)))
    assert found.texts[0] == f"Caption 0 of {first} ."
    assert set(found.labels.tolist()) == {NO_LABEL}
    only = captions(f"coco-captions@{coco}?part", "test", images={second})
    assert only.ids == found.ids[5:]
    assert only.texts == found.texts[5:]


def test_a_blank_caption_is_left_out_and_the_others_keep_their_number(coco):
    table = json.loads((coco / "dataset_coco.json").read_text())
    table["images"][0]["sentences"][1]["raw"] = " \n"
    (coco / "dataset_coco.json").write_text(json.dumps(table))
    found = captions(f"coco-captions@{coco}", "test")
    assert [name.rpartition("#")[2] for name in found.ids[:4]] == ["0", "2", "3", "4"]


@pytest.mark.parametrize(
    ("name", "table", "folder"),
    [
        ("flickr30k", "dataset_flickr30k.json", "flickr30k-images"),
        ("flickr30k", "dataset_flickr30k.json", "flickr30k_images"),
        ("flickr8k", "dataset_flickr8k.json", "Flicker8k_Dataset"),
    ],
)
def test_flickr_s_tables_name_files_alone(tmp_path, name, table, folder):
    images = {"1000092795.jpg": ("train", 5), "1007129816.jpg": ("test", 5)}
    caption_table(tmp_path / table, images)
    for file in images:
        picture(tmp_path / folder / file)
    data = open_dataset(f"{name}@{tmp_path}?part")
    assert data.load("test").ids == ("1007129816.jpg",)
    assert data.load("test").images.read(0).size == (5, 5)
    assert len(captions(f"{name}@{tmp_path}", "train")) == 5


def test_what_is_not_there_or_not_of_its_form_is_said(coco):
    with pytest.raises(OptionError, match="has the splits train, val, test; got 'dev'"):
        captions(f"coco-captions@{coco}", "dev")
    with pytest.raises(
        OptionError, match="there for coco-captions, flickr30k, flickr8k; got 'digi"
    ):
        captions("digits", "test")
    (coco / "dataset_coco.json").write_text('{"images": [{"filename": "a.jpg", "split": "test"}]}')
    with pytest.raises(DatasetError, match=r"no table of captions .*sentences"):
        captions(f"coco-captions@{coco}", "test")
    (coco / "dataset_coco.json").unlink()
    with pytest.raises(DatasetError, match=r"there is no 'dataset_coco.json'. Fetch train2014"):
        captions(f"coco-captions@{coco}", "test")


def test_ids_of_captions_lead_back_to_their_image():
    assert parse_caption_id(caption_id("a#b.jpg", 3)) == ("a#b.jpg", 3)
    assert [parse_caption_id(name) for name in ("a.jpg", "#1", "a#", "a#-1")] == [None] * 4
    assert [has_captions(one) for one in ("flickr8k@/x?part", "digits", "nope")] == [
        True,
        False,
        False,
    ]
