"""CIFAR's binary version, byte by byte as its page describes it."""

import numpy as np
import pytest

from featcache.datasets.catalog import open_dataset
from featcache.errors import DatasetError
from tests.datasets.miniatures import cifar_rows
from tests.datasets.pictures import noise

ROWS = 3


def cifar10(root):
    pixels = noise(6 * ROWS, 32, 32, 3)
    for number in range(6):
        part = pixels[number * ROWS : (number + 1) * ROWS]
        name = f"data_batch_{number + 1}.bin" if number < 5 else "test_batch.bin"
        (root / name).write_bytes(cifar_rows([[number], [9], [0]], part))
    (root / "batches.meta.txt").write_text(
        "airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n"
    )
    return pixels


def test_cifar10_is_five_batches_and_a_test_batch(tmp_path):
    pixels = cifar10(tmp_path)
    data = open_dataset(f"cifar10@{tmp_path}?part")
    train, test = data.load("train"), data.load("test")
    assert (len(train), len(test)) == (5 * ROWS, ROWS)
    assert train.labels.tolist() == [0, 9, 0, 1, 9, 0, 2, 9, 0, 3, 9, 0, 4, 9, 0]
    assert (train.class_names[0], train.class_names[9]) == ("airplane", "truck")
    np.testing.assert_array_equal(np.asarray(train.images.read(7)), pixels[7])
    np.testing.assert_array_equal(np.asarray(test.images.read(2)), pixels[17])
    assert train.ids[:2] == ("train/00000", "train/00001")


def test_the_fine_label_of_cifar100_is_the_second_byte(tmp_path):
    pixels = noise(2, 32, 32, 3)
    (tmp_path / "train.bin").write_bytes(cifar_rows([[19, 99], [0, 4]], pixels))
    (tmp_path / "coarse_label_names.txt").write_text("".join(f"coarse {i}\n" for i in range(20)))
    (tmp_path / "fine_label_names.txt").write_text("".join(f"fine {i}\n" for i in range(100)))
    split = open_dataset(f"cifar100@{tmp_path}?part").load("train")
    assert [split.class_names[label] for label in split.labels] == ["fine 99", "fine 4"]
    np.testing.assert_array_equal(np.asarray(split.images.read(1)), pixels[1])


def test_half_a_file_is_refused(tmp_path):
    cifar10(tmp_path)
    file = tmp_path / "data_batch_2.bin"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(
        DatasetError, match="'data_batch_2.bin' has 5000 bytes, no multiple of 3073"
    ):
        open_dataset(f"cifar10@{tmp_path}?part").load("train")


def test_the_files_of_cifar100_are_not_those_of_cifar10(tmp_path):
    cifar10(tmp_path)
    (tmp_path / "test_batch.bin").write_bytes(cifar_rows([[10]], noise(1, 32, 32, 3)))
    with pytest.raises(DatasetError, match="a label is 10, with 10 classes"):
        open_dataset(f"cifar10@{tmp_path}?part").load("test")
    with pytest.raises(DatasetError, match=r"there is no 'train.bin'.*cifar-100-binary.tar.gz"):
        open_dataset(f"cifar100@{tmp_path}?part").load("train")
