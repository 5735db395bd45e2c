"""`featcache head`, `ls heads` and `probe --head` as a user types them."""

import json

import pytest
from typer.testing import CliRunner

from featcache.cli.app import app
from tests.backbones.clip_models import registered


@pytest.fixture
def run(cache):
    def call(*words, code=0):
        out = CliRunner().invoke(app, [*map(str, words), "--cache", str(cache.root)])
        assert out.exit_code == code, (out.output, out.stderr)
        return out

    return call


def test_a_native_head_is_made_and_listed(run):
    made = json.loads(run("head", "native", "--backbone", "efficientnet_lite0", "--json").stdout)
    assert (made["kind"], made["tap"], made["classes"]) == ("native", "pooled", 1000)
    rows = json.loads(run("ls", "heads", "--json").stdout)
    assert [made["key"].startswith(one["key"]) for one in rows] == [True]
    shown = run("ls", "heads", "native/*").stdout
    assert "1 head" in shown
    assert "imagenet-1k" in shown
    assert "0 heads" in run("ls", "heads", "text/*").stdout


def test_a_backbone_without_classifier_is_refused(run):
    out = run("head", "native", "--backbone", "pixels", code=1)
    assert "must be one linear layer" in out.stderr


def test_a_text_head_is_made_and_probed(run, tmp_path):
    pytest.importorskip("open_clip")
    (tmp_path / "configs").mkdir()
    with registered(tmp_path / "configs"):
        name = "random:open_clip:tiny-vit"
        run("extract", "--backbone", name, "--dataset", "digits?rows=40", "--split", "test")
        told = run("head", "text", "--backbone", name, "--dataset", "digits-40")
        assert "text head" in told.stdout
        assert "12 dimensions, 10 classes" in told.stdout
        more = ("--template", "the digit {}.", "--template", "a {}", "--json")
        made = json.loads(
            run("head", "text", "--backbone", name, "--dataset", "digits-40", *more).stdout
        )
        assert made["origin"]["templates"] == ["the digit {}.", "a {}"]
        asked = ("probe", "--task", "head", "--backbone", name, "--dataset", "digits-40")
        own = json.loads(run(*asked, "--head", "text", "--json").stdout)
        assert own["inputs"]["head"]["key"] != made["key"]
        result = json.loads(run(*asked, "--head", made["key"][:12], "--json").stdout)
        assert result["inputs"]["head"]["key"] == made["key"]
        assert {"top1", "top5", "top1_unmasked", "mean_per_class"} <= result["metrics"].keys()
        bad = run(
            "head", "text", "--backbone", name, "--dataset", "digits-40", "--template", "x", code=2
        )
        assert "must have one {} for the class name" in bad.stderr


def test_a_task_without_head_refuses_one(run):
    run("extract", "--backbone", "pixels", "--dataset", "digits?rows=40")
    words = ("probe", "--task", "knn", "--backbone", "pixels", "--dataset", "digits-40")
    assert "takes no --head" in run(*words, "--head", "native", code=2).stderr
