"""What leaves the cache: all of a set, or a set without what must stay."""

import re
from dataclasses import replace

import datasets
import numpy as np
import pytest
import yaml

from featcache.derived.materialise import materialise
from featcache.derived.recipe import Recipe
from featcache.derived.view import DerivedSet, fit_recipe
from featcache.errors import OptionError
from featcache.store.cache import Cache
from featcache.store.verify import verify
from featcache.verbs.export import export_sets, import_archive
from tests.fakes import fake_split, fill


@pytest.fixture
def one(cache, small_chunks):
    return fill(cache, fake_split(700, broken=[3]))[0]


@pytest.fixture
def other(tmp_path):
    return Cache(tmp_path / "other")


def carried(one, cache, other, target, **given):
    """Export and import; return the set that arrived."""
    export_sets(target, one.key, cache=cache.root, **given)
    (got,) = import_archive(target, cache=other.root)
    assert verify(got.path) == []
    return other.open(got.key)


def test_hashed_ids_tell_nothing_without_the_secret(one, cache, other, tmp_path):
    target = tmp_path / "a.tar"
    got = carried(one, cache, other, target, hash_ids=True)
    np.testing.assert_array_equal(got.features(), one.features())
    np.testing.assert_array_equal(got.labels, one.labels)
    assert got.key != one.key
    assert len(set(got.ids)) == 700
    assert all(re.fullmatch("[0-9a-f]{32}", name) for name in got.ids)
    everything = target.read_bytes()
    for secret in (one.ids[0], one.spec.dataset.fingerprint, one.reasons[3], one.key):
        assert secret.encode() not in everything
    assert got.reasons == {3: "unreadable"}
    again = carried(one, cache, Cache(tmp_path / "third"), tmp_path / "b.tar", hash_ids=True)
    assert again.key != got.key
    assert not set(again.ids) & set(got.ids)


def test_one_salt_gives_one_key_and_pairs_of_backbones(one, cache, other, tmp_path):
    wide = fill(cache, fake_split(700, broken=[3]), taps=("wide",))[0]
    given = {"hash_ids": True, "salt": tmp_path / "salt"}
    first = carried(one, cache, other, tmp_path / "a.tar", **given)
    second = carried(wide, cache, Cache(tmp_path / "x"), tmp_path / "b.tar", **given)
    assert first.spec.dataset == second.spec.dataset
    again = carried(one, cache, Cache(tmp_path / "y"), tmp_path / "c.tar", **given)
    assert (again.key, again.digest) == (first.key, first.digest)
    assert (tmp_path / "salt").stat().st_mode & 0o077 == 0


def test_labels_can_stay(one, cache, other, tmp_path):
    target = tmp_path / "a.tar"
    got = carried(one, cache, other, target, labels=False)
    assert (set(got.labels), got.class_names) == ({-1}, ())
    np.testing.assert_array_equal(got.ids, one.ids)
    assert b"class 1" not in target.read_bytes()
    assert one.spec.dataset.label_set.encode() not in target.read_bytes()
    assert got.provenance["redacted"] == ["labels"]


def test_ids_that_tell_labels_are_not_exported_without_them(cache, other, tmp_path):
    split = fake_split(60)
    ids = [
        f"{split.class_names[label]}/{row}.png" for row, label in enumerate(split.labels.tolist())
    ]
    one = fill(cache, replace(split, ids=tuple(ids)))[0]
    with pytest.raises(OptionError, match="names its class .*Add --hash-ids"):
        export_sets(tmp_path / "a.tar", cache=cache.root, labels=False)
    assert not (tmp_path / "a.tar").exists()
    got = carried(one, cache, other, tmp_path / "a.tar", labels=False, hash_ids=True)
    assert b"class 1" not in (tmp_path / "a.tar").read_bytes()
    assert len(got) == 60


