"""The page on sharing does what it says: its commands run, in order, against real servers."""

import re
import shlex
from pathlib import Path

import boto3
import huggingface_hub
import pytest
from typer.testing import CliRunner

from featcache.cli.app import app
from tests.remotes.hub import FakeHub

PAGE = Path(__file__).parents[2] / "docs" / "sharing.md"


@pytest.fixture
def hub(monkeypatch):
    hub = FakeHub()
    hub.files["org/features"] = {}
    monkeypatch.setattr(huggingface_hub, "HfApi", hub.client)
    return hub


def test_the_commands_on_the_page_run(bucket, hub, tmp_path, monkeypatch):
    prefix = bucket.removeprefix("s3://team/")  # so that no other test's sets are listed
    page = PAGE.read_text(encoding="utf-8").replace("s3://team/features", f"s3://team/{prefix}")
    assert any(one["Name"] == "team" for one in boto3.client("s3").list_buckets()["Buckets"])
    (tmp_path / "config.toml").write_text(re.search(r"```toml\n(.*?)```", page, re.S)[1])
    for site in ("a", "b"):
        page = page.replace(f"/mnt/site-{site}/cache", str(tmp_path / "first"))
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```console\n(.*?)```", page, re.S)
    said = []
    for number, block in enumerate(blocks):
        machine = "second" if number == 1 else "first"
        machine = "third" if "--stream" in block or "cache merge" in block else machine
        monkeypatch.setenv("FEATCACHE_CACHE", str(tmp_path / machine))
        for line in block.splitlines():
            words = shlex.split(line.removeprefix("$ "))
            if words[0] != "featcache":
                continue
            out = CliRunner().invoke(app, words[1:])
            assert out.exit_code == 0, (line, out.output)
            said.append(out.output)
    assert len(said) == 15
    assert "embedded 100" in said[0]
    assert "pulled" in said[3]
    assert "already there" in said[4]
    assert "embedded" not in said[4]
    streamed, imported, merged = said[10], said[12], said[14]
    assert "reading pixels at team" in streamed
    assert "already there" in imported
    assert "complete" in merged
