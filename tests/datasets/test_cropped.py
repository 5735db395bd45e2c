"""Image files of which a part is the image."""

import pickle

import numpy as np
import pytest
from PIL import Image

from featcache.datasets.cropped import CroppedFiles
from featcache.datasets.images import FileImages
from featcache.datasets.memo import FileDigestMemo
from featcache.errors import UnreadableImageError
from tests.datasets.pictures import write


@pytest.fixture
def files(tmp_path):
    for seed in range(2):
        write(tmp_path / f"{seed}.png", seed, size=10)
    return FileImages(str(tmp_path), ("0.png", "1.png"))


def whole(files, row):
    return np.asarray(Image.open(files.path(row)))


def test_a_border_is_taken_off_each_side(files):
    found = np.asarray(CroppedFiles(files, 2).read(1))
    np.testing.assert_array_equal(found, whole(files, 1)[2:-2, 2:-2])


def test_boxes_are_rounded_and_end_at_the_edge(files):
    boxes = ((1.4, 2.6, 5.5, 99.0), (-3.0, 0.0, 4.0, 4.0))
    images = CroppedFiles(files, boxes=boxes)
    np.testing.assert_array_equal(np.asarray(images.read(0)), whole(files, 0)[3:, 1:6])
    np.testing.assert_array_equal(np.asarray(images.read(1)), whole(files, 1)[:4, :4])


def test_an_empty_part_is_a_row_with_a_reason(files):
    for images in (CroppedFiles(files, 5), CroppedFiles(files, boxes=((20, 20, 30, 30),) * 2)):
        with pytest.raises(UnreadableImageError, match=r"nothing is left of \(10, 10\) pixels"):
            images.read(0)


def test_another_cut_is_another_image(files):
    memo = FileDigestMemo()
    kinds = [files, CroppedFiles(files, 1), CroppedFiles(files, 2)]
    kinds += [CroppedFiles(files, boxes=(box, box)) for box in ((0, 0, 2, 2), (0, 0, 2, 3))]
    digests = [one.digests(memo) for one in kinds]
    assert len({digest for one in digests for digest in one}) == 10
    gone = CroppedFiles(FileImages(files.folder, ("none.png", "0.png")), 1)
    assert gone.digests(memo)[0] == ""
    assert gone.digests(memo)[1] == digests[1][0]


def test_rows_keep_their_boxes(files):
    images = CroppedFiles(files, boxes=((0, 0, 2, 2), (0, 0, 4, 4)))
    chosen = pickle.loads(pickle.dumps(images.select([1])))
    assert chosen.read(0).size == (4, 4)
    assert CroppedFiles(files, 1).select([1]).read(0).size == (8, 8)
