"""Push and pull: what arrives is what was sealed, or nothing."""

import json
import shutil
import threading

import numpy as np
import pytest
import zarr

import featcache
from featcache.errors import CorruptError, OptionError, RemoteError, StoreError, UnknownNameError
from featcache.remotes.config import load_config
from featcache.remotes.objects import ObjectTransport
from featcache.remotes.pointer import list_pointers, pointer_name, read_pointer, set_name
from featcache.remotes.pull import pull
from featcache.remotes.push import push
from featcache.remotes.signing import new_key, signer, trust
from featcache.store.cache import Cache
from featcache.store.claims import try_claim
from featcache.store.feature_set import FeatureSet
from featcache.store.verify import verify
from featcache.verbs.share import pull_sets, push_sets, write_index
from tests.fakes import FakeBackbone, fake_split, fill
from tests.remotes.servers import web_server


@pytest.fixture
def other(tmp_path):
    return Cache(tmp_path / "other")


def same(first, second):
    assert first.digest == second.digest
    np.testing.assert_array_equal(first.features(), second.features())
    np.testing.assert_array_equal(first.ids, second.ids)
    np.testing.assert_array_equal(first.labels, second.labels)
    assert first.reasons == second.reasons


def left_over(cache):
    return [path for path in (cache.root / "incoming").rglob("*") if path.is_file()]


def other_content(cache, one):
    """Write a set with the key of `one` whose features were computed with other rounding."""
    changed = FakeBackbone(hook=lambda images: images.__setitem__((0, 0, 0, 0), 7))
    path = fill(cache, fake_split(700, broken=[3]), changed)[0]
    assert (path.key, path.digest == one.digest) == (one.key, False)
    return path


def test_a_set_travels_whole_and_a_second_time_costs_nothing(one, transport, other):
    sent = push(one.path, transport)
    assert sent.files == len(one.sealed["files"])
    assert push(one.path, transport).files == 0
    names = list_pointers(transport)
    assert names == [pointer_name(one.spec)]
    got = pull(names[0], transport, other)
    assert (got.key, got.digest) == (one.key, one.digest)
    same(FeatureSet(got.path), one)
    assert verify(got.path) == []
    assert left_over(other) == []
    assert pull(names[0], transport, other).files == 0


def test_what_lies_at_a_directory_is_plain_zarr(one, directory):
    push(one.path, directory)
    path = f"{directory.url}/{set_name(one.spec, one.digest)}"
    np.testing.assert_array_equal(zarr.open_group(path, mode="r")["features"][...], one.features())


def test_a_set_is_read_over_http_with_an_index(one, directory, other):
    from pathlib import Path

    push(one.path, directory)
    assert write_index(Path(directory.url)) == 1
    with web_server(Path(directory.url)) as url:
        web = ObjectTransport(url)
        same(FeatureSet(pull(list_pointers(web)[0], web, other).path), one)


def test_another_content_of_the_key_is_refused_or_kept_beside(one, transport, other, tmp_path):
    push(one.path, transport)
    theirs = other_content(other, one)
    with pytest.raises(RemoteError, match=r"must mean one content.*--as-variant"):
        push(theirs.path, transport)
    name = push(theirs.path, transport, as_variant=True).name
    assert read_pointer(transport, pointer_name(one.spec)).digest == one.digest
    third, fourth = Cache(tmp_path / "third"), Cache(tmp_path / "fourth")
    same(FeatureSet(pull(name, transport, third).path), theirs)
    same(FeatureSet(pull(pointer_name(one.spec), transport, fourth).path), one)
    with pytest.raises(StoreError, match="must mean one content in a cache"):
        pull(pointer_name(one.spec), transport, third)
    same(FeatureSet(third.path_of(one.spec)), theirs)


