"""Remotes of each kind: a directory, a bucket on a real S3 server."""

import uuid

import pytest

from featcache.remotes.objects import ObjectTransport
from featcache.remotes.transport import DirectoryTransport
from tests.fakes import fake_split, fill
from tests.remotes.servers import ACCESS, SECRET, s3_server


@pytest.fixture(autouse=True)
def _own_config(tmp_path, monkeypatch):
    monkeypatch.setenv("FEATCACHE_CONFIG", str(tmp_path / "config.toml"))


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory):
    with s3_server(tmp_path_factory.mktemp("s3")) as endpoint:
        yield endpoint


@pytest.fixture
def bucket(s3_endpoint, monkeypatch):
    """URL of an empty prefix of a bucket; the environment holds its credentials."""
    import boto3

    for name, value in (
        ("AWS_ACCESS_KEY_ID", ACCESS),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_REGION", "us-east-1"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL", s3_endpoint),
    ):
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    if not client.list_buckets()["Buckets"]:
        client.create_bucket(Bucket="team")
    return f"s3://team/{uuid.uuid4().hex}"


@pytest.fixture(params=["directory", "s3"])
def transport(request, tmp_path):
    if request.param == "s3":
        return ObjectTransport(request.getfixturevalue("bucket"))
    (tmp_path / "remote").mkdir()
    return DirectoryTransport(tmp_path / "remote")


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "remote").mkdir()
    return DirectoryTransport(tmp_path / "remote")


@pytest.fixture
def one(cache, small_chunks):
    """A sealed set of several shards, one row of it unreadable."""
    return fill(cache, fake_split(700, broken=[3]))[0]
