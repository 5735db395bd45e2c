"""Whatever stands in a set's metadata, a reader takes it, or says what is wrong with it."""

import copy
import json
import random
import time
from pathlib import Path

import numpy as np
import pytest

from featcache.digest import blake3_bytes, sha256_json
from featcache.errors import CorruptError, SpecError
from featcache.spec import ExtractionSpec
from featcache.store.arrays import read_arrays, read_ledger
from featcache.store.cache import Cache
from featcache.store.feature_set import FeatureSet, read_group
from featcache.store.files import json_bytes, parse_json
from featcache.store.layout import parse_layout
from featcache.store.manifest import check_files, file_bounds
from featcache.store.verify import verify
from tests import fuzzing
from tests.fakes import fake_split, fill
from tests.fuzzing import Target, fuzz, mutated_json, mutated_text

INPUTS = 5000
ROWS = 300
METADATA = ("zarr.json", *(f"{name}/zarr.json" for name in ("features", "labels", "ids", "status")))

SPEC = {
    "dataset": {
        "name": "fake",
        "split": "train",
        "rows": ROWS,
        "fingerprint": "0" * 64,
        "label_set": "1" * 64,
    },
    "backbone": {"name": "vit", "architecture": "a", "weights": "2" * 64, "options": {"k": 1}},
    "transform": {"resize": [4, 4], "mean": [0.5, 0.25, 0.125], "engine": "fake"},
    "tap": "pooled",
    "views": {"count": 2, "augmentation": {"flip": True}, "seed": 7},
    "numerics": {"compute": "fp32", "stored": "float16"},
    "format": 1,
}
DERIVED = {"recipe": "pca:128|l2", "sources": ["3" * 64]}


def checksummed(group):
    """Give changed group metadata the checksum that it would have, where it can have one."""
    try:
        parts = {name: group["attributes"][name] for name in ("spec", "provenance", "sealed")}
        group = {**group, "attributes": {**group["attributes"], "checksum": sha256_json(parts)}}
    except (KeyError, TypeError, ValueError, AttributeError):
        pass
    return group


class Damaged:
    """A sealed set whose metadata is replaced for each input and put back afterwards."""

    def __init__(self, root: Path) -> None:
        self.path = fill(Cache(root), fake_split(ROWS, broken=[3]))[0].path
        self.texts = {name: (self.path / name).read_bytes() for name in METADATA}
        one = FeatureSet(self.path)
        self.spec, self.layout, self.sealed = one.spec, one.layout, one.sealed
        self.features, self.arrays = one.features().copy(), one.arrays

    def json(self, name):
        return json.loads(self.texts[name])

    def make(self, rng: random.Random) -> dict[str, bytes]:
        """Return what changed files hold: in most inputs, with checksums that agree with it."""
        name = rng.choice(METADATA)
        if name == "zarr.json":
            if rng.random() < 0.3:
                return {name: mutated_text(self.json(name), rng)}
            group = self.json(name)
            part = rng.choice(("spec", "sealed", "attributes"))
            if part == "attributes":
                group = mutated_json(group, rng)
            else:
                group["attributes"][part] = mutated_json(group["attributes"][part], rng)
            return {name: text_of(checksummed(group))}
        text = mutated_text(self.json(name), rng)
        if rng.random() < 0.3:
            return {name: text}
        group = self.json("zarr.json")
        for file in group["attributes"]["sealed"]["files"]:
            if file["path"] == name:
                file.update(bytes=len(text), blake3=blake3_bytes(text))
        return {name: text, "zarr.json": json_bytes(checksummed(group))}

    def reading(self, reader):
        """Return a target's reader: the changed files in place, then `reader`."""

        def read(texts):
            for name, text in texts.items():
                (self.path / name).write_bytes(text)
            try:
                reader()
            finally:
                for name in texts:
                    (self.path / name).write_bytes(self.texts[name])

        return read

    def open(self):
        read_group(self.path)
        one = FeatureSet(self.path)
        assert one.layout.rows == one.rows == len(one)
        assert (len(one.key), len(one.digest)) == (64, 64)
        assert repr(one)

    def read_arrays(self):
        arrays = read_arrays(self.path, ROWS)
        np.testing.assert_array_equal(arrays.labels, self.arrays.labels)
        np.testing.assert_array_equal(arrays.ids, self.arrays.ids)
        np.testing.assert_array_equal(arrays.status, self.arrays.status)
        assert all(isinstance(name, str) for name in arrays.class_names)
        assert all(isinstance(why, str) for why in arrays.reasons.values())
        assert read_ledger(self.path, ROWS) == arrays.reasons

    def verify(self):
        if problems := verify(self.path):
            raise CorruptError(str(problems[0]))
        one = FeatureSet(self.path)
        assert (one.spec, one.layout) == (self.spec, self.layout)
        assert one.digest == self.sealed["digest"]
        np.testing.assert_array_equal(one.features(), self.features)


