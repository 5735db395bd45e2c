"""A store that fails in every way a store can: one message each, and nothing half done is seen."""

import re
import shutil
import time
import uuid
from dataclasses import dataclass

import pytest
from typer.testing import CliRunner

from featcache.cli.app import app
from featcache.errors import CorruptError, FeatcacheError, RemoteError
from featcache.remotes import objects
from featcache.remotes.objects import ObjectTransport
from featcache.remotes.pointer import list_pointers, pointer_name
from featcache.store import layout
from featcache.store.cache import Cache
from featcache.store.feature_set import FeatureSet
from featcache.store.verify import verify
from featcache.verbs.share import Sources, list_remote, open_remote, pull_sets, push_sets
from tests.fakes import fake_split, fill
from tests.remotes.faulty_s3 import BUCKET, cut, drip, drop, drop_answer, faulty_s3, late, refuse
from tests.remotes.servers import ACCESS, SECRET

TOKEN = "token-of-the-session"
BUSY = [
    ("500 Internal Server Error", "InternalError"),
    ("503 Service Unavailable", "InternalError"),
    ("503 Slow Down", "SlowDown"),
]
QUICK_S = 15
"""More than any failure here takes on a busy machine, less than any default limit."""


@pytest.fixture(scope="module")
def server():
    with faulty_s3() as one:
        yield one


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A cache with one sealed set of several shards."""
    cache = Cache(tmp_path_factory.mktemp("source"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "CHUNK_BYTES", 64)
        fill(cache, fake_split(150, broken=[3]))
    return cache


@pytest.fixture(scope="module")
def present(tmp_path_factory):
    """A cache with another set."""
    cache = Cache(tmp_path_factory.mktemp("present"))
    fill(cache, fake_split(40, name="test"))
    return cache


@dataclass
class World:
    """One who has a set, one who has another, and the bucket between them."""

    url: str
    source: Cache
    other: Cache

    @property
    def one(self):
        return FeatureSet(self.source.paths()[0])

    def push(self):
        return push_sets(self.url, cache=self.source.root)

    def pull(self):
        return pull_sets(self.url, cache=self.other.root)

    def pointers(self):
        return list_pointers(ObjectTransport(self.url))

    def succeeds(self):
        """Push and pull, and check what arrives."""
        (sent,), (got,) = self.push(), self.pull()
        assert (got.key, got.digest) == (sent.key, sent.digest) == (self.one.key, self.one.digest)
        assert FeatureSet(got.path).digest == self.one.digest
        assert verify(got.path) == []
        assert not [path for path in (self.other.root / "incoming").rglob("*") if path.is_file()]


def set_environment(patch, server):
    for name, value in (
        ("AWS_ACCESS_KEY_ID", ACCESS),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_SESSION_TOKEN", TOKEN),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL", server.endpoint),
    ):
        patch.setenv(name, value)


@pytest.fixture
def world(server, source, present, tmp_path, monkeypatch):
    set_environment(monkeypatch, server)
    monkeypatch.setattr(objects, "_RETRIES", 1)
    other = Cache(tmp_path / "other")
    shutil.copytree(present.root, other.root)  # what was there before must stay as it is
    yield World(f"s3://{BUCKET}/{uuid.uuid4().hex}", source, other)
    server.heal()


@pytest.fixture(scope="module")
def requests(server, source, tmp_path_factory):
    """How many requests a push and a pull without faults take."""
    world = World(f"s3://{BUCKET}/counted", source, Cache(tmp_path_factory.mktemp("counted")))
    counted = {}
    with pytest.MonkeyPatch.context() as patch:
        set_environment(patch, server)
        for name, act in (("push", world.push), ("pull", world.pull)):
            server.heal()
            act()
            counted[name] = server.requests
    return counted


def chain(error):
    """Yield an error and everything behind it."""
    while error is not None:
        yield error
        assert error.__cause__ in (None, error.__context__)
        error = error.__context__


def fails(world, act, message=""):
    """Check that a command ends in one message that names the remote, and that nothing is seen."""
    before = world.other.paths()
    began = time.monotonic()
    with pytest.raises((RemoteError, CorruptError)) as caught:
        act()
    assert time.monotonic() - began < QUICK_S
    text = str(caught.value)
    assert re.search(message, text), text
    assert world.url in text
    assert "\n" not in text
    assert world.other.paths() == before
    assert all(verify(path) == [] for path in before)
    ours = [one for one in chain(caught.value) if isinstance(one, FeatcacheError)]
    assert len(ours) == 1
    said = " ".join(str(one) + repr(one) for one in chain(caught.value))
    for secret in (SECRET, ACCESS, TOKEN, "AWS4-HMAC"):
        assert secret not in said, secret


@pytest.mark.parametrize(("status", "code"), BUSY)
def test_a_few_server_errors_are_outlived(world, server, monkeypatch, status, code):
    monkeypatch.setattr(objects, "_RETRIES", 5)
    server.inject(refuse(status, code), times=2)
    server.inject(refuse(status, code), "PUT", after=3, times=2)
    server.inject(refuse(status, code), "PUT", pointer_name(world.one.spec), times=1)
    world.push()
    server.heal()
    server.inject(refuse(status, code), "GET", "list-type", times=1)
    server.inject(refuse(status, code), "GET", ".zarr/", after=2, times=2)
    world.succeeds()


@pytest.mark.parametrize(("status", "code"), BUSY)
def test_server_errors_without_end_are_one_message(world, server, status, code):
    busy = "busy: try again later" if status.startswith("503") else "then try again"
    server.inject(refuse(status, code), "PUT")
    fails(world, world.push, f"Could not write.*{code}.*{busy}")
    server.heal()
    assert world.pointers() == []
    world.push()
    server.inject(refuse(status, code), "GET", ".zarr/features/c/")
    fails(world, world.pull, f"Could not read.*{code}.*{busy}")
    server.heal()
    world.succeeds()


def test_dropped_connections_are_outlived(world, server, monkeypatch):
    monkeypatch.setattr(objects, "_RETRIES", 5)
    server.inject(drop, "PUT", times=2)
    server.inject(drop_answer, "PUT", ".zarr/", after=4, times=2)
    world.push()
    server.heal()
    server.inject(drop, "GET", times=1)
    server.inject(cut, "GET", ".zarr/features/c/", times=2)
    server.inject(drop, "GET", ".zarr/", after=6, times=1)
    world.succeeds()


def test_connections_that_always_drop_are_one_message(world, server):
    for act in (drop, drop_answer):
        server.inject(act, "PUT")
        fails(world, world.push, "Check the address and the network, then try again")
        server.heal()
        assert world.pointers() == []
    world.push()
    for act in (drop, cut):
        server.inject(act, "GET", ".zarr/features/c/")
        fails(world, world.pull, "Check the address and the network, then try again")
        server.heal()
    world.succeeds()


def test_a_pointer_whose_writing_is_not_confirmed_is_written_all_the_same(world, server):
    server.inject(drop_answer, "PUT", pointer_name(world.one.spec), times=1)
    world.push()
    assert world.pointers() == [pointer_name(world.one.spec)]
    world.succeeds()


def test_a_slow_answer_is_waited_for_as_long_as_it_comes(world, server, monkeypatch):
    world.push()
    monkeypatch.setattr(objects, "_SILENCE_S", 1.0)
    server.inject(drip(pieces=16, pause_s=0.1), "GET", ".zarr/labels/c/")
    began = time.monotonic()
    world.succeeds()
    assert time.monotonic() - began > 1.5


def test_an_upload_may_take_longer_than_an_answer_may_be_silent(world, server, monkeypatch):
    monkeypatch.setattr(objects, "_SILENCE_S", 0.5)
    server.inject(late(0.8), "PUT", ".zarr/labels/c/")
    world.push()
    assert server.struck == 1  # not sent again


@pytest.mark.parametrize("part", [".zarr/features/c/", "list-type"])
def test_an_answer_that_stalls_is_one_message_in_time(world, server, monkeypatch, part):
    world.push()
    monkeypatch.setattr(objects, "_SILENCE_S", 0.3)
    server.inject(server.stall, "GET", part)
    fails(world, world.pull, "Could not (read|list).*then try again")
    server.heal()
    monkeypatch.setattr(objects, "_SILENCE_S", 30)
    world.succeeds()


@pytest.mark.parametrize("method", ["HEAD", "PUT"])
def test_a_server_that_never_answers_is_one_message_in_time(world, server, monkeypatch, method):
    monkeypatch.setattr(objects, "_SILENCE_S", 0.3)
    monkeypatch.setattr(objects, "_REQUEST_S", 0.3)
    server.inject(server.silent, method)
    fails(world, world.push, "then try again")
    server.heal()
    monkeypatch.setattr(objects, "_SILENCE_S", 30)
    monkeypatch.setattr(objects, "_REQUEST_S", 60)
    assert world.pointers() == []
    world.succeeds()


DENIED = "Check the credentials"


@pytest.mark.parametrize(
    ("status", "code", "advice"),
    [
        ("400 Bad Request", "ExpiredToken", DENIED),
        ("403 Forbidden", "ExpiredToken", DENIED),
        ("403 Forbidden", "RequestTimeTooSkewed", "Set this machine's clock"),
        ("404 Not Found", "NoSuchBucket", "Check the bucket's name"),
    ],
)
def test_a_refusal_says_what_to_do_and_no_secret(world, server, status, code, advice):
    world.push()
    for part in ("", "list-type", ".zarr/features/c/"):
        server.inject(refuse(status, code), "", part)
        fails(world, world.pull, f"{code}: said by the test. {advice}")
        server.heal()
    world.url += "-new"
    for method, part in (("", ""), ("PUT", pointer_name(world.one.spec))):
        server.inject(refuse(status, code), method, part)
        fails(world, world.push, f"{code}: said by the test. {advice}")
        server.heal()
        assert world.pointers() == []
    world.succeeds()


def test_a_bucket_that_is_not_there_is_never_an_empty_one(world):
    world.url = f"s3://{BUCKET}-of-nobody/x"
    spec, key = world.one.spec, world.one.key
    sources = Sources([world.url], note=pytest.fail)
    for act in (
        world.push,
        world.pull,
        lambda: list_remote(world.url),
        lambda: open_remote(world.url, key, cache=world.other.root),
        lambda: sources.fetch(spec, world.other),
    ):
        fails(world, act, "NoSuchBucket.*Check the bucket's name")


@pytest.mark.parametrize("act", [refuse("503 Slow Down", "SlowDown"), cut, drop])
def test_a_listing_that_fails_on_a_later_page_is_no_shorter_listing(
    world, server, monkeypatch, act
):
    world.push()
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "5")
    assert len(world.pointers()) == 1  # over several pages
    server.heal()
    server.inject(act, "GET", "continuation-token", after=1)
    fails(world, world.pull, "Could not list")
    assert server.struck
    fails(world, lambda: list_remote(world.url), "Could not list")
    server.heal()
    world.succeeds()


BROKEN = refuse("500 Internal Server Error", "InternalError")


@pytest.mark.parametrize("part", range(7))
def test_a_push_that_is_cut_off_anywhere_shows_nothing_and_goes_on(
    world, server, requests, monkeypatch, part
):
    monkeypatch.setattr(objects, "_RETRIES", 0)
    act = [drop_answer, drop, BROKEN][part % 3]
    server.inject(act, after=part * (requests["push"] - 1) // 6)  # the last part: the last request
    fails(world, world.push)
    assert server.struck
    server.heal()
    if world.pointers():  # the last answer was lost, and all was done
        assert (act, part) == (drop_answer, 6)
    world.succeeds()


@pytest.mark.parametrize("part", range(7))
def test_a_pull_that_is_cut_off_anywhere_shows_nothing_and_goes_on(
    world, server, requests, monkeypatch, part
):
    world.push()
    monkeypatch.setattr(objects, "_RETRIES", 0)
    server.heal()
    server.inject([cut, drop, BROKEN][part % 3], after=part * (requests["pull"] - 1) // 6)
    fails(world, world.pull)
    assert server.struck
    server.heal()
    world.succeeds()


def test_a_set_that_is_read_at_the_store_gives_no_row_of_a_broken_answer(world, server):
    world.push()
    far = open_remote(world.url, world.one.key, cache=world.other.root)
    server.inject(cut, "GET", ".zarr/features/c/")
    fails(world, far.features, "Could not read")
    server.heal()
    assert (far.features() == world.one.features()).all()


@pytest.mark.parametrize(
    ("act", "method", "part"),
    [
        (refuse("500 Internal Server Error", "InternalError"), "POST", "?uploads"),
        (drop, "PUT", "partNumber=2"),
        (refuse("500 Internal Server Error", "InternalError"), "POST", "uploadId"),
        (refuse("200 OK", "InternalError"), "POST", "uploadId"),  # S3 answers before it is done
    ],
)
def test_an_upload_in_parts_is_whole_or_absent(
    world, server, monkeypatch, tmp_path, act, method, part
):
    monkeypatch.setattr(objects, "_PART_BYTES", 5 << 20)
    (tmp_path / "large").write_bytes(bytes(11 << 20))
    transport = ObjectTransport(world.url)
    server.inject(act, method, part)
    fails(world, lambda: transport.put("large", tmp_path / "large"), "Could not write")
    assert server.struck
    server.heal()
    assert transport.size("large") is None
    server.inject(act, method, part, times=1)
    transport.put("large", tmp_path / "large")
    assert server.struck
    assert transport.size("large") == 11 << 20


def test_the_command_line_says_one_line_and_exits_with_one(world, server):
    server.inject(refuse("403 Forbidden", "ExpiredToken"))
    command = ["cache", "push", world.url, "--cache", str(world.source.root)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: Could not read features/")
    assert DENIED in line


def test_a_signature_in_an_address_is_not_shown(server, monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "team")
    monkeypatch.setenv("AZURE_STORAGE_SAS_KEY", "sv=2024-01-01&sp=rl&sig=c2VjcmV0")
    transport = ObjectTransport("az://team/x", {"endpoint": server.endpoint})
    server.inject(refuse("403 Forbidden", "AuthenticationFailed"))
    with pytest.raises(RemoteError, match=DENIED) as caught:
        transport.size("x")
    assert server.struck
    server.heal()
    assert not [one for one in chain(caught.value) if "c2VjcmV0" in f"{one}{one!r}"]
