import dataclasses
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import load, save

from featcache.digest import canonical_json
from featcache.errors import CorruptError, FeatcacheError, OptionError, ShapeError, StoreError
from featcache.head_store import HeadStore, StoredHead, check_head, read_head
from featcache.spec import BackboneIdentity
from featcache.store import head_file
from featcache.store.files import parse_json
from featcache.store.gc import plan

NETWORK = BackboneIdentity(name="net", architecture="arch", weights="ab" * 32, options={"a": 1})


def make(**given):
    rng = np.random.default_rng(0)
    fields = {
        "kind": "probe",
        "weights": rng.normal(size=(5, 3)).astype(np.float32),
        "bias": rng.normal(size=3),
        "class_names": ("red", "grün", "blue"),
        "backbone": NETWORK,
        "tap": "pooled",
        "origin": {"seed": 3, "strength": 0.5, "sets": ["k1", "k2"]},
    }
    return StoredHead(**{**fields, **given})


@pytest.fixture
def store(cache):
    return HeadStore(cache.root)


def assert_equal(first, second):
    for name in (item.name for item in dataclasses.fields(first)):
        one, other = getattr(first, name), getattr(second, name)
        if isinstance(one, np.ndarray):
            np.testing.assert_array_equal(one, other, strict=True)
        else:
            assert one == other, name


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"kind": "text", "is_unit_norm": True, "scale": 100.0},
        {"weights": np.arange(15, dtype=np.float16).reshape(5, 3)},
        {"weights": np.arange(15, dtype=np.float64).reshape(3, 5).T},  # not contiguous
        {"descriptions": ("a", "a", "c")},
        {"weights": np.ones((1, 1)), "bias": np.zeros(1), "class_names": ("only",)},
        {"origin": {}, "scale": 1e-3},
    ],
)
def test_a_head_comes_back_as_it_was(store, given):
    head = make(**given)
    path = store.path_of(store.save(head))
    assert_equal(read_head(path), head)
    assert path.parent.name == "net"
    assert path.name == f"{head.kind}-{head.key[:20]}.safetensors"


def test_the_file_is_plain_safetensors(store):
    head = store.save(make())
    tensors = load(store.path_of(head).read_bytes())
    np.testing.assert_array_equal(tensors["weights"], head.weights)
    np.testing.assert_array_equal(tensors["bias"], head.bias)


@pytest.mark.parametrize(
    "given",
    [
        {"kind": "native"},
        {"tap": "cls"},
        {"class_names": ("red", "blue", "grün")},
        {"backbone": dataclasses.replace(NETWORK, weights="cd" * 32)},
        {"backbone": dataclasses.replace(NETWORK, architecture="other")},
        {"origin": {"seed": 4, "strength": 0.5, "sets": ["k1", "k2"]}},
        {"is_unit_norm": True},
        {"scale": 2.0},
    ],
)
def test_whatever_decides_a_head_changes_its_key(given):
    assert make(**given).key != make().key


def test_a_key_names_weights_and_neither_their_alias_nor_the_numbers():
    renamed = dataclasses.replace(NETWORK, name="alias")
    assert make(backbone=renamed).key == make().key
    other = make(bias=np.zeros(3))
    assert other.key == make().key
    assert other.digest != make().digest


def test_the_first_writer_wins(store):
    first = store.save(make())
    kept = store.save(make(bias=np.zeros(3)))
    assert_equal(kept, first)
    assert_equal(store.find(first.key), first)


def test_heads_are_listed_and_found_by_prefix_backbone_and_kind(store):
    other = dataclasses.replace(NETWORK, name="net/2")
    heads = [
        store.save(make()),
        store.save(make(kind="native", origin={})),
        store.save(make(backbone=other, tap="cls")),
    ]
    assert {one.key for one in store.entries()} == {one.key for one in heads}
    assert [one.key for one in store.entries(backbone="net/2")] == [heads[2].key]
    assert [one.key for one in store.entries(backbone="net", kind="native")] == [heads[1].key]
    assert store.entries(kind="text") == []
    entry = store.entries(backbone="net", kind="probe")[0]
    assert (entry.dim, entry.tap, entry.backbone) == (5, "pooled", NETWORK)
    assert entry.class_names == heads[0].class_names
    assert entry.known == {"red", "grün", "blue"}
    assert entry.origin == heads[0].origin
    assert_equal(store.find(heads[2].key[:12]), heads[2])


def test_a_key_of_no_head_or_of_several_is_refused(store):
    store.save(make())
    store.save(make(tap="cls"))
    with pytest.raises(OptionError, match=r"starts with 'zz'; none does. .* featcache ls heads"):
        store.find("zz")
    with pytest.raises(OptionError, match=r"starts with ''; 2 do"):
        store.find("")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"weights": np.ones((5, 2))}, "one bias and one name for each of 2 columns"),
        ({"weights": np.ones(3)}, r"weights of shape \(D, C\)"),
        ({"weights": np.ones((0, 3))}, r"weights of shape \(D, C\)"),
        ({"bias": np.ones(2)}, r"got a bias of shape \(2,\) and 3 names"),
        ({"class_names": ("a", "b", "a")}, "got 'a' twice"),
        ({"descriptions": ("a",)}, "a description for each of 3 classes; got 1"),
        ({"weights": np.full((5, 3), np.nan)}, "got NaN or infinity"),
        ({"bias": np.array([0, np.inf, 0])}, "got NaN or infinity"),
        ({"weights": np.ones((5, 3), np.int64)}, "float16, float32, float64; got int64"),
        ({"scale": 0.0}, "positive finite scale; got 0.0"),
        ({"scale": np.inf}, "positive finite scale; got inf"),
    ],
)
def test_a_head_that_cannot_be_is_never_written(store, given, message):
    with pytest.raises((ShapeError, FeatcacheError), match=message):
        check_head(make(**given))
    with pytest.raises(FeatcacheError):
        store.save(make(**given))
    assert not list(store.entries())


