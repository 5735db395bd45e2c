"""Two processes that both think a thing is theirs: nothing that is whole is ever taken apart."""

import errno
import os
import threading

import pytest

from featcache.errors import ExtractionError, StoreError
from featcache.store import claims, files, writer
from featcache.store.claims import Claim, Owner, read_owner, try_claim
from featcache.store.files import publish, temporary_path
from featcache.store.verify import verify
from featcache.store.writer import SetWriter
from tests.fakes import FakeBackbone, fake_split, fill, specs_for


@pytest.fixture
def no_links(monkeypatch):
    def link(*_args):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    monkeypatch.setattr(files, "LOCK_EXPIRY_S", 0.05)


def finished(directory, text):
    path = temporary_path(directory)
    path.write_text(text)
    return path


def test_without_links_the_first_writer_wins_too(tmp_path, no_links):
    assert publish(finished(tmp_path, "one"), tmp_path / "name")
    assert not publish(finished(tmp_path, "two"), tmp_path / "name")
    assert (tmp_path / "name").read_text() == "one"


def test_without_links_the_lock_of_a_killed_process_is_taken_away(tmp_path, no_links):
    (tmp_path / ".tmp-lock").touch()
    assert publish(finished(tmp_path, "one"), tmp_path / "name")
    assert [one.name for one in tmp_path.iterdir()] == ["name"]


def test_without_links_a_writer_that_is_at_it_is_waited_for(tmp_path, no_links, monkeypatch):
    monkeypatch.setattr(files, "LOCK_EXPIRY_S", 60.0)
    (tmp_path / ".tmp-lock").touch()
    threading.Timer(0.05, (tmp_path / "name").write_text, ["theirs"]).start()
    assert not publish(finished(tmp_path, "mine"), tmp_path / "name")
    assert (tmp_path / "name").read_text() == "theirs"


def test_without_links_a_set_is_extracted_as_with_them(tmp_path, cache, no_links):
    with_links = fill(cache, fake_split(50))[0]
    assert verify(with_links.path) == []


def test_a_newcomer_on_another_host_keeps_the_claim_it_just_made(tmp_path):
    path = tmp_path / "0.json"
    path.write_text('{"host": "elsewhere", "pid": 7, "started": "1"}')
    claims._take_away(path, Owner(host="dead", pid=1, started="1"))
    assert read_owner(path) == Owner(host="elsewhere", pid=7, started="1")
    claims._take_away(path, read_owner(path))
    assert not list(tmp_path.iterdir())


def test_a_claim_that_was_taken_away_is_noticed_and_not_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "HEARTBEAT_S", 0.0)
    claim = try_claim(tmp_path / "0.json")
    assert isinstance(claim, Claim)
    claim.keep_alive()
    (tmp_path / "0.json").unlink()
    with pytest.raises(ExtractionError, match=r"another took 0\.json over"):
        claim.keep_alive()
    assert not list(tmp_path.iterdir())


@pytest.fixture
def ready(cache, monkeypatch):
    """Return what makes writers of one set whose shards are all published."""
    split = fake_split(50, broken=[3])
    spec = specs_for(split, FakeBackbone())[0]

    def fail(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(SetWriter, "_place_arrays", fail)
        with pytest.raises(StoreError, match="The disk is full"):
            fill(cache, split)
    known = {"labels": split.labels, "ids": split.ids, "class_names": split.class_names}

    def make():
        one = SetWriter(cache.path_of(spec), spec, (8,))
        return one, lambda: one.seal(**{**known, "ids": _ids(split)}, provenance={})

    return make


def _ids(split):
    import numpy as np

    return np.array(split.ids, np.str_)


def marks(path):
    return {one.name: (one.stat().st_ino, one.stat().st_mtime_ns) for one in path.rglob("*")}


def test_a_set_sealed_while_the_claim_was_made_is_not_sealed_again(ready, monkeypatch):
    (first, seal), (_, seal_too) = ready(), ready()
    before = {}

    def late(path):
        monkeypatch.undo()
        assert seal_too() is None
        before.update(marks(first.path))
        path.parent.mkdir(parents=True)  # as a removal that a newcomer disturbed leaves it
        return try_claim(path)

    monkeypatch.setattr(writer, "try_claim", late)
    assert seal() is None
    assert marks(first.path) == before
    assert verify(first.path) == []
    assert not first.work.exists()


def test_a_sealer_that_was_held_up_takes_nothing_away(ready, monkeypatch):
    (first, seal), (_, seal_too) = ready(), ready()
    before = {}
    place = SetWriter._place_arrays

    def held_up(self, arrays):
        monkeypatch.undo()
        (self.work / "claims" / "seal.json").unlink()  # taken over
        assert seal_too() is None
        before.update(marks(first.path))
        place(self, arrays)

    monkeypatch.setattr(SetWriter, "_place_arrays", held_up)
    assert seal() is None
    assert {name: one for name, one in marks(first.path).items() if name in before} == before
    assert verify(first.path) == []
    assert not first.work.exists()


def test_an_array_that_a_crash_damaged_is_replaced_when_sealing(ready):
    one, seal = ready()
    broken = one.path / "labels" / "c" / "0"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"")
    assert seal() is None
    assert verify(one.path) == []
