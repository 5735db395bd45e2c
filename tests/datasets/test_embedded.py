"""Datasets that are at hand without a download: digits, textures, Fashion-MNIST."""

import gzip
import struct
import sys

import numpy as np
import pytest

from featcache.datasets import fashion_mnist, textures
from featcache.datasets.catalog import open_dataset
from featcache.datasets.fashion_mnist import read_idx
from featcache.datasets.memo import FileDigestMemo
from featcache.errors import DatasetError, MissingDependencyError, OptionError
from tests.datasets.pictures import noise


def idx(values: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    return header + values.tobytes()


def clothes(folder, rows=20, pack=False):
    folder.mkdir(parents=True, exist_ok=True)
    for stem, n in (("train", rows), ("t10k", rows // 2)):
        for name, values in (
            (f"{stem}-images-idx3-ubyte", noise(n, 28, 28, seed=n)),
            (f"{stem}-labels-idx1-ubyte", np.arange(n, dtype=np.uint8) % 10),
        ):
            data = idx(values)
            path = folder / (f"{name}.gz" if pack else name)
            path.write_bytes(gzip.compress(data) if pack else data)
    return folder


def test_digits_are_split_once_for_all_and_evenly_over_classes():
    data = open_dataset("digits")
    train, test = data.load("train"), data.load("test")
    assert (len(train), len(test)) == (1201, 596)
    assert not set(train.ids) & set(test.ids)
    counts = np.bincount(test.labels) / np.bincount(np.r_[train.labels, test.labels])
    np.testing.assert_allclose(counts, 1 / 3, atol=0.01)
    assert sorted(train.ids + test.ids) == [f"{row:04d}" for row in range(1797)]
    assert (train.facts["classes"], train.facts["chance"]) == (10, 0.1)


def test_digits_are_scaled_to_the_whole_range():
    from sklearn.datasets import load_digits

    split = open_dataset("digits").load("test")
    source = load_digits().images[int(split.ids[7])]
    got = np.asarray(split.images.read(7))
    np.testing.assert_array_equal(got, np.repeat(np.rint(source * 255 / 16)[:, :, None], 3, 2))
    assert split.images.pixels.max() == 255


def test_textures_have_sixteen_classes_of_twenty_four_and_twelve_patches():
    pytest.importorskip("skimage")
    data = open_dataset("textures")
    train, test = data.load("train"), data.load("test")
    assert len(train.class_names) == 16
    assert list(train.class_names) == sorted(train.class_names)
    assert (np.bincount(train.labels) == 24).all()
    assert (np.bincount(test.labels) == 12).all()
    assert train.images.read(0).size == (64, 64)
    assert not set(train.ids) & set(test.ids)


def test_no_texture_patch_is_blank_or_there_twice():
    pytest.importorskip("skimage")
    patches = [open_dataset("textures").load(name).images.pixels for name in ("train", "test")]
    both = np.concatenate(patches)
    assert (both.reshape(len(both), -1).std(axis=1) > 0).all()
    assert len({patch.tobytes() for patch in both}) == len(both)


@pytest.mark.parametrize("size", [(300, 400), (512, 512), (64, 208), (303, 384)])
def test_train_and_test_patches_share_no_pixel(size):
    height, width = size
    columns = np.broadcast_to(np.arange(width) % 256, (height, width))
    pages = np.broadcast_to(np.arange(width) // 256, (height, width))
    pixels = np.stack([columns, pages, pages], axis=2).astype(np.uint8)
    seen = {
        name: set((cut[..., 0] + 256 * cut[..., 1].astype(int)).ravel().tolist())
        for name, cut in textures.cut_patches(pixels).items()
    }
    assert max(seen["train"]) + textures.GAP < min(seen["test"]) + 1
    assert min(seen["train"]) == 0
    assert max(seen["test"]) == width - 1


def test_textures_without_scikit_image_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    monkeypatch.setattr(textures, "find_spec", lambda _name: None)
    with pytest.raises(MissingDependencyError, match=r"'textures' needs .*featcache\[quickstart\]"):
        open_dataset("textures")


def test_textures_without_their_photographs_say_so(monkeypatch, tmp_path):
    class Spec:
        origin = str(tmp_path / "__init__.py")

    monkeypatch.setattr(textures, "find_spec", lambda _name: Spec)
    with pytest.raises(DatasetError, match=r"must ship its photographs; 'astronaut.png' is not in"):
        open_dataset("textures")


@pytest.mark.parametrize("name", ["digits", "textures"])
def test_an_embedded_set_takes_no_option(name):
    with pytest.raises(OptionError, match=f"'{name}' takes no `@` option; got 'x'"):
        open_dataset(f"{name}@x")


@pytest.mark.parametrize("pack", [False, True])
def test_fashion_mnist_is_read_from_a_folder(tmp_path, pack):
    data = open_dataset(f"fashion-mnist@{clothes(tmp_path, pack=pack)}")
    assert (data.name, data.splits) == ("fashion-mnist", ("train", "test"))
    split = data.load("test")
    assert (len(split), split.ids[3]) == (10, "test/00003")
    np.testing.assert_array_equal(
        np.asarray(split.images.read(4))[:, :, 1], noise(10, 28, 28, seed=10)[4]
    )
    assert split.class_names[int(split.labels[9])] == "Ankle boot"


def test_packed_and_plain_fashion_mnist_are_the_same_dataset(tmp_path):
    plain, packed = clothes(tmp_path / "a"), clothes(tmp_path / "b", pack=True)
    identities = {
        open_dataset(f"fashion-mnist@{folder}").load("train").identity(FileDigestMemo()).fingerprint
        for folder in (plain, packed)
    }
    assert len(identities) == 1


def test_fashion_mnist_is_found_below_the_data_folder(tmp_path, monkeypatch):
    clothes(tmp_path / "FashionMNIST" / "raw")
    monkeypatch.setenv("FEATCACHE_DATA", str(tmp_path))
    assert len(open_dataset("fashion-mnist").load("train")) == 20


def test_fashion_mnist_that_is_nowhere_says_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "debian")
    monkeypatch.setenv("FEATCACHE_DATA", str(tmp_path / "data"))
    with pytest.raises(DatasetError, match=r"data/FashionMNIST/raw', '.*debian'; none .* Install"):
        open_dataset("fashion-mnist")


def test_fashion_mnist_without_a_label_file_says_which(tmp_path):
    (clothes(tmp_path) / "t10k-labels-idx1-ubyte").unlink()
    data = open_dataset(f"fashion-mnist@{tmp_path}")
    with pytest.raises(DatasetError, match=r"must hold t10k-labels-idx1-ubyte or .*\.gz; it does"):
        data.load("test")


@pytest.mark.parametrize(
    "labels", [np.zeros(19, np.uint8), np.full(20, 10, np.uint8), np.zeros(0, np.uint8)]
)
def test_labels_that_do_not_fit_the_images_are_refused(tmp_path, labels):
    (clothes(tmp_path) / "train-labels-idx1-ubyte").write_bytes(idx(labels))
    data = open_dataset(f"fashion-mnist@{tmp_path}")
    with pytest.raises(DatasetError, match=r"images of shape \(N, 28, 28\) and N labels in 0\.\.9"):
        data.load("train")


GOOD = idx(noise(3, 4, 5))


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "its header is "),
        (GOOD[:10], "its header is 00000803"),
        (b"\x00\x00\x09\x03" + GOOD[4:], "its header is 00000903"),
        (idx(noise(3, 4)), "its header is 00000802"),
        (GOOD[:-1], r"promises 60 bytes, (it holds 59|the file is shorter)"),
        (GOOD + b"\0", "promises 60 bytes, it holds more"),
        (
            bytes([0, 0, 8, 3]) + b"\xff" * 12 + b"\0" * 50,
            "promises 7922816.* bytes, the file is shorter",
        ),
    ],
)
def test_a_broken_idx_file_is_refused_before_anything_is_allocated(tmp_path, data, message, pack):
    path = tmp_path / ("x.gz" if pack else "x")
    path.write_bytes(gzip.compress(data) if pack else data)
    with pytest.raises(DatasetError, match=message):
        read_idx(path, 3)


@pytest.mark.parametrize("data", [b"no gzip", gzip.compress(GOOD)[:-12], b""])
def test_a_broken_gzip_file_is_refused(tmp_path, data):
    (tmp_path / "x.gz").write_bytes(data)
    with pytest.raises(DatasetError, match="must be a whole IDX file of bytes; "):
        read_idx(tmp_path / "x.gz", 3)


@pytest.mark.skipif(not fashion_mnist.DEBIAN_FOLDER.is_dir(), reason="Debian's package is absent")
def test_the_real_fashion_mnist_has_its_known_size():
    split = open_dataset("fashion-mnist").load("test")
    assert (len(split), np.bincount(split.labels).tolist()) == (10_000, [1000] * 10)
