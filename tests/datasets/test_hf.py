"""Hugging Face datasets from local Parquet files, and the Hub's answers by a stand-in."""

import pickle
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featcache.datasets.catalog import dataset_name, open_dataset
from featcache.datasets.dataset import NO_LABEL
from featcache.datasets.memo import FileDigestMemo
from featcache.errors import DatasetError, MissingDependencyError, UnreadableImageError
from tests.datasets.pictures import encoded, noise, smooth

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    datasets.disable_progress_bars()


def image(seed: int) -> bytes:
    from PIL import Image

    return encoded(Image.fromarray(noise(5, 5, 3, seed=seed)), "png")


def images(n: int, start: int = 0) -> list[dict[str, object]]:
    return [{"bytes": image(start + i), "path": f"{i}.png"} for i in range(n)]


def features(**columns: object):
    return datasets.Features(image=datasets.Image(), **columns)


def save(path: Path, columns: dict[str, list[object]], kinds=None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if kinds is None:
        pq.write_table(pa.table(columns), path)
    else:
        datasets.Dataset.from_dict(columns, features=kinds).to_parquet(path)
    return path


def labelled(path: Path, labels: list[int], start: int = 0) -> Path:
    kinds = features(label=datasets.ClassLabel(names=["ant", "bee"]))
    return save(path, {"image": images(len(labels), start), "label": labels}, kinds)


def test_a_folder_of_parquet_files_has_splits_labels_and_classes(tmp_path):
    folder = tmp_path / "in sects"
    labelled(folder / "data" / "train-00000-of-00002.parquet", [0, 1])
    labelled(folder / "data" / "train-00001-of-00002.parquet", [1], 2)
    labelled(folder / "data" / "validation-00000-of-00001.parquet", [1, -1], 9)
    data = open_dataset(f"hf:{folder}")
    assert (data.name, data.splits) == ("in-sects", ("train", "val"))
    train, val = data.load("train"), data.load("val")
    assert train.labels.tolist() == [0, 1, 1]
    assert val.labels.tolist() == [1, NO_LABEL]
    assert train.class_names == val.class_names == ("ant", "bee")
    assert train.ids == ("0", "1", "2")
    np.testing.assert_array_equal(np.asarray(train.images.read(2)), noise(5, 5, 3, seed=2))
    assert train.facts["image_column"] == "image"
    assert train.facts["label_column"] == "label"
    assert train.facts["chance"] == 0.5


def test_one_file_is_one_split(tmp_path):
    data = open_dataset(f"hf:{labelled(tmp_path / 'bugs.parquet', [0])}")
    assert (data.name, data.splits) == ("bugs", ("all",))
    data = open_dataset(f"hf:{labelled(tmp_path / 'bugs' / 'test.parquet', [0])}")
    assert (data.name, data.splits) == ("bugs-test", ("test",))


def test_folders_may_name_the_splits(tmp_path):
    labelled(tmp_path / "set" / "train" / "0.parquet", [0])
    labelled(tmp_path / "set" / "test" / "0.parquet", [1])
    assert open_dataset(f"hf:{tmp_path / 'set'}").splits == ("train", "test")


def test_a_file_without_a_split_beside_others_is_refused(tmp_path):
    labelled(tmp_path / "train.parquet", [0])
    labelled(tmp_path / "more.parquet", [0])
    with pytest.raises(DatasetError, match=r"got 'more.parquet' beside the splits train\. Rename"):
        open_dataset(f"hf:{tmp_path}")


@pytest.mark.parametrize(
    ("labels", "classes"),
    [(["b", "a", None], ("a", "b")), ([10, 9, None], ("9", "10"))],
)
def test_plain_labels_become_classes_shared_by_all_splits(tmp_path, labels, classes):
    save(tmp_path / "train.parquet", {"image": images(3), "label": labels})
    save(tmp_path / "test.parquet", {"image": images(1), "label": labels[:1]})
    data = open_dataset(f"hf:{tmp_path}")
    assert data.load("train").class_names == data.load("test").class_names == classes
    assert data.load("train").labels.tolist() == [1, 0, NO_LABEL]
    assert data.load("test").labels.tolist() == [1]


def test_several_labels_per_row_count_as_none(tmp_path):
    path = save(tmp_path / "x.parquet", {"image": images(2), "label": [[1], [1, 2]]})
    split = open_dataset(f"hf:{path}").load("all")
    assert (split.class_names, split.labels.tolist()) == ((), [NO_LABEL] * 2)
    assert split.facts["label_column"] is None


def test_images_may_be_plain_bytes(tmp_path):
    split = open_dataset(f"hf:{save(tmp_path / 'x.parquet', {'jpg': [image(3)]})}").load("all")
    np.testing.assert_array_equal(np.asarray(split.images.read(0)), noise(5, 5, 3, seed=3))


def test_our_decoder_reads_the_image_and_turns_it_upright(tmp_path):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    stored = smooth().transpose(Image.Transpose.ROTATE_90)
    data = {"image": [{"bytes": encoded(stored, "png", exif=exif), "path": None}]}
    split = open_dataset(f"hf:{save(tmp_path / 'x.parquet', data, features())}").load("all")
    np.testing.assert_array_equal(np.asarray(split.images.read(0)), np.asarray(smooth()))


def test_bad_images_are_unreadable_rows(tmp_path):
    rows = [{"bytes": b"junk", "path": None}, None, {"bytes": None, "path": "/etc/no.png"}]
    split = open_dataset(f"hf:{save(tmp_path / 'x.parquet', {'image': rows})}").load("all")
    for row, reason in enumerate(("not an image", "no image in this row", "a path without bytes")):
        with pytest.raises(UnreadableImageError, match=f"^{reason}"):
            split.images.read(row)


@pytest.mark.parametrize(
    ("name", "values", "ids"),
    [
        ("image_id", [7, 5], ("7", "5")),
        ("file_name", ["b", "a"], ("b", "a")),
        ("id", [1, 1], ("0", "1")),
        ("id", ["x", None], ("0", "1")),
        ("other", [7, 5], ("0", "1")),
    ],
)
def test_a_unique_id_column_gives_the_ids(tmp_path, name, values, ids):
    path = save(tmp_path / "x.parquet", {"image": images(2), name: values})
    assert open_dataset(f"hf:{path}").load("all").ids == ids


def test_row_numbers_are_padded(tmp_path):
    path = save(tmp_path / "x.parquet", {"image": images(11)})
    assert open_dataset(f"hf:{path}").load("all").ids[::10] == ("00", "10")


def test_the_identity_is_the_files_bytes(tmp_path):
    def identity(path):
        return open_dataset(f"hf:{path}").load("all").identity(FileDigestMemo()).fingerprint

    first = identity(labelled(tmp_path / "a" / "x.parquet", [0, 1]))
    assert identity(labelled(tmp_path / "b" / "x.parquet", [0, 1])) == first
    assert identity(labelled(tmp_path / "c" / "x.parquet", [0, 1], start=5)) != first


def test_a_part_of_it_selects_rows(tmp_path):
    path = labelled(tmp_path / "x.parquet", [0, 1, 0, 1])
    whole, part = (open_dataset(f"hf:{path}{s}").load("all") for s in ("", "?rows=2"))
    assert sorted(part.labels) == [0, 1]
    np.testing.assert_array_equal(
        np.asarray(part.images.read(1)), np.asarray(whole.images.read(int(part.ids[1])))
    )


def test_a_reader_can_be_pickled(tmp_path):
    split = open_dataset(f"hf:{labelled(tmp_path / 'x.parquet', [0, 1])}").load("all")
    again = pickle.loads(pickle.dumps(split.images))
    np.testing.assert_array_equal(np.asarray(again.read(1)), noise(5, 5, 3, seed=1))


def test_files_that_vanish_are_told(tmp_path):
    path = labelled(tmp_path / "x.parquet", [0])
    split = open_dataset(f"hf:{path}").load("all")
    path.unlink()
    with pytest.raises(DatasetError, match=r"must stay in place .*x.parquet' cannot be read"):
        split.identity(FileDigestMemo())


def test_a_table_without_images_is_refused(tmp_path):
    path = save(tmp_path / "x.parquet", {"text": ["a"], "n": [1]})
    with pytest.raises(DatasetError, match=r"image column; got text \(string\), n \(int64\)\. Sto"):
        open_dataset(f"hf:{path}")


def test_paths_that_lead_nowhere_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="must name a Parquet file or .* holds none"):
        open_dataset(f"hf:{tmp_path}")
    with pytest.raises(DatasetError, match="nope.parquet' does not exist"):
        open_dataset(f"hf:{tmp_path / 'nope.parquet'}")
    (tmp_path / "junk.parquet").write_text("junk")
    with pytest.raises(DatasetError, match="`datasets` must be able to open hf:"):
        open_dataset(f"hf:{tmp_path / 'junk.parquet'}")


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDependencyError, match=r"hf:a/b' needs .*featcache\[hf\]"):
        open_dataset("hf:a/b")


