"""Folders of images: layouts, ids, what is ignored and what is refused."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from featcache.datasets.catalog import dataset_name, open_dataset
from featcache.datasets.dataset import NO_LABEL
from featcache.datasets.memo import FileDigestMemo
from featcache.errors import DatasetError, UnreadableImageError
from tests.datasets.pictures import write


def tree(root: Path, *files: str) -> Path:
    for seed, file in enumerate(files):
        write(root / file, seed)
    return root


def load(root: Path, split: str = "all"):
    return open_dataset(f"imagefolder:{root}").load(split)


def identity(root: Path, split: str = "all"):
    return load(root, split).identity(FileDigestMemo())


def test_folders_are_classes_of_one_split(tmp_path):
    root = tree(tmp_path / "pets", "dog/b.png", "cat/1.jpg", "dog/a.PNG", "cat/deep/er/2.webp")
    data = open_dataset(f"imagefolder:{root}")
    assert (data.name, data.splits) == ("pets", ("all",))
    split = data.load("all")
    assert split.ids == ("cat/1.jpg", "cat/deep/er/2.webp", "dog/a.PNG", "dog/b.png")
    assert split.class_names == ("cat", "dog")
    assert split.labels.tolist() == [0, 0, 1, 1]
    assert split.labels.dtype == np.int64
    assert split.images.read(3).size == (5, 5)
    assert split.facts == {
        "classes": 2,
        "chance": 0.5,
        "ignored_files": 0,
        "ignored_extensions": [],
    }


def test_folders_of_splits_share_their_classes_and_come_train_first(tmp_path):
    root = tree(
        tmp_path, "Validation/a/1.png", "test/b/1.png", "training/b/1.png", "training/c/1.png"
    )
    data = open_dataset(f"imagefolder:{root}")
    assert data.splits == ("train", "val", "test")
    for name, label, first in (("train", 1, "b/1.png"), ("val", 0, "a/1.png"), ("test", 1, None)):
        split = data.load(name)
        assert split.class_names == ("a", "b", "c")
        assert split.labels[0] == label
        assert split.ids[0] == (first or "b/1.png")


def test_images_right_in_the_folder_are_one_split_without_labels(tmp_path):
    split = load(tree(tmp_path, "b.png", "a.jpg"))
    assert split.ids == ("a.jpg", "b.png")
    assert split.labels.tolist() == [NO_LABEL, NO_LABEL]
    assert split.class_names == ()
    assert "chance" not in split.facts


def test_a_split_may_lack_labels_while_another_has_them(tmp_path):
    data = open_dataset(f"imagefolder:{tree(tmp_path, 'train/a/1.png', 'test/1.png')}")
    assert data.load("test").labels.tolist() == [NO_LABEL]
    assert data.load("train").labels.tolist() == [0]
    assert data.load("test").class_names == data.load("train").class_names == ("a",)


def test_a_class_may_be_called_train(tmp_path):
    root = tree(tmp_path, "train/1.png", "car/1.png")
    assert load(root).class_names == ("car", "train")


def test_ids_are_sorted_by_code_point_and_may_differ_only_in_case_or_normal_form(tmp_path):
    names = ["a.png", "B.png", "é.png", "e\u0301.png", "Z.png", "z.png", "日.png", "a b.png"]
    split = load(tree(tmp_path, *(f"c/{name}" for name in names)))
    assert split.ids == tuple(sorted(f"c/{name}" for name in names))


def test_a_name_that_is_not_unicode_is_still_an_image_with_an_id(tmp_path):
    folder = tmp_path / "c"
    write(folder / "a.png")
    try:
        shutil.copy(folder / "a.png", os.fsencode(folder) + b"/\xff.png")
    except OSError:
        pytest.skip("the file system takes only UTF-8 names")
    split = load(tmp_path)
    assert split.ids == ("c/\\xff.png", "c/a.png") or split.ids == ("c/a.png", "c/\\xff.png")
    assert all(split.images.read(row).size == (5, 5) for row in range(2))
    assert split.identity(FileDigestMemo()).rows == 2


def test_what_is_no_image_is_ignored_and_counted(tmp_path):
    root = tree(tmp_path, "a/1.png", "a/.hidden.png", ".git/1.png", "__MACOSX/a/1.png")
    for name in ("a/Thumbs.db", "a/notes.txt", "a/NOTES.TXT", "readme"):
        (root / name).touch()
    split = load(root)
    assert split.ids == ("a/1.png",)
    assert split.facts["ignored_files"] == 5
    assert split.facts["ignored_extensions"] == ["", ".db", ".txt", "hidden"]


def test_links_to_files_and_folders_are_followed_and_loops_end(tmp_path):
    root = tree(tmp_path / "root", "a/1.png", "a/in/2.png")
    write(tmp_path / "elsewhere" / "3.png")
    (root / "a" / "file.png").symlink_to(tmp_path / "elsewhere" / "3.png")
    (root / "b").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "up").symlink_to(root)
    (root / "a" / "in" / "self").symlink_to(root / "a" / "in")
    (root / "again").symlink_to(root)
    (root / "a" / "eats itself").symlink_to(root / "a" / "eats itself")
    assert load(root).ids == ("a/1.png", "a/file.png", "a/in/2.png", "b/3.png")


def test_a_dangling_link_is_an_unreadable_row(tmp_path):
    root = tree(tmp_path, "a/1.png")
    (root / "a" / "gone.png").symlink_to(root / "nowhere")
    split = load(root)
    with pytest.raises(UnreadableImageError, match="no such file"):
        split.images.read(split.ids.index("a/gone.png"))
    assert split.images.digests(FileDigestMemo())[1] == ""


def test_the_identity_does_not_change_when_the_folder_moves_or_is_touched(tmp_path):
    root = tree(tmp_path / "x" / "pets", "cat/1.png", "dog/2.png")
    before = identity(root)
    os.utime(root / "cat" / "1.png", (1, 1))
    (root / "dog" / "notes.txt").write_text("new")
    moved = tmp_path / "y" / "pets"
    shutil.copytree(root, moved)
    assert identity(root) == identity(moved) == before


def test_the_identity_changes_with_a_byte_a_name_or_a_label(tmp_path):
    root = tree(tmp_path / "pets", "cat/1.png", "dog/2.png")
    before = identity(root)
    path = root / "cat" / "1.png"
    path.write_bytes(path.read_bytes() + b"\0")
    byte = identity(root)
    (root / "dog" / "2.png").rename(root / "dog" / "3.png")
    name = identity(root)
    (root / "dog").rename(root / "emu")
    label = identity(root)
    assert len({one.fingerprint for one in (before, byte, name, label)}) == 4
    assert before.label_set == byte.label_set == name.label_set != label.label_set


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ((), r"must hold at least one; .* holds none\. Check the path"),
        (("1.png", "a/1.png"), r"has both: 1 directly \('1.png'\) and more in 'a'\. Move them"),
        (("train/a/1.png", "more/1.png"), r"got the split 'train' beside 'more'\. Move the others"),
        (("val/a/1.png", "valid/a/1.png"), r"one folder with images; .*valid' is a second 'val'"),
        (("train/1.png", "train/a/1.png"), r"train' has both: 1 directly"),
    ],
)
def test_a_mixed_or_empty_layout_is_refused(tmp_path, files, message):
    tree(tmp_path, *files)
    with pytest.raises(DatasetError, match=message):
        load(tmp_path)


def test_empty_classes_are_named(tmp_path):
    tree(tmp_path / "one", "a/1.png")
    tree(tmp_path / "two", "train/a/1.png", "test/a/1.png")
    for folder in ("one/b", "one/c", "two/test/b"):
        (tmp_path / folder).mkdir()
    with pytest.raises(DatasetError, match=r"these are empty: 'b', 'c'\. Remove the folders or"):
        load(tmp_path / "one")
    with pytest.raises(DatasetError, match="these are empty: 'test/b'"):
        load(tmp_path / "two")


def test_an_empty_split_is_refused(tmp_path):
    tree(tmp_path, "train/a/1.png")
    (tmp_path / "test").mkdir()
    with pytest.raises(DatasetError, match="test' is empty. Remove, merge or rename it"):
        load(tmp_path)


def test_a_folder_without_images_says_what_it_holds(tmp_path):
    (tmp_path / "a.txt").touch()
    (tmp_path / "b.mp4").touch()
    with pytest.raises(DatasetError, match=r"holds none among 2 files \('.mp4', '.txt'\)"):
        load(tmp_path)


def test_no_folder_is_refused(tmp_path):
    (tmp_path / "table.csv").touch()
    with pytest.raises(DatasetError, match=r"got a file at .* or write csv:FILE for a table"):
        load(tmp_path / "table.csv")
    with pytest.raises(DatasetError, match=r"got nothing at .*Check the path"):
        load(tmp_path / "nope")
    with pytest.raises(DatasetError, match="got an empty path"):
        open_dataset("imagefolder:")


def test_an_unreadable_folder_is_refused(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    tree(tmp_path, "a/1.png")
    monkeypatch.setattr("featcache.datasets.folders.os.scandir", refuse)
    with pytest.raises(DatasetError, match=r"must be readable; .*: Permission denied\. Change its"):
        load(tmp_path)


def test_an_unknown_split_is_refused_with_those_there_are(tmp_path):
    tree(tmp_path / "pets", "a/1.png")
    with pytest.raises(DatasetError, match="split of 'pets' must be one of all; got 'test'"):
        load(tmp_path / "pets", "test")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/data/pets", "pets"),
        ("/data/pets/", "pets"),
        ("/data/pets/../my birds", "my-birds"),
        ("/data/ünï cøde (2)", "ünï-cøde-2"),
        ("/data/e\u0301", "é"),
        ("/data/pets/train", "pets-train"),
        ("/data/pets/Test", "pets-Test"),
        ("/data/.hidden", "hidden"),
        ("/data/!!!", "images"),
        ("/", "images"),
        ("C:\\My Data\\cats & dogs", "cats-dogs"),
        ("C:/data/val", "data-val"),
    ],
)
def test_the_name_is_the_folders_made_safe(path, name):
    assert dataset_name(f"imagefolder:{path}") == name