def test_two_that_push_the_same_key_at_once_both_succeed(one, transport, other):
    threads = [threading.Thread(target=push, args=(one.path, transport)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    same(FeatureSet(pull(pointer_name(one.spec), transport, other).path), one)


class Flaky:
    """Fails after some blocks or files, then works."""

    def __init__(self, inner, fails_after):
        self._inner, self._left = inner, fails_after

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def _count(self):
        self._left -= 1
        if self._left == 0:
            raise RemoteError("Could not read: the connection was dropped. Try again.")

    def put(self, name, source):
        self._count()
        self._inner.put(name, source)

    def blocks(self, name):
        for block in self._inner.blocks(name):
            self._count()
            yield block


@pytest.mark.parametrize("after", [1, 3, 7])
def test_an_interrupted_push_or_pull_shows_nothing_and_goes_on(one, directory, other, after):
    with pytest.raises(RemoteError, match="dropped"):
        push(one.path, Flaky(directory, after))
    assert list_pointers(directory) == []
    sent = push(one.path, directory)
    assert sent.files <= len(one.sealed["files"])
    with pytest.raises(RemoteError, match="dropped"):
        pull(sent.name, Flaky(directory, after), other)
    assert other.paths() == []
    got = pull(sent.name, directory, other)
    assert got.files <= len(one.sealed["files"])
    same(FeatureSet(got.path), one)
    assert left_over(other) == []


def test_every_flipped_bit_at_the_remote_is_found_and_nothing_becomes_visible(
    one, directory, tmp_path
):
    from pathlib import Path

    push(one.path, directory)
    folder = Path(directory.url) / set_name(one.spec, one.digest)
    rng = np.random.default_rng(0)
    files = [folder / file["path"] for file in one.sealed["files"]] + [folder / "zarr.json"]
    for number, file in enumerate(files):
        good = file.read_bytes()
        bad = bytearray(good)
        bad[rng.integers(len(bad))] ^= 1 << int(rng.integers(8))
        file.write_bytes(bytes(bad))
        victim = Cache(tmp_path / f"victim{number}")
        with pytest.raises(CorruptError):
            pull(pointer_name(one.spec), directory, victim)
        assert victim.paths() == []
        file.write_bytes(good[:-1])
        with pytest.raises(CorruptError):
            pull(pointer_name(one.spec), directory, victim)
        file.write_bytes(good)
        same(FeatureSet(pull(pointer_name(one.spec), directory, victim).path), one)


def forge(directory, one, change):
    """Push a manifest that was changed and made consistent with its own checksums again."""
    from pathlib import Path

    from featcache.digest import blake3_bytes, sha256_json

    push(one.path, directory)
    root = Path(directory.url)
    manifest = root / set_name(one.spec, one.digest) / "zarr.json"
    group = json.loads(manifest.read_text())
    attributes = group["attributes"]
    change(attributes)
    parts = {name: attributes[name] for name in ("spec", "provenance", "sealed")}
    attributes["checksum"] = sha256_json(parts)
    manifest.write_text(json.dumps(group))
    pointer = root / pointer_name(one.spec)
    data = json.loads(pointer.read_text())
    pointer.write_text(json.dumps({**data, "manifest": blake3_bytes(manifest.read_bytes())}))


def set_path(name):
    def change(attributes):
        attributes["sealed"]["files"][0]["path"] = name

    return change


def huge(attributes):
    attributes["sealed"]["files"][0]["bytes"] = 10**15


def many_rows(attributes):
    attributes["spec"]["dataset"]["rows"] = 10**15


@pytest.mark.parametrize(
    "change",
    [
        set_path("../../../outside"),
        set_path("/etc/outside"),
        set_path("features/c/0/..\\x"),
        set_path("features/\u202ec/0/0"),
        huge,
        many_rows,
        lambda attributes: attributes["sealed"].update(files=[]),
        lambda attributes: attributes["sealed"].update(files={}),
        lambda attributes: attributes["spec"].update(tap="../up"),
        lambda attributes: attributes["spec"]["backbone"].update(name=["x"]),
        lambda attributes: attributes["spec"].update(format=99),
    ],
)
def test_a_forged_manifest_writes_nothing(one, directory, other, tmp_path, change):
    forge(directory, one, change)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(featcache.FeatcacheError):
        pull(pointer_name(one.spec), directory, other)
    assert other.paths() == []
    new = set(tmp_path.rglob("*")) - set(before)
    assert all(path == other.root or path.is_relative_to(other.root) for path in new)


def test_a_pointer_to_another_set_is_refused(one, directory, other):
    from pathlib import Path

    second = fill(Cache(other.root.parent / "more"), fake_split(50, name="test"))[0]
    push(one.path, directory)
    push(second.path, directory)
    root = Path(directory.url)
    shutil.copy(root / pointer_name(second.spec), root / pointer_name(one.spec))
    with pytest.raises(CorruptError, match="leads to key"):
        pull(pointer_name(one.spec), directory, other, spec=one.spec)


def test_a_damaged_local_set_is_not_pushed(one, directory):
    file = one.path / "labels" / "c" / "0"
    data = bytearray(file.read_bytes())
    data[5] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(CorruptError, match="must be the file that was sealed"):
        push(one.path, directory)
    assert list_pointers(directory) == []


def test_a_half_extracted_set_gives_way_unless_somebody_works_on_it(one, directory, other):
    push(one.path, directory)

    def stop(images):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill(other, fake_split(700, broken=[3]), FakeBackbone(hook=stop))
    work = other.path_of(one.spec).with_suffix(".work")
    assert work.is_dir()
    claim = try_claim(work / "claims" / "0.json")
    with pytest.raises(StoreError, match="must not be extracted while it is pulled"):
        pull(pointer_name(one.spec), directory, other)
    claim.release()
    same(FeatureSet(pull(pointer_name(one.spec), directory, other).path), one)
    assert not work.exists()


def test_only_signed_sets_are_pulled_where_that_is_required(one, directory, other, tmp_path):
    mine, stranger = tmp_path / "mine.pem", tmp_path / "stranger.pem"
    public = new_key(mine)
    new_key(stranger)
    config = tmp_path / "config.toml"
    config.write_text(f'require_signed = true\ntrusted_keys = ["{public}"]\n')
    judge = trust(load_config())
    push(one.path, directory, sign=signer(stranger))
    with pytest.raises(RemoteError, match="must be signed by a trusted key"):
        pull(pointer_name(one.spec), directory, other, trust=judge)
    shutil.rmtree(directory.url)
    (tmp_path / "remote").mkdir()
    push(one.path, directory, sign=signer(mine))
    forged = tmp_path / "remote" / pointer_name(one.spec)
    good = forged.read_text()
    forged.write_text(good.replace(one.digest[:20], "0" * 20, 1))
    with pytest.raises(RemoteError, match="must be signed"):
        pull(pointer_name(one.spec), directory, other, trust=judge)
    forged.write_text(good)
    same(FeatureSet(pull(pointer_name(one.spec), directory, other, trust=judge).path), one)
    assert mine.stat().st_mode & 0o077 == 0


def test_the_verbs_take_names_patterns_and_keys(one, directory, cache, other, tmp_path):
    (tmp_path / "config.toml").write_text(f'[[remotes]]\nname = "team"\nurl = "{directory.url}"\n')
    assert [sent.key for sent in push_sets("team", "fake/*", cache=cache.root)] == [one.key]
    assert [got.key for got in pull_sets("team", one.key[:8], cache=other.root)] == [one.key]
    with pytest.raises(OptionError, match="must match 'none/\\*'; none does"):
        push_sets("team", "none/*", cache=cache.root)
    with pytest.raises(RemoteError, match="must match 'none/\\*'; none does"):
        pull_sets("team", "none/*", cache=other.root)
    with pytest.raises(UnknownNameError, match="Did you mean 'team'"):
        push_sets("taem", cache=cache.root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("remotes = 3", "must have"),
        ("[[remotes]]\nname = 'x'", "'url'"),
        ("[[remote]]\nname = 'x'", "Did you mean 'remotes'"),
        ("trusted_keys = ['zz']", "64 hex digits"),
        ("require_signed = 'yes'", "neither true nor false"),
        ("= nonsense", "must be TOML"),
    ],
)
def test_a_wrong_configuration_is_one_message(tmp_path, text, message):
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(OptionError, match=message):
        load_config()
