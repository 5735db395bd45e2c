"""Tables of images: columns, encodings, ids, and what is refused, with line numbers."""

import shutil
from pathlib import Path

import pytest

from featcache.datasets.catalog import dataset_name, open_dataset
from featcache.datasets.dataset import NO_LABEL
from featcache.datasets.memo import FileDigestMemo
from featcache.errors import DatasetError, UnreadableImageError
from tests.datasets.pictures import write


@pytest.fixture
def folder(tmp_path):
    for seed, name in enumerate(("a.png", "b.png", "deep/c.png", "one, two.png")):
        write(tmp_path / name, seed)
    return tmp_path


def table(folder: Path, text: str | bytes, name: str = "table.csv") -> str:
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return f"csv:{folder / name}"


def test_rows_keep_the_order_of_the_table_and_split_by_column(folder):
    data = open_dataset(
        table(
            folder,
            "path,label,split\nb.png,dog,test\na.png,cat,Training\ndeep/c.png,dog,validation\n",
        )
    )
    assert (data.name, data.splits) == ("table", ("train", "val", "test"))
    split = data.load("test")
    assert (split.ids, split.labels.tolist()) == (("b.png",), [1])
    assert split.class_names == ("cat", "dog")
    assert split.facts["chance"] == 0.5
    assert split.images.read(0).size == (5, 5)


def test_own_split_names_come_last_and_sorted(folder):
    source = table(folder, "path,split\na.png,zoo\nb.png,test\ndeep/c.png,arctic\n")
    assert open_dataset(source).splits == ("test", "arctic", "zoo")


def test_without_label_and_split_all_rows_are_one_unlabelled_split(folder):
    split = open_dataset(table(folder, "path\na.png\nb.png\n")).load("all")
    assert split.labels.tolist() == [NO_LABEL, NO_LABEL]
    assert split.class_names == ()


@pytest.mark.parametrize(
    ("labels", "classes"),
    [(("10", "9", "-1"), ("-1", "9", "10")), (("10", "9", "x"), ("10", "9", "x"))],
)
def test_integer_labels_sort_by_value_others_as_text(folder, labels, classes):
    rows = "".join(
        f"{p},{v}\n" for p, v in zip(("a.png", "b.png", "deep/c.png"), labels, strict=True)
    )
    assert open_dataset(table(folder, f"path,label\n{rows}")).load("all").class_names == classes


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_byte_order_mark_and_line_ends_are_of_no_account(folder, start, end):
    text = end.join((" Path , LABEL", "a.png, chât", "", '"one, two.png","big, cat"'))
    split = open_dataset(table(folder, start + text.encode())).load("all")
    assert split.ids == ("a.png", "one, two.png")
    assert split.class_names == ("big, cat", "chât")
    assert split.images.read(1).size == (5, 5)


def test_a_tsv_is_separated_by_tabs(folder):
    split = open_dataset(table(folder, "path\tlabel\none, two.png\tx\n", "t.TSV")).load("all")
    assert split.ids == ("one, two.png",)


def test_paths_may_be_absolute_or_written_with_backslashes(folder):
    rows = f"path\n{folder / 'a.png'}\ndeep\\c.png\n"
    split = open_dataset(table(folder, rows)).load("all")
    assert split.ids == ((folder / "a.png").as_posix(), "deep/c.png")
    assert [split.images.read(row).size for row in range(2)] == [(5, 5)] * 2


def test_an_id_column_replaces_the_path(folder):
    split = open_dataset(table(folder, "id,path\nfirst,a.png\nagain,a.png\n")).load("all")
    assert split.ids == ("first", "again")


def test_a_missing_image_is_an_unreadable_row_with_an_empty_digest(folder):
    split = open_dataset(table(folder, "path\ngone.png\na.png\n")).load("all")
    assert split.images.digests(FileDigestMemo())[0] == ""
    with pytest.raises(UnreadableImageError, match="^no such file$"):
        split.images.read(0)


def test_the_identity_follows_contents_labels_and_ids_not_the_place(folder):
    text = "path,label\na.png,x\nb.png,y\n"

    def identity(text: str, where: Path):
        return open_dataset(table(where, text)).load("all").identity(FileDigestMemo())

    before = identity(text, folder)
    moved = folder.parent / "moved"
    shutil.copytree(folder, moved)
    assert identity(text, moved) == before
    assert identity(text.replace(",y", ",z"), folder).label_set != before.label_set
    assert identity(text.replace(",y", ",x"), folder).fingerprint == before.fingerprint
    named = identity("path,label,id\na.png,x,a.png\nb.png,y,other\n", folder)
    assert named.fingerprint != before.fingerprint
    swapped = identity("path,label\nb.png,y\na.png,x\n", folder)
    assert swapped.fingerprint != before.fingerprint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"first line must name the columns path.*has nothing"),
        (
            "file,label\na.png,x\n",
            r"must name the columns path.* has 'file', 'label'\. Add or mend",
        ),
        ("path,path\na.png,b.png\n", r"has 'path' twice"),
        ("path,label\n", r"at least one row below the header"),
        ("path,label\n,x\na.png,y\n,z\n", r"must have a path; .* has none in lines 2, 4\. Fill"),
        ("path,label\na.png,\n", r"must have a label; .* has none in line 2\. Fill"),
        ("path,split\na.png, \n", r"must have a split; .* has none in line 2"),
        ("path,id\na.png,\n", r"must have an id; .* line 2"),
        ("path\na.png\nb.png\na.png\n", r"id of its own; .* has 'a.png' in lines 2 and 4"),
        ("path,label\na.png\n", r"must have 2 values, as the header has; .* line 2 has 1"),
        ("path,label\na.png,x,y\n", r"line 2 has 3\. Quote values"),
        ('path\n"a.png\n', r"must be valid CSV; .* line 2: unexpected end of data"),
        (b"path\nch\xe2t.png\n", r"must be UTF-8; .*Save it as UTF-8"),
        ("path,label\n" + ",x\n" * 15, r"lines 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 5 more"),
    ],
)
def test_a_bad_table_is_refused(folder, text, message):
    with pytest.raises(DatasetError, match=message):
        open_dataset(table(folder, text))


def test_a_wrong_root_is_told_by_the_first_path(folder):
    with pytest.raises(DatasetError, match=r"none of the 2 .* would be '.*/img/a.png'\. Write"):
        open_dataset(table(folder, "path\nimg/a.png\nimg/b.png\n"))


def test_a_table_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"must name a readable file; .*No such file"):
        open_dataset(f"csv:{tmp_path / 'nope.csv'}")
    with pytest.raises(DatasetError, match=r"must name a readable file; .*Is a directory"):
        open_dataset(f"csv:{tmp_path}")


def test_the_name_is_the_files_without_its_extension():
    assert dataset_name("csv:/data/my birds.v2.csv") == "my-birds.v2"
    assert dataset_name("csv:C:\\data\\birds.tsv") == "birds"
    assert dataset_name("csv:/data/birds/train.csv") == "birds-train"