def test_nothing_is_left_in_the_cache_that_is_exported_from(one, cache, tmp_path):
    before = sorted(cache.root.rglob("*"))
    export_sets(tmp_path / "a.tar", cache=cache.root, labels=False, hash_ids=True)
    assert sorted(cache.root.rglob("*")) == before
    assert verify(one.path) == []


def test_a_hugging_face_dataset_loads_with_labels_ids_and_features(one, cache, tmp_path):
    test = fill(cache, fake_split(300, name="test", seed=5))[0]
    coded = DerivedSet([one], fit_recipe(Recipe.parse("int8"), [one]))
    materialise(coded, cache)
    target = tmp_path / "dataset"
    export_sets(target, cache=cache.root, form="hf-dataset")
    loaded = datasets.load_dataset(
        str(target), "fake.fake.pooled", cache_dir=str(tmp_path / "hf")
    ).with_format("numpy")
    assert sorted(loaded) == ["test", "train"]
    keep = one.valid
    assert loaded["train"].features["label"].names == list(one.class_names)
    np.testing.assert_array_equal(loaded["train"]["id"][:], one.ids[keep])
    np.testing.assert_array_equal(loaded["train"]["label"][:], one.labels[keep])
    np.testing.assert_array_equal(loaded["train"]["features"][:], one.features()[keep])
    np.testing.assert_array_equal(loaded["test"]["features"][:], test.features())
    codes = datasets.load_dataset(
        str(target), "fake.fake.pooled_int8", cache_dir=str(tmp_path / "hf")
    ).with_format("numpy")
    np.testing.assert_allclose(codes["train"]["features"][:], coded.features()[keep], atol=1e-6)
    card = (target / "README.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    assert head["license"] == "other"
    assert one.key[:20] in card
    assert "## Cite" in card


def test_setups_and_versions_that_share_a_name_do_not_overwrite_each_other(one, cache, tmp_path):
    wider = fill(cache, fake_split(700, broken=[3]), stored="float32")[0]
    export_sets(tmp_path / "d", cache=cache.root, form="hf-dataset")
    names = sorted(path.name for path in (tmp_path / "d" / "data").iterdir())
    assert len(names) == 2
    types = set()
    for name in names:
        loaded = datasets.load_dataset(str(tmp_path / "d"), name, cache_dir=str(tmp_path / "hf"))
        types.add(loaded["train"].features["features"].feature.dtype)
    assert types == {str(one.features().dtype), str(wider.features().dtype)}
    fill(cache, fake_split(650))
    with pytest.raises(OptionError, match="one set per split"):
        export_sets(tmp_path / "e", cache=cache.root, form="hf-dataset")


def test_a_dataset_without_labels_has_no_column_of_them(one, cache, tmp_path):
    export_sets(tmp_path / "d", cache=cache.root, form="hf-dataset", labels=False)
    loaded = datasets.load_dataset(
        str(tmp_path / "d"), "fake.fake.pooled", cache_dir=str(tmp_path / "hf")
    )
    assert loaded["train"].column_names == ["id", "features"]


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("a.zip", {}, "must be called"),
        ("a.tar", {"salt": "salt"}, "without --hash-ids"),
        ("none/a.tar", {}, "must exist"),
        ("a.tar", {"form": "zip"}, "'archive' or 'hf-dataset'"),
        ("a", {"form": "hf-dataset", "sign_key": "key"}, "Only an archive is signed"),
        ("full", {"form": "hf-dataset"}, "must be new or empty"),
        ("a.tar", {"hash_ids": True, "salt": "short"}, "at least 32 bytes"),
    ],
)
def test_options_that_cannot_be_are_one_message(one, cache, tmp_path, name, given, message):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    (tmp_path / "short").write_bytes(b"x")
    paths = {"salt", "sign_key"}
    fields = {key: tmp_path / value if key in paths else value for key, value in given.items()}
    with pytest.raises(OptionError, match=message):
        export_sets(tmp_path / name, cache=cache.root, **fields)
