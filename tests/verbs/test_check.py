"""Rows embedded again agree with what is stored; a repair extracts only what is damaged."""

import shutil

import numpy as np
import pytest
from PIL import Image

import featcache
from featcache.backbones.pixels import PixelBackbone
from featcache.errors import CorruptError, OptionError
from featcache.store.feature_set import FeatureSet
from featcache.store.verify import verify
from featcache.verbs.check import Means, recompute, repair

DIGITS = "digits?rows=100"


@pytest.fixture
def digits(cache, small_chunks):
    """A sealed set of several shards."""
    done = featcache.extract(backbone="pixels", dataset=DIGITS, splits=["test"], cache=cache.root)
    return FeatureSet(done[0].path)


def flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(bytes(data))


def test_rows_embedded_again_are_those_that_are_stored(digits, cache):
    found = recompute(digits.path, cache, 30, Means(device="cpu"))
    assert found.rows == 30
    assert found.is_equivalent
    assert found.distance < 1e-3
    assert found.cosine == pytest.approx(1, abs=1e-6)
    assert recompute(digits.path, cache, 10**6, Means()).rows == 100


def test_features_that_another_network_gave_are_told(cache, monkeypatch):
    embed = PixelBackbone.embed

    def off(self, images, taps):
        return {tap: value + 0.1 for tap, value in embed(self, images, taps).items()}

    with monkeypatch.context() as patch:
        patch.setattr(PixelBackbone, "embed", off)
        done = featcache.extract(
            backbone="pixels", dataset=DIGITS, splits=["test"], cache=cache.root
        )
    assert verify(done[0].path) == []  # consistent in itself, and wrong
    found = recompute(done[0].path, cache, 20, Means())
    assert not found.is_equivalent
    assert found.largest_difference == pytest.approx(0.1, abs=1e-3)


FILES = {
    "features/c/1/0": 16,
    "features/zarr.json": 0,
    "labels/c/0": 0,
    "labels/zarr.json": 0,
    "ids/c/0/0": 0,
    "status/c/0": 100,
}


@pytest.mark.parametrize(("name", "rows"), FILES.items())
@pytest.mark.parametrize("how", ["flipped", "truncated", "missing"])
def test_a_repair_embeds_only_what_is_damaged(digits, cache, name, rows, how):
    file = digits.path / name
    before = digits.digest
    if how == "flipped":
        flip(file)
    elif how == "truncated":
        file.write_bytes(file.read_bytes()[:-3])
    else:
        file.unlink()
    assert verify(digits.path) != []
    assert repair(digits.path, cache, Means(device="cpu")) == rows
    assert verify(digits.path) == []
    assert FeatureSet(digits.path).digest == before
    assert repair(digits.path, cache, Means()) is None
    assert not digits.path.with_suffix(".work").exists()


def test_damage_behind_a_damaged_layout_is_mended_too(digits, cache):
    before = digits.digest
    flip(digits.path / "features" / "zarr.json")
    flip(digits.path / "features" / "c" / "2" / "0")
    assert repair(digits.path, cache, Means()) == 16
    assert verify(digits.path) == []
    assert FeatureSet(digits.path).digest == before


def test_swapped_shards_and_foreign_files_are_mended(digits, cache):
    first, second = (digits.path / "features" / "c" / str(i) / "0" for i in (0, 1))
    kept = first.read_bytes()
    shutil.copy(second, first)
    second.write_bytes(kept)
    (digits.path / "features" / "extra").write_text("x")
    assert len(verify(digits.path)) == 3
    assert repair(digits.path, cache, Means()) == 32
    assert verify(digits.path) == []


def test_a_manifest_that_names_no_set_is_left_to_the_user(digits, cache):
    (digits.path / "zarr.json").write_text("{}")
    with pytest.raises(CorruptError, match="must be a feature set's.*extract it again"):
        repair(digits.path, cache, Means())


def test_images_that_are_not_those_of_the_key_are_refused(cache, tmp_path):
    for name in ("red", "blue"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(3):
            pixels = np.full((8, 8, 3), 50 * i + len(name), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    source = f"imagefolder:{tmp_path / 'photos'}"
    path = featcache.extract(backbone="pixels", dataset=source, cache=cache.root)[0].path
    assert str(tmp_path) not in (path / "zarr.json").read_text()
    with pytest.raises(OptionError, match="--dataset imagefolder:DIR"):
        recompute(path, cache, 5, Means())
    assert recompute(path, cache, 5, Means(dataset=source)).is_equivalent
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "photos" / "red" / "0.png")
    with pytest.raises(OptionError, match="must be those of the set's key"):
        recompute(path, cache, 5, Means(dataset=source))
