"""Names, file systems, clocks and formats that do not fit, between a cache and a directory."""

import errno
import json
import os
import threading
import time
import unicodedata
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from featcache.digest import blake3_bytes, sha256_json
from featcache.errors import CorruptError
from featcache.remotes.pointer import list_pointers, pointer_name, read_pointer, set_name_beside
from featcache.remotes.pull import pull
from featcache.remotes.push import push
from featcache.spec import FORMAT, KEY_DIGITS
from featcache.store.cache import Cache
from featcache.store.claims import try_claim
from featcache.store.feature_set import FeatureSet
from featcache.store.gc import FRESH_S, collect, plan
from featcache.store.verify import verify
from featcache.verbs.share import Sources, pull_sets
from tests.fakes import FakeBackbone, fake_split, fill

IN_1970, IN_2200 = 1000.0, 7_258_118_400.0
NAMES = [
    "n" * 300,
    "..",
    "../../../outside",
    "/etc/outside",
    "C:\\outside",
    "CON",
    "nul.txt",
    "ends with a dot.",
    'a:b*c?d"e<f>g|h',
    "line\nbreak\x00\x7f",
    "\u202egpj.exe",
    "e\u0301\u200b\ufeff",
    "数据集",
    "🦆" * 100,
    "-rf",
    "%2e%2e%2f",
]


@pytest.fixture
def other(tmp_path):
    return Cache(tmp_path / "other")


@dataclass
class Named(FakeBackbone):
    """A backbone whose name and only tap are chosen."""

    name: str = "fake"

    @property
    def identity(self):
        return replace(super().identity, name=self.name)

    @property
    def taps(self):
        return {self.default_tap: (self.dim,)}

    def embed(self, images, taps):
        pooled = super().embed(images, ["pooled"])["pooled"]
        return {tap: pooled for tap in taps}


def named(text, *, rows=20):
    """Return a split, backbone and tap that all have this name."""
    split = replace(fake_split(rows, name=text), dataset=text, ids=tuple(map(str, range(rows))))
    return split, Named(name=text, default_tap=text), (text,)


def same(got, one):
    assert (got.key, got.digest) == (one.key, one.digest)
    assert verify(got.path) == []


def tree(folder):
    return {path for path in folder.rglob("*")}


@pytest.mark.parametrize("text", NAMES, ids=map(str, range(len(NAMES))))
def test_any_name_is_stored_pushed_and_pulled_inside_its_directory(
    cache, directory, other, tmp_path, text
):
    before = tree(tmp_path)
    one = fill(cache, *named(text))[0]
    got = pull(push(one.path, directory).name, directory, other)
    same(got, one)
    assert FeatureSet(got.path).spec == one.spec
    assert list_pointers(directory) == [pointer_name(one.spec)]
    assert [found.spec for found in other.find(dataset=text, split=text, backbone=text)] == [
        one.spec
    ]
    rooms = (cache.root, other.root, Path(directory.url))
    for path in tree(tmp_path) - before:
        assert any(path == room or path.is_relative_to(room) for room in rooms)
        assert all(len(part.encode()) < 200 for part in path.relative_to(tmp_path).parts)
        assert str(path).isascii()


PAIRS = [
    ("Cars", "cars"),
    ("a/b", "a_b"),
    ("é", unicodedata.normalize("NFD", "é")),
    ("n" * 300, "N" * 300),
    ("数", "据"),
]


def folded(path):
    """Return what a path is to a file system that ignores case."""
    return str(path).casefold()


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=map(str, range(len(PAIRS))))
def test_names_that_a_file_system_may_take_for_one_never_mix(
    cache, directory, other, first, second
):
    """The key stands in every file name, so sets stay apart where directories do not."""
    sets = [fill(cache, *named(text))[0] for text in (first, second)]
    for place in (lambda one: cache.path_of(one.spec), lambda one: pointer_name(one.spec)):
        assert folded(place(sets[0])) != folded(place(sets[1]))
        assert all(one.key[:KEY_DIGITS] in Path(place(one)).name for one in sets)
    names = [push(one.path, directory).name for one in sets]
    for name, one in zip(names, sets, strict=True):
        same(pull(name, directory, other, spec=one.spec), one)
        text = one.spec.dataset.name
        found = other.find(dataset=text, split=text, backbone=text)
        assert [stored.spec for stored in found] == [one.spec]


def test_sets_in_a_directory_of_another_case_are_found_by_their_exact_name_alone(cache):
    """Where case is ignored, the first of two names gives the directory its spelling."""
    sets = [fill(cache, *named(text))[0] for text in ("Cars", "cars")]
    lower = cache.folder("cars", "cars", "cars")
    sets[0].path.rename(lower / sets[0].path.name)
    assert [one.spec for one in cache.find(dataset="cars", split="cars", backbone="cars")] == [
        sets[1].spec
    ]


@pytest.fixture(params=[errno.EPERM, errno.ENOTSUP, errno.ENOSYS], ids=errno.errorcode.get)
def _no_links(request, monkeypatch):
    def link(*_args, **_options):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(os, "link", link)


@pytest.mark.usefixtures("_no_links")
def test_without_hard_links_sets_are_made_pushed_by_two_at_once_and_pulled(cache, directory, other):
    one = fill(cache, fake_split(100))[0]
    failed = []

    def send():
        try:
            push(one.path, directory)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=send) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    same(pull(pointer_name(one.spec), directory, other), one)
    assert not directory.create(pointer_name(one.spec), b"second")
    assert read_pointer(directory, pointer_name(one.spec)).digest == one.digest
    assert [path for path in Path(directory.url).rglob(".tmp-*")] == []