class Hub:
    """Stands for the builder of a repository on the Hub."""

    COMMIT = "0123456789abcdef" * 2 + "01234567"

    def __init__(self, repo, config, revision):
        self.asked = (repo, config, revision)
        url = f"hf://datasets/{repo}@{self.COMMIT}/data/train.parquet"

        files = {"train": [url], "validation": [url]}
        self.config = SimpleNamespace(name=config or "default", data_files=files)
        self.info = datasets.DatasetInfo(license="mit", citation="")

    def download_and_prepare(self):
        pass

    def as_dataset(self):
        kinds = features(label=datasets.ClassLabel(names=["ant", "bee"]))
        table = datasets.Dataset.from_dict({"image": images(2), "label": [0, 1]}, features=kinds)
        return {"train": table, "validation": table}


def test_a_repository_is_named_by_its_commit(monkeypatch):
    asked = []

    def builder(repo, config=None, revision=None):
        asked.append((repo, config, revision))
        return Hub(repo, config, revision)

    monkeypatch.setattr(datasets, "load_dataset_builder", builder)
    data = open_dataset("hf:org/ants@main#small")
    assert asked == [("org/ants", "small", "main")]
    assert (data.name, data.splits) == ("org-ants-small-main", ("train", "val"))
    split = data.load("val")
    assert split.facts["revision"] == Hub.COMMIT
    assert split.facts["licence"] == "mit"
    assert split.images.digests(FileDigestMemo()) == [f"org/ants@{Hub.COMMIT}#small/val:image"]


