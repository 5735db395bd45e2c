"""The example plug-in, installed as a user installs it, and what a user brings without one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import featcache
from tests.verbs.test_verbs import paint

EXAMPLE = Path(__file__).parents[2] / "examples" / "featcache-plugin"


def run(*command, path, **given):
    environment = {**os.environ, "PYTHONPATH": str(path)}
    done = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, **given
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Install the example into a folder of its own, without the network."""
    target = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source")
    for file in [one for one in EXAMPLE.rglob("*") if one.is_file() and "egg-info" not in str(one)]:
        copied = source / file.relative_to(EXAMPLE)
        copied.parent.mkdir(parents=True, exist_ok=True)
        copied.write_bytes(file.read_bytes())
    wheel = "import sys, setuptools.build_meta as b; print(b.build_wheel(sys.argv[1]))"
    name = run("-c", wheel, str(target), path="", cwd=source).splitlines()[-1]
    unpack = "import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extractall(sys.argv[2])"
    run("-c", unpack, str(target / name), str(target), path="")
    return target


def cli(installed, *arguments):
    code = "from featcache.cli import main; main()"
    return json.loads(run("-c", code, *arguments, "--json", path=installed))


def test_an_installed_plug_in_is_used_like_what_is_built_in(installed, cache):
    assert [one["name"] for one in cli(installed, "ls", "backbones", "edges")] == ["edges"]
    assert [one["name"] for one in cli(installed, "ls", "datasets", "shapes")] == ["shapes"]
    names = ["--backbone", "edges", "--dataset", "shapes", "--cache", str(cache.root)]
    done = cli(installed, "extract", *names)
    assert [one["rows"] for one in done] == [60, 30]
    result = cli(installed, "probe", "--protocol", "shapes-knn@1", *names)
    assert result["metrics"]["top1"] > 0.6
    assert result["options"]["k"] == [1, 3]


def test_its_own_tests_hold_it_to_the_contracts(installed):
    command = ("-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLE / "tests"))
    assert "18 passed" in run(*command, path=installed, cwd=installed)


def test_a_factory_of_ones_own_goes_through_extract_and_probe(tmp_path, cache, monkeypatch):
    (tmp_path / "ownnet.py").write_text(
        "import torch\n\n\n"
        "def build():\n"
        "    return torch.nn.Sequential(torch.nn.AvgPool2d(56), torch.nn.Flatten())\n"
    )
    monkeypatch.chdir(tmp_path)
    source = f"imagefolder:{paint(tmp_path / 'photos')}"
    given = {"backbone": "ownnet:build", "cache": cache.root}
    featcache.extract(dataset=source, **given)
    result, _ = featcache.probe(dataset=source, task="knn", **given)
    assert result.score == 1.0


def test_a_checkpoint_of_a_known_architecture_goes_through_extract_and_probe(tmp_path, cache):
    import timm
    from safetensors.torch import save_file

    file = tmp_path / "mine.safetensors"
    save_file(timm.create_model("test_convnext", num_classes=0).state_dict(), file)
    table = tmp_path / "photos.csv"
    photos = paint(tmp_path / "photos")
    rows = [f"{one.relative_to(tmp_path)},{one.parent.name}" for one in photos.rglob("*.png")]
    table.write_text("\n".join(["path,label", *rows]))
    request = featcache.BackboneRequest(name="timm:test_convnext", checkpoint=file)
    featcache.extract(backbone=request, dataset=f"csv:{table}", cache=cache.root)
    result, _ = featcache.probe(
        backbone="timm:test_convnext", dataset=f"csv:{table}", task="knn", cache=cache.root
    )
    assert result.score > 0.5
