"""The Hub as a remote, against a client that behaves like the real one."""

import huggingface_hub
import numpy as np
import pytest

from featcache.errors import RemoteError
from featcache.remotes.hub import HubTransport
from featcache.remotes.pointer import list_pointers
from featcache.remotes.pull import pull
from featcache.remotes.push import push
from featcache.store.cache import Cache
from featcache.store.feature_set import FeatureSet
from tests.remotes.hub import FakeHub


@pytest.fixture
def hub(monkeypatch):
    hub = FakeHub()
    hub.files["org/features"] = {"README.md": b"hello"}
    monkeypatch.setattr(huggingface_hub, "HfApi", hub.client)
    return hub


def test_a_set_travels_through_a_repository(one, hub, tmp_path):
    transport = HubTransport("hf://datasets/org/features/team")
    push(one.path, transport)
    assert push(one.path, transport).files == 0
    assert all(name.startswith(("team/features/", "README")) for name in hub.files["org/features"])
    other = Cache(tmp_path / "other")
    got = FeatureSet(pull(list_pointers(transport)[0], transport, other).path)
    np.testing.assert_array_equal(got.features(), one.features())


def test_a_commit_in_between_is_seen_and_the_first_name_stands(hub):
    first = HubTransport("hf://datasets/org/features")
    second = HubTransport("hf://datasets/org/features")

    def somebody_else():
        hub.before_commit = lambda: None
        assert second.create("features/x.json", b"theirs")

    hub.before_commit = somebody_else
    assert not first.create("features/x.json", b"mine")
    assert first.read("features/x.json", 0, 6) == b"theirs"


def test_others_that_keep_committing_end_in_one_message(hub):
    def somebody_else():
        hub.revision += 1

    hub.before_commit = somebody_else
    with pytest.raises(RemoteError, match="others keep committing"):
        HubTransport("hf://datasets/org/features").create("features/x.json", b"mine")


def test_a_repository_that_is_not_there_is_one_message(hub):
    with pytest.raises(RemoteError, match="Repository Not Found.*hf repo create"):
        HubTransport("hf://datasets/org/none").size("x")
