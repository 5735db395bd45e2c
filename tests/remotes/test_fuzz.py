"""Whatever lies at a remote or in the configuration, it is taken or refused in plain words."""

import json
import random
from pathlib import Path

import pytest

from featcache.digest import blake3_bytes, sha256_json
from featcache.errors import SpecError
from featcache.remotes.arrival import read_manifest
from featcache.remotes.config import load_config
from featcache.remotes.pointer import INDEX_NAME, Pointer, list_pointers, pointer_name, read_pointer
from featcache.spec import ExtractionSpec
from featcache.store.cache import Cache
from featcache.store.manifest import group_metadata
from tests.fakes import FakeBackbone, fake_split, specs_for
from tests.fuzzing import Target, fuzz, mutated_bytes, mutated_json, mutated_text

INPUTS = 3000
SPEC = specs_for(fake_split(20), FakeBackbone())[0]
POINTER = {
    "key": SPEC.key,
    "digest": "1" * 64,
    "manifest": "2" * 64,
    "signatures": [{"public_key": "3" * 64, "signature": "4" * 128}],
}
SEALED = {
    "rows": 20,
    "readable": 20,
    "digest": "1" * 64,
    "files": [{"path": f"features/c/{i}/0", "bytes": 5, "blake3": "5" * 64} for i in range(3)],
}
INDEX = [
    pointer_name(SPEC),
    pointer_name(SPEC, "1" * 64),
    pointer_name(SPEC).replace("fake", "cifar"),
    "features/../../fake-00000000000000000000.json",
    "features/README.md",
]
CONFIG = f"""
require_signed = true
trusted_keys = ["{"3" * 64}"]

[[remotes]]
name = "team"
url = "s3://bucket/prefix"
options = {{ endpoint = "http://localhost:1", retries = 3 }}

[[remotes]]
name = "disk"
url = "/mnt/features"
"""
WORDS = (
    b"3",
    b"1.5",
    b"nan",
    b"true",
    b'""',
    b"[]",
    b"{}",
    b"[[1]]",
    b"[{}]",
    b'["x"]',
    b'"a\\u0000b"',
    b'"\\ud800"',
    b"2020-01-01",
    b"1e400",
    b"[x]",
    b"remotes",
)
"""What may stand in the place of a word of the configuration."""


class Given:
    """A remote that holds one object."""

    url = "memory:"

    def __init__(self, name: str, data: bytes) -> None:
        self._name, self._data = name, data

    def size(self, name):
        return len(self._data) if name == self._name else None

    def read(self, name, start, stop):
        assert name == self._name
        return self._data[start:stop]


def read_a_pointer(text):
    pointer = read_pointer(Given("it", text), "it")
    assert Pointer.decode(pointer.encode(), "it") == pointer
    assert {len(one) for one in (pointer.key, pointer.digest, pointer.manifest)} == {64}
    assert pointer.payload()


def read_index(text):
    for name in list_pointers(Given(INDEX_NAME, text)):
        folder, dataset, split, backbone, _ = name.split("/")
        assert folder == "features"
        assert not {".", "..", ""} & {dataset, split, backbone}


def manifest(rng: random.Random):
    """Return a manifest's bytes and a pointer that agrees with as much of it as can be."""
    group = group_metadata(SPEC, provenance={"created": "now"}, sealed=SEALED)
    if rng.random() < 0.3:
        return mutated_text(group, rng), Pointer.decode(json.dumps(POINTER).encode(), "it")
    group["attributes"] = mutated_json(group["attributes"], rng)
    key = SPEC.key
    try:
        parts = {name: group["attributes"][name] for name in ("spec", "provenance", "sealed")}
        group["attributes"]["checksum"] = sha256_json(parts)
        key = ExtractionSpec.from_json(parts["spec"]).key
    except (KeyError, TypeError, ValueError, SpecError):
        pass
    return json.dumps(group).encode(), Pointer(key=key, digest="1" * 64, manifest="2" * 64)


def read_a_manifest(root: Path):
    cache = Cache(root)

    def read(given):
        data, pointer = given
        agreeing = Pointer(key=pointer.key, digest=pointer.digest, manifest=blake3_bytes(data))
        got = read_manifest("x", agreeing, Given("x/zarr.json", data))
        assert (got.data, got.spec.key, got.digest) == (data, pointer.key, pointer.digest)
        assert cache.path_of(got.spec).resolve().is_relative_to((root / "features").resolve())

    return read


def config_text(rng: random.Random) -> bytes:
    data = CONFIG.encode()
    for _ in range(rng.randrange(3)):
        words = data.split(b" ")
        words[rng.randrange(len(words))] = rng.choice(WORDS)
        data = b" ".join(words)
    return data if rng.random() < 0.2 else mutated_bytes(data, rng)


def read_config(root: Path):
    path = root / "fuzzed.toml"

    def read(text):
        path.write_bytes(text)
        config = load_config(path)
        assert isinstance(config.require_signed, bool)
        assert all(len(key) == 64 for key in config.trusted_keys)
        assert all(type(one.name) is type(one.url) is str for one in config.remotes)

    return read


def targets(root: Path) -> list[Target]:
    """Return every reader of what a remote or a configuration file holds."""
    return [
        Target("Pointer.decode", lambda rng: mutated_text(POINTER, rng), read_a_pointer),
        Target("list_pointers", lambda rng: mutated_text(INDEX, rng), read_index),
        Target("read_manifest", manifest, read_a_manifest(root)),
        Target("load_config", config_text, read_config(root), share=0.3),
    ]


@pytest.mark.parametrize(
    "name", ["Pointer.decode", "list_pointers", "read_manifest", "load_config"]
)
def test_hostile_input_is_taken_or_refused_in_plain_words(name, tmp_path):
    [target] = [one for one in targets(tmp_path) if one.name == name]
    outcome = fuzz(target, int(INPUTS * target.share), seed=0)
    assert outcome.others == 0, outcome.first
    assert outcome.refused > outcome.inputs / 4
