"""Shards in the WebDataset format: against webdataset's own reading, and what is refused."""

import json
import tarfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from featcache.datasets.catalog import dataset_name, open_dataset
from featcache.datasets.dataset import NO_LABEL
from featcache.datasets.memo import FileDigestMemo
from featcache.errors import DatasetError, OptionError, UnreadableImageError
from featcache.testing import check_dataset
from tests.datasets.shards import image, samples, shard
from tests.fakes import fill


def load(source, split="all"):
    return open_dataset(f"wds:{source}").load(split)


def theirs(pattern):
    """What webdataset reads, from streams that are closed, which its own are not."""
    pytest.importorskip("webdataset")
    from webdataset.shardlists import expand_urls
    from webdataset.tariterators import group_by_keys, tar_file_expander

    with ExitStack() as opened:
        streams = [
            {"url": url, "stream": opened.enter_context(Path(url).open("rb"))}
            for url in expand_urls(str(pattern))
        ]
        return list(group_by_keys(tar_file_expander(streams)))


@pytest.fixture
def pets(tmp_path):
    """Three shards of 7, 5 and 6 samples."""
    root = tmp_path / "pets"
    for number, rows in enumerate((range(7), range(7, 12), range(12, 18))):
        shard(root / f"shard-{number:06d}.tar", samples(rows))
    return root


def test_order_bytes_and_labels_are_those_that_webdataset_reads(pets):
    pattern = pets / "shard-{000000..000002}.tar"
    oracle, ours = theirs(pattern), load(pattern)
    assert len(oracle) == len(ours) == 18
    names = [f"{one['__url__'].rpartition('/')[2]}/{one['__key__']}" for one in oracle]
    assert list(ours.ids) == names
    assert [ours.images.read_bytes(row) for row in range(18)] == [one["png"] for one in oracle]
    labels = [ours.class_names[label] for label in ours.labels]
    assert labels == [one["cls"].decode() for one in oracle]


def test_odd_names_are_grouped_as_webdataset_groups_them(tmp_path):
    files = [
        ("./deep.er/0.JPG", image(0, "JPEG")),
        ("./deep.er/0.seg.png", image(9)),
        ("__index__", b"{}"),
        ("__about__/0.json", b"{}"),
        ("._0.png", b"left by another system"),
        ("README", b"no extension"),
        (f"{'long' * 60}.jpeg", image(1, "JPEG")),
        ("ü 1.webp", image(2, "WEBP")),
        ("ü 1.en.txt", b"a name with a space"),
    ]
    path = shard(tmp_path / "odd.tar", files, format=tarfile.PAX_FORMAT)
    oracle, ours = theirs(path), load(path)
    keys = [f"odd.tar/{one['__key__'].removeprefix('./')}" for one in oracle]
    assert list(ours.ids) == keys
    encoded = [ours.images.read_bytes(row) for row in range(3)]
    pairs = zip(oracle, ("jpg", "jpeg", "webp"), strict=True)
    assert encoded == [one[extension] for one, extension in pairs]
    assert ours.labels.tolist() == [NO_LABEL] * 3
    assert ours.facts["ignored_extensions"] == ["en.txt", "seg.png"]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_form_of_tar_is_read(tmp_path, form):
    shard(tmp_path / "a.tar", samples(range(3)), format=form)
    assert load(tmp_path / "a.tar").images.read_bytes(2) == image(2)


def test_a_folder_a_pattern_and_a_wildcard_mean_the_same_rows(pets):
    found = [load(pets), load(pets / "shard-{000000..000002}.tar"), load(pets / "*.tar")]
    identities = {one.identity(FileDigestMemo()).fingerprint for one in found}
    assert len(identities) == 1
    assert [one.dataset for one in found] == ["pets", "pets-shard", "pets"]


def test_every_law_of_datasets_holds(pets, tmp_path):
    (tmp_path / "two").mkdir()
    pets.rename(tmp_path / "two" / "train")
    shard(tmp_path / "two" / "val" / "0.tar", samples(range(20, 24)))
    for source in (f"wds:{tmp_path / 'two'}", f"wds:{tmp_path / 'two'}?rows=2"):
        check_dataset(source)
        assert open_dataset(source).name == dataset_name(source)


def test_folders_and_words_of_names_are_splits(tmp_path):
    shard(tmp_path / "a" / "train" / "0.tar", samples(range(3)))
    shard(tmp_path / "a" / "validation" / "0.tar", samples(range(3, 5)))
    shard(tmp_path / "b" / "birds-train-000.tar", samples(range(3)))
    shard(tmp_path / "b" / "birds-val-000.tar", samples(range(3, 5)))
    for folder in "ab":
        data = open_dataset(f"wds:{tmp_path / folder}")
        assert data.splits == ("train", "val")
        assert [len(data.load(name)) for name in data.splits] == [3, 2]
        assert data.load("train").class_names == data.load("val").class_names == ("0", "1", "2")
    assert load(tmp_path / "a", "train").ids[0] == "0.tar/0000"
    assert dataset_name(f"wds:{tmp_path}/b/birds-train-{{000..000}}.tar") == "b-birds"
    assert dataset_name(f"wds:{tmp_path}/b/{{train,val}}/*.tar") == "b"


