"""Caches of several sites brought together."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from featcache.errors import OptionError
from featcache.extraction.options import Options
from featcache.extraction.run import Extraction
from featcache.store.arrays import read_arrays, write_arrays
from featcache.store.cache import Cache
from featcache.store.processes import host, start_time
from featcache.store.verify import verify
from featcache.verbs.merge import merge_caches
from tests.fakes import FakeBackbone, Notes, fake_split, fill, specs_for

SPLIT = fake_split(1000, broken=[3, 700])


@pytest.fixture
def whole(tmp_path, small_chunks):
    return fill(Cache(tmp_path / "whole"), SPLIT)[0]


def extract_some(root, wanted, backbone=None):
    """Extract the given shards at a site, and stop before the set is complete."""
    cache, backbone = Cache(root), backbone or FakeBackbone()
    specs = specs_for(SPLIT, backbone)
    options = Options(device="cpu", batch_size=16, workers=0)
    run = Extraction(cache, SPLIT, backbone, specs, options, Notes())
    size = run._writers[0].layout.shard_rows
    units = [range(s * size, min((s + 1) * size, len(SPLIT))) for s in wanted]
    run._units = lambda: iter(units)
    run._seal = lambda extra: None
    run.run({"created": "now", "default_tap": "pooled"})
    return cache


def snapshot(root):
    return {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}


def test_shards_of_two_sites_become_the_set_that_one_would_have_made(whole, tmp_path, cache):
    sites = [
        extract_some(tmp_path / "a", [0, 2]),
        extract_some(tmp_path / "b", [1, 2, 3]),
    ]
    before = [snapshot(site.root) for site in sites]
    first, second = merge_caches([site.root for site in sites], cache=cache.root)
    assert (first.added, first.same, first.is_sealed) == (2, 0, True)
    assert (second.added, second.same, second.problem) == (2, 1, None)
    assert [snapshot(site.root) for site in sites] == before
    (got,) = [one.open() for one in cache.stored()]
    assert got.digest == whole.digest
    assert verify(got.path) == []
    assert got.provenance["merged"] is True
    assert got.provenance["default_tap"] == "pooled"
    assert len(got.provenance["shards"]) == got.layout.n_shards == 4
    assert not got.path.with_suffix(".work").exists()


def test_an_incomplete_merge_is_finished_by_a_later_one_or_by_extract(whole, tmp_path, cache):
    a, b = extract_some(tmp_path / "a", [0, 2]), extract_some(tmp_path / "b", [3])
    assert [one.is_sealed for one in merge_caches([a.root, b.root], cache=cache.root)] == [
        False,
        False,
    ]
    copy = Cache(tmp_path / "copy")
    shutil.copytree(cache.root, copy.root)
    assert fill(copy, SPLIT)[0].digest == whole.digest
    c = extract_some(tmp_path / "c", [1])
    assert [one.is_sealed for one in merge_caches([c.root], cache=cache.root)] == [True]
    assert next(cache.stored()).open().digest == whole.digest


def test_sealed_sets_are_taken_and_those_that_are_here_cost_nothing(whole, tmp_path, cache):
    root = tmp_path / "whole"
    (first,) = merge_caches([root], cache=cache.root)
    assert (first.added, first.is_sealed) == (4, True)
    assert next(cache.stored()).open().digest == whole.digest
    (again,) = merge_caches([root], cache=cache.root)
    assert (again.added, again.same, again.problem) == (0, 4, None)
    assert not any((cache.root / "incoming").iterdir())


def test_a_sealed_set_replaces_a_part_of_it(whole, tmp_path):
    part = extract_some(tmp_path / "part", [1])
    (one,) = merge_caches([tmp_path / "whole"], cache=part.root)
    assert (one.added, one.same, one.is_sealed) == (3, 1, True)
    assert next(part.stored()).open().digest == whole.digest


class Nudged(FakeBackbone):
    """Computes features that are a little larger, under the same name."""

    factor = 1.0

    def embed(self, images, taps):
        return {tap: one * self.factor for tap, one in super().embed(images, taps).items()}


def nudged(factor):
    backbone = Nudged()
    backbone.factor = factor
    return backbone


def test_overlaps_that_differ_by_rounding_keep_what_is_here(whole, tmp_path):
    here = extract_some(tmp_path / "here", [0, 1, 2])
    there = extract_some(tmp_path / "there", [2, 3], nudged(1.001))
    (one,) = merge_caches([there.root], cache=here.root)
    assert (one.added, one.same, one.rounded, one.problem) == (1, 0, 1, None)
    assert 0 < one.distance < 2e-3
    got = next(here.stored()).open()
    size = got.layout.shard_rows
    np.testing.assert_array_equal(got.features()[: 3 * size], whole.features()[: 3 * size])
    assert verify(got.path) == []


@pytest.mark.parametrize("sealed", [False, True])
def test_overlaps_that_differ_by_more_are_refused_whole(whole, tmp_path, sealed):
    here = extract_some(tmp_path / "here", [0, 1])
    before = snapshot(here.root)
    shards = [0, 1, 2, 3] if sealed else [1, 2]
    there = extract_some(tmp_path / "there", shards, nudged(1.01))
    if sealed:
        fill(there, SPLIT, nudged(1.01))
    (one,) = merge_caches([there.root], cache=here.root)
    assert (one.added, one.is_sealed) == (0, False)
    assert "must agree to 0.002" in one.problem
    assert snapshot(here.root) == before


def test_a_damaged_shard_is_never_taken(whole, tmp_path, cache):
    there = extract_some(tmp_path / "there", [0, 1])
    path = next(there.stored()).path / "features" / "c" / "1" / "0"
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)
    (one,) = merge_caches([there.root], cache=cache.root)
    assert "does not match its checksums" in one.problem
    assert one.added == 1
    flawed = tmp_path / "whole" / "features" / "fake"
    shard = next(flawed.rglob("c/2/0"))
    shard.write_bytes(shard.read_bytes()[:-1])
    (two,) = merge_caches([tmp_path / "whole"], cache=tmp_path / "third")
    assert "must be sound" in two.problem
    assert not list(Cache(tmp_path / "third").paths())


def test_labels_that_are_not_those_of_the_key_are_not_sealed(whole, tmp_path, cache):
    there = extract_some(tmp_path / "there", [0, 1, 2, 3])
    rows = next(there.stored()).path.with_suffix(".work") / "rows"
    arrays = read_arrays(rows, len(SPLIT))
    shutil.rmtree(rows)
    write_arrays(rows, replace(arrays, labels=arrays.labels[::-1].copy()))
    (one,) = merge_caches([there.root], cache=cache.root)
    assert "labels kept with" in one.problem
    assert not one.is_sealed
    assert fill(cache, SPLIT)[0].digest == whole.digest


def test_a_set_that_a_process_extracts_is_left_alone(whole, tmp_path):
    here = extract_some(tmp_path / "here", [0])
    there = extract_some(tmp_path / "there", [1])
    parent = os.getppid()
    claim = next(here.stored()).path.with_suffix(".work") / "claims" / "1.json"
    owner = {"host": host(), "pid": parent, "started": start_time(parent)}
    claim.write_text(json.dumps(owner))
    (one,) = merge_caches([there.root], cache=here.root)
    assert "must be idle" in one.problem
    (two,) = merge_caches([tmp_path / "whole"], cache=here.root)
    assert "must be idle" in two.problem
    claim.unlink()
    assert merge_caches([there.root], cache=here.root)[0].added == 1


@pytest.mark.parametrize(
    ("source", "message"),
    [("here", "merged into another"), ("nowhere", "must hold features")],
)
def test_a_source_that_cannot_be_is_one_message(tmp_path, small_chunks, source, message):
    here = extract_some(tmp_path / "here", [0])
    with pytest.raises(OptionError, match=message):
        merge_caches([tmp_path / source], cache=here.root)
    with pytest.raises(OptionError, match="none does"):
        merge_caches([here.root], "nothing/*", cache=tmp_path / "new")