def test_a_repository_without_a_commit_is_digested_row_by_row(monkeypatch):
    monkeypatch.setattr(Hub, "COMMIT", "main")
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *a, revision: Hub(*a, revision))
    split = open_dataset("hf:org/ants").load("train")
    assert split.facts["revision"] is None
    assert len(set(split.images.digests(FileDigestMemo()))) == 2


def test_what_the_hub_answers_is_passed_on(monkeypatch):
    def builder(*_args, **_named):
        raise FileNotFoundError("Dataset 'a/b' doesn't exist on the Hub")

    monkeypatch.setattr(datasets, "load_dataset_builder", builder)
    with pytest.raises(DatasetError, match=r"open hf:a/b; Dataset 'a/b' doesn't exist .*Check the"):
        open_dataset("hf:a/b")


@pytest.mark.parametrize(
    ("rest", "name"),
    [
        ("ylecun/mnist", "ylecun-mnist"),
        ("squad", "squad"),
        ("a/b#en us", "a-b-en-us"),
        (f"a/b@{Hub.COMMIT}#c", "a-b-c-0123456789ab"),
        ("a/b@refs/convert/parquet", "a-b-refs-convert-parquet"),
        ("/data/x y.parquet", "x-y"),
        ("x.parquet", "x"),
        ("~/data/birds", "birds"),
        ("./birds", "birds"),
        ("C:\\data\\birds.parquet", "birds"),
    ],
)
def test_the_name_is_the_repository_or_the_file(rest, name):
    assert dataset_name(f"hf:{rest}") == name


def test_neither_a_repository_nor_a_path_is_refused():
    with pytest.raises(DatasetError, match=r"REPO\[@REVISION\]\[#CONFIG\] or a path; got 'a b'"):
        dataset_name("hf:a b")