def text_of(value):
    """Write JSON as featcache does, but whatever it holds."""
    return (json.dumps(value, indent=2) + "\n").encode()


def same(first, second):
    """Tell whether two JSON values are the same, to the type: `1`, `1.0` and `true` are three."""
    return json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)


def read_json_text(text):
    json_bytes(parse_json(text, "it"))


def read_spec(value):
    spec = ExtractionSpec.from_json(value)
    assert len(spec.key) == 64
    assert same(spec.to_json(), value)


def read_layout(value):
    layout = parse_layout(value)
    assert same(layout.metadata(), {**value, "attributes": {}})
    assert layout.n_shards >= 1
    assert layout.shard_bytes(layout.n_shards - 1) > 0


def read_files(layout):
    def read(files):
        if wrong := check_files(files, layout):
            raise CorruptError(wrong)
        sizes = {file["path"]: file["bytes"] for file in files}
        bounds = list(file_bounds(layout))
        assert sizes.keys() == {name for name, _, _ in bounds}
        assert all(least <= sizes[name] <= most for name, least, most in bounds)
        assert {type(size) for size in sizes.values()} == {int}

    return read


def spec_json(rng: random.Random):
    return {**SPEC, "derived": DERIVED} if rng.random() < 0.5 else SPEC


def targets(root: Path) -> list[Target]:
    """Return every reader of the store, with a sealed set of small chunks below `root`."""
    one = Damaged(root)
    layout = one.layout.metadata()
    files = one.sealed["files"]
    return [
        Target("parse_json", lambda rng: mutated_text(spec_json(rng), rng), read_json_text),
        Target(
            "ExtractionSpec.from_json", lambda rng: mutated_json(spec_json(rng), rng), read_spec
        ),
        Target("parse_layout", lambda rng: mutated_json(layout, rng), read_layout),
        Target("check_files", lambda rng: mutated_json(files, rng), read_files(one.layout)),
        Target("FeatureSet", one.make, one.reading(one.open), share=0.15),
        Target("read_arrays", one.make, one.reading(one.read_arrays), share=0.15),
        Target("verify", one.make, one.reading(one.verify), share=0.15),
    ]


NAMES = (
    "parse_json",
    "ExtractionSpec.from_json",
    "parse_layout",
    "check_files",
    "FeatureSet",
    "read_arrays",
    "verify",
)


@pytest.mark.parametrize("name", NAMES)
def test_hostile_metadata_is_taken_or_refused_in_plain_words(name, tmp_path, small_chunks):
    [target] = [one for one in targets(tmp_path) if one.name == name]
    outcome = fuzz(target, int(INPUTS * target.share), seed=0)
    assert outcome.others == 0, outcome.first
    assert outcome.refused > outcome.inputs / 4


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dataset.name", 3),
        ("dataset.rows", True),
        ("dataset.rows", 1.5),
        ("dataset.rows", 300.0),
        ("dataset.label_set", None),
        ("backbone.options", []),
        ("transform", [["resize", 4]]),
        ("transform.engine", "\udc80"),
        ("tap", 3),
        ("views.count", "x"),
        ("views.count", 0),
        ("views.seed", 1.0),
        ("numerics.compute", ["fp32"]),
        ("numerics.stored", "object"),
        ("numerics.more", 1),
        ("derived.recipe", None),
        ("derived", None),
        ("format", True),
    ],
)
def test_a_stored_spec_with_a_value_of_another_type_is_refused(field, value):
    spec = copy.deepcopy({**SPEC, "derived": DERIVED})
    assert same(ExtractionSpec.from_json(spec).to_json(), spec)
    *parents, name = field.split(".")
    place = spec
    for parent in parents:
        place = place[parent]
    place[name] = value
    with pytest.raises(SpecError, match=r"[Aa] stored spec must|reads format 1|must be Unicode"):
        ExtractionSpec.from_json(spec).key  # noqa: B018


def raise_a_lookup_error(_):
    {}["x"]


def take_much_memory(_):
    np.empty(8 * fuzzing.MORE_BYTES, np.uint8)  # more than earlier tests can have left free


def hang(_):
    time.sleep(60)


@pytest.mark.parametrize("reader", [raise_a_lookup_error, take_much_memory, hang])
def test_the_loop_finds_a_reader_that_raises_swallows_memory_or_hangs(reader, monkeypatch):
    monkeypatch.setattr(fuzzing, "HUNG_S", 0.1)
    outcome = fuzz(Target("it", lambda rng: rng.random(), reader), 2, seed=0)
    assert (outcome.accepted, outcome.refused, outcome.others) == (0, 0, 2)
    assert outcome.first.startswith("input 0: ")