def upgrade(directory, one):
    """Make a set at a directory one of the next format, consistent with itself, under its key."""
    root = Path(directory.url)
    old = root / pointer_name(one.spec)
    pointer = json.loads(old.read_text())
    folder = root / set_name_beside(pointer_name(one.spec), one.digest)
    group = json.loads((folder / "zarr.json").read_text())
    parts = {name: group["attributes"][name] for name in ("spec", "provenance", "sealed")}
    parts["spec"] |= {"format": FORMAT + 1, "colour": "a field of the future"}
    group["attributes"] = {**parts, "checksum": sha256_json(parts)}
    data = json.dumps(group).encode()
    key = sha256_json(parts["spec"])
    name = pointer_name(one.spec).replace(one.key[:KEY_DIGITS], key[:KEY_DIGITS])
    new = root / set_name_beside(name, one.digest)
    folder.rename(new)
    (new / "zarr.json").write_bytes(data)
    old.unlink()
    pointer |= {"key": key, "manifest": blake3_bytes(data)}
    (root / name).write_text(json.dumps(pointer))
    return name


def test_a_set_of_a_newer_format_says_to_upgrade_and_is_not_kept(cache, directory, other):
    one, kept = fill(cache, fake_split(50))[0], fill(cache, fake_split(30, name="test"))[0]
    push(one.path, directory)
    name = upgrade(directory, one)
    expected = rf"reads format {FORMAT}; .*has format {FORMAT + 1}. Upgrade featcache"
    with pytest.raises(CorruptError, match=expected) as caught:
        pull(name, directory, other)
    assert directory.url in str(caught.value)
    with pytest.raises(CorruptError, match=expected):
        pull_sets(directory.url, cache=other.root)
    assert other.paths() == []
    push(kept.path, directory)
    same(pull(pointer_name(kept.spec), directory, other), kept)


def test_a_configured_remote_with_a_newer_format_is_passed_over(
    cache, directory, tmp_path, monkeypatch
):
    one = fill(cache, fake_split(50))[0]
    push(one.path, directory)
    upgrade(directory, one)
    (tmp_path / "config.toml").write_text(f'[[remotes]]\nname = "team"\nurl = "{directory.url}"\n')
    said = []
    sources = Sources(None, note=said.append)
    assert sources.offer("fake", "fake") == []
    assert not sources.fetch(one.spec, cache)
    (line,) = said
    assert line.startswith("a set is passed over")
    assert "Upgrade featcache" in line


def set_times(folder, moment):
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (moment, moment))


@pytest.mark.parametrize("moment", [IN_1970, IN_2200])
def test_times_of_files_at_a_remote_do_not_matter(cache, directory, other, moment):
    one = fill(cache, fake_split(100))[0]
    push(one.path, directory)
    set_times(Path(directory.url), moment)
    same(pull(pointer_name(one.spec), directory, other), one)
    assert push(one.path, directory).files == 0


def half_extracted(cache):
    def stop(_images):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill(cache, fake_split(100), FakeBackbone(hook=stop))
    (path,) = cache.paths()
    return path


@pytest.mark.parametrize("moment", [IN_1970, IN_2200])
def test_a_claim_of_the_dead_holds_nobody_up_whatever_its_time(
    cache, directory, other, tmp_path, moment
):
    one = fill(cache, fake_split(100))[0]
    push(one.path, directory)
    path = half_extracted(other)
    claim = path.with_suffix(".work") / "claims" / "0.json"
    try_claim(claim)
    record = json.loads(claim.read_text())
    claim.write_text(json.dumps({**record, "started": "before this one"}))
    set_times(other.root, moment)
    same(fill(other, fake_split(100))[0], one)
    half_extracted(third := Cache(tmp_path / "third"))
    set_times(third.root, moment)
    same(pull(pointer_name(one.spec), directory, third), one)


@pytest.mark.parametrize("moment", [IN_1970, IN_2200])
def test_a_living_claim_is_respected_whatever_its_time(tmp_path, moment):
    claim = try_claim(tmp_path / "0.json")
    os.utime(tmp_path / "0.json", (moment, moment))
    claim.keep_alive()
    assert (tmp_path / "0.json").exists()
    claim.release()
    assert not (tmp_path / "0.json").exists()


def stuff(cache):
    """Fill a cache with one thing of each kind that tidying looks at."""
    one = fill(cache, fake_split(50, name="test"))[0]
    arriving = cache.root / "incoming" / ("0" * 16) / "pooled-0.zarr"
    arriving.mkdir(parents=True)
    (arriving / "zarr.json").write_bytes(b"{}")
    (cache.root / "chunks" / "aa").mkdir(parents=True)
    (cache.root / "chunks" / "aa" / "bb").write_bytes(b"1234")
    return one


def test_what_has_a_time_in_the_future_is_fresh(cache):
    one = stuff(cache)
    set_times(cache.root, IN_2200)
    now = time.time()
    assert plan(cache, now=now) == []
    assert plan(cache, older_than_s=0.0, now=now) == []
    removed = collect(plan(cache, max_bytes=0, now=now))  # asked for: it takes no time into account
    assert [leftover.path for leftover in removed] == [one.path]


def test_a_present_that_is_off_removes_nothing_that_is_sealed_and_does_not_crash(cache):
    one = stuff(cache)
    for now in (0.0, IN_1970, IN_2200):
        assert one.path not in [leftover.path for leftover in plan(cache, now=now)]
    assert plan(cache, now=IN_1970) == []
    set_times(cache.root, IN_1970)
    kinds = sorted(leftover.kind for leftover in plan(cache, now=IN_1970 + FRESH_S + 1))
    assert kinds == ["chunk", "incoming"]
    assert verify(one.path) == []