def test_a_shard_without_a_split_beside_splits_is_refused(tmp_path):
    for name in ("train/0.tar", "0.tar"):
        shard(tmp_path / name, samples(range(2)))
    with pytest.raises(DatasetError, match="named after its split, or none.*beside the splits"):
        load(tmp_path)
    (tmp_path / "0.tar").unlink()
    shard(tmp_path / "training/0.tar", samples(range(2)))
    with pytest.raises(DatasetError, match="one folder of shards.*two are called 'train'"):
        load(tmp_path, "train")


def test_features_do_not_depend_on_how_the_work_is_divided(pets, tmp_path, cache, small_chunks):
    whole = load(pets)
    one = fill(cache, whole, batch_size=4)[0]
    spread = fill(type(cache)(tmp_path / "workers"), whole, batch_size=4, workers=2)[0]
    assert one.digest == spread.digest
    parts = [load(file) for file in sorted(pets.glob("*.tar"))]
    features = [fill(cache, part, batch_size=4)[0].features() for part in parts]
    np.testing.assert_array_equal(np.concatenate(features), one.features())
    few = open_dataset(f"wds:{pets}?rows=6").load("all")
    rows = [whole.ids.index(name) for name in few.ids]
    chosen = fill(cache, few, batch_size=4)[0]
    np.testing.assert_array_equal(chosen.features(), one.features()[rows])


def test_braces_mean_what_they_mean_in_a_shell(pets):
    assert len(load(pets / "shard-00000{0,2}.tar")) == 13
    assert len(load(pets / "shard-{000001..000000}.tar")) == 12
    assert len(load(pets / "shard-00000{1..2}.tar")) == 11
    with pytest.raises(DatasetError, match=r"1 of 4 are missing: .*shard-000003.tar"):
        load(pets / "shard-{000000..000003}.tar")


def test_a_label_can_be_a_field_of_json(tmp_path):
    def files(*labels):
        rows = [(f"{n}.json", json.dumps({"kind": kind}).encode()) for n, kind in enumerate(labels)]
        return [file for n, row in enumerate(rows) for file in (row, (f"{n}.png", image(n)))]

    shard(tmp_path / "a.tar", files("wren", "robin", "wren"))
    named = load(f"{tmp_path / 'a.tar'}#label=kind")
    assert (named.class_names, named.labels.tolist()) == (("robin", "wren"), [1, 0, 1])
    assert named.dataset == dataset_name(f"wds:{tmp_path / 'a.tar'}#label=kind")
    assert load(tmp_path / "a.tar").class_names == ()
    shard(tmp_path / "a.tar", files(10, 9, -1))
    numbers = load(f"{tmp_path / 'a.tar'}#label=kind")
    assert (numbers.class_names, numbers.labels.tolist()) == (("9", "10"), [1, 0, NO_LABEL])
    shard(tmp_path / "a.tar", files(1, "wren"))
    with pytest.raises(DatasetError, match="all numbers or all names"):
        load(f"{tmp_path / 'a.tar'}#label=kind")
    for bad in (True, None, 1.5, ""):
        shard(tmp_path / "a.tar", files(1, bad))
        with pytest.raises(DatasetError, match="of '1' holds no field 'kind', a number or a text"):
            load(f"{tmp_path / 'a.tar'}#label=kind")
    shard(tmp_path / "a.tar", [("0.json", b"{"), ("0.png", image(0))])
    with pytest.raises(DatasetError, match="the .json of '0' is no JSON"):
        load(f"{tmp_path / 'a.tar'}#label=kind")


def test_a_list_beside_the_shards_names_the_classes(pets):
    (pets / "classnames.txt").write_text("cat\ndog\nfox\nowl\n")
    split = load(pets / "*.tar")
    assert split.class_names == ("cat", "dog", "fox", "owl")
    assert split.labels[:4].tolist() == [0, 1, 2, 0]
    assert split.facts["chance"] == 0.25
    (pets / "classnames.txt").write_text("cat\ndog\n")
    with pytest.raises(DatasetError, match="among the 2 classes of .*0002' has 2"):
        load(pets)
    (pets / "classnames.txt").write_text("cat\ncat\ndog\n")
    with pytest.raises(DatasetError, match="a name of its own in each line.*a name twice"):
        load(pets)


def test_the_image_can_be_chosen_of_several(tmp_path):
    shard(tmp_path / "a.tar", [("0.jpg", image(0, "JPEG")), ("0.png", image(1))])
    with pytest.raises(DatasetError, match=r"'0' has several images, 'jpg', 'png'.*#image=jpg"):
        load(tmp_path / "a.tar")
    assert load(f"{tmp_path / 'a.tar'}#image=PNG").images.read_bytes(0) == image(1)
    with pytest.raises(DatasetError, match="hold at least one image.*1 samples.*#image"):
        load(f"{tmp_path / 'a.tar'}#image=webp")
    for bad in ("image=", "image=png,image=jpg", "label=a,colour=b"):
        with pytest.raises(OptionError, match="Behind `#` must stand label=FIELD"):
            open_dataset(f"wds:{tmp_path / 'a.tar'}#{bad}")