def test_every_flipped_bit_is_found_or_changes_nothing(store):
    head = make(weights=np.ones((2, 3), np.float32), origin={})
    path = store.path_of(store.save(head))
    data = path.read_bytes()
    harmless = 0
    for place in range(len(data)):
        for bit in (0, 3, 6):
            damaged = bytearray(data)
            damaged[place] ^= 1 << bit
            path.write_bytes(damaged)
            try:
                assert_equal(read_head(path), head)
                harmless += 1
            except FeatcacheError:
                pass
    assert harmless <= 8 * 3  # bits of the padding after the header


def test_every_truncation_is_found(store):
    path = store.path_of(store.save(make(origin={})))
    data = path.read_bytes()
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(CorruptError, match="Delete the file and make the head again"):
            read_head(path)
        assert store.entries() == []


def rewrite(path, change, *, tensors=None):
    """Write the file again with changed metadata and a fitting digest."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        record = parse_json(file.metadata()["featcache"].encode(), "x")
        kept = {name: file.get_tensor(name) for name in ("weights", "bias")}
    change(record)
    kept = tensors or kept
    if isinstance(record.get("facts"), dict):
        try:
            record["key"] = head_file.key_of(record["facts"])
            record["digest"] = head_file.digest_of(record["facts"], kept["weights"], kept["bias"])
        except (KeyError, TypeError):
            pass
    path.write_bytes(save(kept, {"featcache": canonical_json(record)}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(format=2), "a head of format 1; its format is 2"),
        (lambda r: r.update(format=True), "its format is True"),
        (lambda r: r.update(more=1), r"a field is missing or unknown: \['more'\]"),
        (lambda r: r["facts"].pop("tap"), r"missing or unknown: \['tap'\]"),
        (lambda r: r["facts"].update(tap=3), "`tap` is 3"),
        (lambda r: r["facts"].update(scale=True), "`scale` is True"),
        (lambda r: r["facts"].update(scale=-1), "positive finite scale"),
        (lambda r: r["facts"].update(scale=10**400), "its scale is larger than any float"),
        (lambda r: r["facts"].update(kind="../x"), "its kind is '../x'"),
        (lambda r: r["facts"].update(class_names=["a", 1, "c"]), "`class_names` holds what is"),
        (lambda r: r["facts"].update(class_names=["a", "a", "c"]), "got 'a' twice"),
        (lambda r: r["facts"].update(class_names=["a"]), "for each of 3 columns"),
        (lambda r: r["facts"]["backbone"].update(options=[]), r"`options` is \[\]"),
        (lambda r: r["facts"].update(origin=None), "`origin` is None"),
    ],
)
def test_facts_that_cannot_be_are_refused_with_a_digest_that_fits(store, change, message):
    path = store.path_of(store.save(make()))
    rewrite(path, change)
    with pytest.raises(CorruptError, match=message):
        read_head(path)


def test_numbers_that_cannot_be_are_refused(store):
    path = store.path_of(store.save(make()))
    good = {"weights": np.ones((5, 3)), "bias": np.ones(3)}
    for bad, message in [
        ({**good, "bias": np.full(3, np.nan)}, "got NaN or infinity"),
        ({**good, "weights": np.ones((5, 3), np.int32)}, "got int32 and float64"),
        ({**good, "bias": np.ones((3, 1))}, r"a bias of shape \(3, 1\)"),
    ]:
        rewrite(path, lambda _: None, tensors=bad)
        with pytest.raises(CorruptError, match=message):
            read_head(path)
    path.write_bytes(save({**good, "extra": np.ones(1)}, {"featcache": "{}"}))
    with pytest.raises(CorruptError, match="the file of a head; it holds"):
        read_head(path)
    path.write_bytes(save(good))
    with pytest.raises(CorruptError, match="its metadata must be JSON"):
        read_head(path)


def test_a_pickle_is_not_opened(store, tmp_path):
    path = tmp_path / "probe-x.safetensors"
    path.write_bytes(b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.")
    with pytest.raises(CorruptError, match="must be a safetensors file"):
        read_head(path)


def test_a_file_that_is_too_large_or_not_there_is_refused(store, monkeypatch):
    path = store.path_of(store.save(make()))
    monkeypatch.setattr(head_file, "MAX_BYTES", 10)
    with pytest.raises(CorruptError, match="at most 10 bytes long"):
        read_head(path)
    with pytest.raises(StoreError, match="A head must lie at"):
        read_head(path.with_name("none.safetensors"))


def test_a_head_is_read_without_torch(store):
    path = store.path_of(store.save(make()))
    code = (
        "import sys, pathlib\n"
        "from featcache.head_store import read_head\n"
        "head = read_head(pathlib.Path(sys.argv[1]))\n"
        "assert head.weights.shape == (5, 3)\n"
        "heavy = {'torch', 'zarr', 'sklearn', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)


def test_what_a_killed_writer_left_is_collected_and_heads_are_not(store, cache):
    path = store.path_of(store.save(make()))
    left = path.with_name(".tmp-left-behind")
    left.write_bytes(b"half")
    assert [one.path for one in plan(cache, now=time.time() + 7200)] == [left]
