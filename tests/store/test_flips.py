"""A single flipped bit anywhere in a sealed set is found, and named as closely as can be."""

from dataclasses import dataclass

import numpy as np
import pytest

from featcache.derived.materialise import materialise
from featcache.derived.recipe import Recipe
from featcache.derived.view import DerivedSet, fit_recipe
from featcache.errors import CorruptError, FeatcacheError
from featcache.store import layout
from featcache.store.feature_set import FeatureSet
from featcache.store.layout import CRC_BYTES
from featcache.store.verify import verify
from tests.fakes import fake_split, fill

FLIPS = 30
"""Of each region; a chunk's checksum has 32 bits."""
ROWS = 150


@dataclass(frozen=True)
class Region:
    """Bytes of a file in which every flip must be found alike."""

    path: str
    start: int
    stop: int
    rows: tuple[int, int] | None = None
    """First and last row that the problem must name."""


@pytest.fixture(params=["values", "codes"])
def one(request, cache, small_chunks, monkeypatch):
    """Several shards of several chunks, the last one partly padding: of features, or of codes."""
    monkeypatch.setattr(layout, "CHUNKS_PER_SHARD", 4)
    extracted = fill(cache, fake_split(ROWS, broken=[3]))[0]
    if request.param == "values":
        return extracted
    view = DerivedSet([extracted], fit_recipe(Recipe.parse("int8"), [extracted]))
    return materialise(view, cache)


def regions(one):
    """Return every file of a set whole, but shards by chunk, checksum and index."""
    found = []
    for file in sorted(one.path.rglob("*")):
        name = file.relative_to(one.path).as_posix()
        if file.is_file() and not name.startswith("features/c/"):
            found.append(Region(name, 0, file.stat().st_size))
    for shard in range(one.layout.n_shards):
        found += shard_regions(one.layout, shard)
    return found


def shard_regions(geometry, shard):
    name, chunk_bytes = f"features/{geometry.shard_path(shard)}", geometry.chunk_bytes
    first, end = geometry.bounds(shard)
    at = 0
    for _ in range(geometry.n_chunks(shard)):
        rows = (first, min(first + geometry.chunk_rows, end) - 1)
        yield Region(name, at, at + chunk_bytes, rows)
        yield Region(name, at + chunk_bytes, at + chunk_bytes + CRC_BYTES, rows)
        first, at = first + geometry.chunk_rows, at + chunk_bytes + CRC_BYTES
    yield Region(name, at, geometry.shard_bytes(shard), (geometry.bounds(shard)[0], end - 1))


def bits(region, rng):
    """Draw different bits of a region: byte in the file, bit in the byte."""
    drawn = rng.choice(8 * (region.stop - region.start), FLIPS, replace=False)
    return [(region.start + int(bit) // 8, int(bit) % 8) for bit in drawn]


def named(path):
    """Return the files and rows that `verify` names; an unreadable manifest is named by an error.

    Any other error is returned as its own words, which no file is called by.
    """
    try:
        return [(problem.path, problem.rows) for problem in verify(path)]
    except FeatcacheError as error:
        is_manifest = str(path / "zarr.json") in str(error)
        return [("zarr.json" if is_manifest else str(error), None)]


def check_reading(path, region, truth):
    """Read the features; damage to them must raise, other damage may not change them."""
    if region.rows is not None:
        with pytest.raises(CorruptError):
            FeatureSet(path).features()
        return
    try:
        got = FeatureSet(path).features()
    except FeatcacheError:
        return
    np.testing.assert_array_equal(got, truth)


def test_every_flipped_bit_is_found_named_and_never_read(one):
    rng = np.random.default_rng(0)
    truth, flips = one.features().copy(), 0
    assert one.layout.n_shards > 1
    for region in regions(one):
        file = one.path / region.path
        good = file.read_bytes()
        for at, bit in bits(region, rng):
            bad = bytearray(good)
            bad[at] ^= 1 << bit
            file.write_bytes(bad)
            assert named(one.path) == [(region.path, region.rows)]
            check_reading(one.path, region, truth)
            flips += 1
        file.write_bytes(good)
    assert flips >= 600
    assert verify(one.path) == []
    np.testing.assert_array_equal(FeatureSet(one.path).features(), truth)
