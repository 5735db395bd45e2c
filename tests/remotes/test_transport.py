"""Every remote keeps the same promises."""

import threading

import pytest

from featcache.errors import OptionError, RemoteError
from featcache.remotes.config import Remote
from featcache.remotes.objects import ObjectTransport
from featcache.remotes.transport import DirectoryTransport, read_small
from tests.remotes.servers import free_port, web_server


def test_what_is_put_is_read_back_whole_and_in_parts(transport, tmp_path):
    source = tmp_path / "file"
    data = bytes(range(256)) * 40_000  # 10 MB: more than one block
    source.write_bytes(data)
    assert transport.size("a/b/file") is None
    transport.put("a/b/file", source)
    assert transport.size("a/b/file") == len(data)
    assert b"".join(bytes(block) for block in transport.blocks("a/b/file")) == data
    assert transport.read("a/b/file", 1000, 1300) == data[1000:1300]
    assert list(transport.names("a")) == ["a/b/file"]
    assert list(transport.names("other")) == []


def test_a_name_is_given_once(transport):
    assert transport.create("x/pointer.json", b"first")
    assert not transport.create("x/pointer.json", b"second")
    assert read_small(transport, "x/pointer.json", 100) == b"first"
    assert read_small(transport, "x/none.json", 100) is None


def test_of_many_that_create_at_once_one_wins(transport):
    won = []

    def create(number):
        if transport.create("race.json", str(number).encode()):
            won.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert read_small(transport, "race.json", 10) == str(won[0]).encode()


def test_what_is_absent_or_too_large_is_one_message(transport):
    with pytest.raises(RemoteError):
        transport.read("none", 0, 4)
    with pytest.raises(RemoteError):
        list(transport.blocks("none"))
    transport.create("large", b"x" * 200)
    with pytest.raises(RemoteError, match="must have at most 100 bytes; it has 200"):
        read_small(transport, "large", 100)


def test_a_web_server_is_read_and_never_written(tmp_path):
    (tmp_path / "file").write_bytes(bytes(range(100)))
    with web_server(tmp_path) as url:
        web = ObjectTransport(url)
        assert web.size("file") == 100
        assert web.size("none") is None
        assert web.read("file", 10, 20) == bytes(range(10, 20))
        assert b"".join(bytes(block) for block in web.blocks("file")) == bytes(range(100))
        with pytest.raises(RemoteError, match="needs a remote that can be written.*over HTTP"):
            web.create("new", b"")
        with pytest.raises(RemoteError, match="cannot list|can list.*featcache cache index"):
            list(web.names(""))


def test_no_credentials_wrong_ones_and_no_network_are_one_message_each(bucket, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-wrong-secret")
    with pytest.raises(RemoteError, match="Check the credentials") as refused:
        ObjectTransport(bucket).size("x")
    assert "a-wrong-secret" not in str(refused.value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(RemoteError, match="Check the address and the network"):
        ObjectTransport(bucket).size("x")


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("s3://user:pass@bucket/x", {}, "must not hold credentials"),
        ("s3://bucket/x", {"secret_access_key": "abc"}, "must not hold credentials"),
        ("ftp://host/x", {}, "must be a directory, a .tar file or a URL"),
        ("s3://bucket/x", {"no_such_option": "1"}, "check the remote's options"),
        ("hf://datasets/only", {}, "must be hf://datasets/org/name"),
    ],
)
def test_a_remote_that_cannot_be_is_refused(url, options, message):
    with pytest.raises(OptionError, match=message) as error:
        Remote(name="r", url=url, options=options).open()
    assert "pass" not in str(error.value).replace("passed", "")
    assert "abc" not in str(error.value)


def test_a_directory_must_exist(tmp_path):
    with pytest.raises(RemoteError, match="must exist.*mount it"):
        DirectoryTransport(tmp_path / "none")