def test_a_sample_without_image_is_a_row_with_the_reason(tmp_path):
    files = [*samples(range(2)), ("0002.cls", b"1"), ("0003.cls", b"1"), ("0003.png", b"")]
    split = load(shard(tmp_path / "a.tar", [*files, ("0004.cls", b"0"), ("0004.png", b"\x89PNG")]))
    assert len(split) == 5
    assert split.facts["samples_without_image"] == 1
    reasons = {2: "no image in the sample", 3: "empty file", 4: "not an image"}
    for row, reason in reasons.items():
        with pytest.raises(UnreadableImageError, match=reason):
            split.images.read(row)


def test_labels_must_be_there_for_all_or_none_and_be_numbers(tmp_path):
    files = [*samples(range(2)), ("0002.png", image(2))]
    with pytest.raises(DatasetError, match=r"must have a .cls, or none; 1 of the 3.*a.tar/0002"):
        load(shard(tmp_path / "a.tar", files))
    shard(tmp_path / "a.tar", [("0.png", image(0)), ("0.cls", b"cat")])
    with pytest.raises(DatasetError, match=r"the .cls of '0' holds no number: b'cat'"):
        load(tmp_path / "a.tar")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([*samples([1]), *samples([2]), *samples([1])], "'0001' come again after other samples"),
        ([("1.png", image(1)), ("1.PNG", image(2))], "'1' has two files .png"),
    ],
)
def test_names_that_come_twice_are_refused(tmp_path, files, message):
    with pytest.raises(DatasetError, match=message):
        load(shard(tmp_path / "a.tar", files))


def test_a_shard_cut_anywhere_is_refused(tmp_path):
    whole = shard(tmp_path / "a.tar", samples(range(3))).read_bytes()
    with tarfile.open(tmp_path / "a.tar") as archive:
        ends = [member.offset for member in archive][1:]
    for length in (0, 100, 512, ends[2] - 700, ends[2], ends[2] + 100, ends[2] + 513, ends[4]):
        (tmp_path / "a.tar").write_bytes(whole[:length])
        with pytest.raises(
            DatasetError, match="must be a whole, plain tar archive.*Fetch or write"
        ):
            load(tmp_path / "a.tar")


def test_a_shard_with_a_broken_header_or_something_behind_its_end_is_refused(tmp_path):
    whole = shard(tmp_path / "a.tar", samples(range(3))).read_bytes()
    with tarfile.open(tmp_path / "a.tar") as archive:
        third = archive.getmembers()[2].offset
    broken = whole[:third] + b"x" + whole[third + 1 :]
    (tmp_path / "a.tar").write_bytes(broken)
    with pytest.raises(DatasetError, match=f"what stands at byte {third} describes no file"):
        load(tmp_path / "a.tar")
    (tmp_path / "a.tar").write_bytes(whole + whole)
    with pytest.raises(DatasetError, match="as if archives were put one behind another"):
        load(tmp_path / "a.tar")


def test_a_shard_that_changes_after_opening_is_told_by_its_rows_and_its_digest(tmp_path):
    path = shard(tmp_path / "a.tar", samples(range(3)))
    split = load(path)
    before = split.identity(FileDigestMemo())
    data = path.read_bytes()
    path.write_bytes(data[: int(split.images.offset[2]) + 5])
    with pytest.raises(UnreadableImageError, match="truncated: the archive ends before the image"):
        split.images.read(2)
    assert split.identity(FileDigestMemo()) != before
    path.unlink()
    with pytest.raises(UnreadableImageError, match="no such file"):
        split.images.read(2)
    assert split.images.digests(FileDigestMemo()) == ["", "", ""]


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_compressed_shards_are_refused_by_name_and_by_content(tmp_path, kind):
    with tarfile.open(tmp_path / f"a.tar.{kind}", f"w:{kind}"):
        pass
    for source in (tmp_path, tmp_path / f"a.tar.{kind}", tmp_path / "a.tar.*"):
        with pytest.raises(DatasetError, match="must be plain tar archives.*Uncompress them first"):
            load(source)
    (tmp_path / f"a.tar.{kind}").rename(tmp_path / "a.tar")
    with pytest.raises(DatasetError, match="it is compressed by"):
        load(tmp_path)


def test_nothing_there_is_one_clear_error(tmp_path):
    for source in ("", tmp_path, tmp_path / "a.tar", tmp_path / "*.tar"):
        with pytest.raises(DatasetError, match="`wds:PATTERN` must name tar archives"):
            load(source)
    (tmp_path / "a.zip").write_bytes(b"PK")
    with pytest.raises(DatasetError, match="archives called .*a.zip"):
        load(tmp_path / "a.zip")
