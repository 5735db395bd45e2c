"""The commands as a user types them."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from featcache.cli.app import app
from tests.cli.reference import TARGET, reference


@pytest.fixture
def run(cache):
    def call(*words, code=0):
        out = CliRunner().invoke(app, [*map(str, words), "--cache", str(cache.root)])
        assert out.exit_code == code, (out.output, out.stderr)
        return out

    return call


@pytest.fixture
def digits(run):
    run("extract", "--backbone", "pixels", "--dataset", "digits?rows=60")


def words(task, *more):
    return ("probe", "--task", task, "--backbone", "pixels", "--dataset", "digits-60", *more)


def test_extract_probe_ls_and_report_work_together(run, digits, tmp_path):
    again = run("extract", "--backbone", "pixels", "--dataset", "digits?rows=60")
    assert again.stdout.count("already there") == 2
    assert "top1" in run(*words("knn")).stdout
    assert "already stored" in run(*words("knn")).stdout
    run(*words("linear"))
    assert "2 features" in run("ls", "features").stdout
    assert "digits-60" in run("ls", "results", "*knn*").stdout
    assert "pixels" in run("report").stdout
    run("report", "--out", tmp_path / "board.md")
    assert (tmp_path / "board.md").read_text().startswith("| backbone | digits-60 knn top1 |")


def test_json_is_one_document_on_stdout(run, digits):
    features = json.loads(run("ls", "features", "--json").stdout)
    assert [one["split"] for one in features] == ["test", "train"]
    result = json.loads(run(*words("knn", "--json")).stdout)
    assert result["metrics"]["top1"] > 0.5
    board = json.loads(run("report", "--json").stdout)
    assert board["rows"][0]["backbone"] == "pixels"
    info = json.loads(run("cache", "info", features[0]["key"], "--json").stdout)
    assert info["sealed"]["rows"] == features[0]["rows"]


def test_cache_verify_exits_1_when_a_byte_is_wrong(run, digits, cache):
    assert "ok" in run("cache", "verify").stdout
    shard = next(cache.root.rglob("features/c/0/0"))
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    out = run("cache", "verify", code=1)
    assert "DAMAGED" in out.stdout
    assert "do not match their CRC-32C" in out.stdout


def test_cache_explain_prints_the_fields_that_differ(run, digits):
    keys = [one["key"] for one in json.loads(run("ls", "features", "--json").stdout)]
    out = run("cache", "explain", *keys)
    assert "dataset.split" in out.stdout
    assert "backbone" not in out.stdout
    assert "same key" in run("cache", "explain", keys[0], keys[0]).stdout


@pytest.mark.parametrize("what", ["backbones", "datasets", "tasks", "protocols"])
def test_ls_lists_names(run, what):
    assert len(json.loads(run("ls", what, "--json").stdout)) >= 4
    assert what in run("ls", what).stdout


def test_ls_of_a_pattern_lists_only_what_matches(run):
    names = [one["name"] for one in json.loads(run("ls", "backbones", "dino*", "--json").stdout)]
    assert {"dino_vits16", "dinov2_vitb14"} <= set(names)
    assert all(name.startswith("dino") for name in names)


def test_ls_lists_the_datasets_meant_for_a_task(run):
    rows = json.loads(run("ls", "datasets", "--task", "multilabel", "--json").stdout)
    detected = ["coco2017", "voc2007", "voc2012-detection"]
    assert [row["name"] for row in rows] == ["chexpert", "chexpert-frontal", *detected]
    only = json.loads(run("ls", "datasets", "voc*", "--task", "multilabel", "--json").stdout)
    assert [row["name"] for row in only] == ["voc2007", "voc2012-detection"]
    table = run("ls", "datasets", "caltech101*").stdout
    assert "8,677" in table  # of both splits


def test_numbers_stand_right_beside_empty_cells(run):
    lines = run("ls", "datasets", "c*").stdout.splitlines()
    line = {line.split()[0]: line for line in lines if line.strip()}
    assert "csv" in line  # has neither classes nor images
    end = line["cifar10"].index("60,000") + len("60,000")
    assert line["caltech101"].index("8,677") + len("8,677") == end


@pytest.mark.parametrize(
    ("call", "code", "message"),
    [
        (("extract", "--backbone", "pixls", "--dataset", "digits"), 2, "Did you mean 'pixels'"),
        (("extract", "--backbone", "pixels", "--dataset", "imagefolder:/none"), 1, "/none"),
        (("extract", "--dataset", "digits"), 2, "--backbone"),
        (("probe", "--task", "knn", "--backbone", "b", "--dataset", "d"), 1, "featcache extract"),
        (("ls", "backbone"), 2, "takes one of backbones"),
        (("ls", "backbones", "--task", "knn"), 2, "must come with `ls datasets`"),
        (("ls", "datasets", "--task", "knm"), 2, "for: copydetection"),
        (("cache", "info", "ffff"), 2, "none does"),
        (("cache", "verify", "ffff"), 2, "none does"),
        (("extract", "--backbone", "pixels", "--dataset", "digits", "--device", "gpu"), 2,
         "`device` must be usable"),
        (("extract", "--backbone", "pixels", "--dataset", "digits", "--precision", "fp8"), 2,
         "must be one of fp32"),
    ],
)  # fmt: skip
def test_misuse_is_one_message_on_stderr_without_a_traceback(run, call, code, message):
    out = run(*call, code=code)
    assert message in out.stderr
    assert "Traceback" not in out.output
    assert out.stdout == ""


def test_an_error_under_json_is_json_too(run):
    out = run("extract", "--backbone", "pixls", "--dataset", "digits", "--json", code=2)
    assert "Did you mean" in json.loads(out.stdout)["error"]


def test_debug_shows_the_traceback(cache):
    call = ["cache", "info", "ffff", "--debug", "--cache", str(cache.root)]
    out = CliRunner().invoke(app, call)
    assert out.exception is not None
    assert "none does" in str(out.exception)


def test_version_and_no_arguments(run):
    out = CliRunner().invoke(app, ["--version"])
    assert out.stdout.startswith("featcache ")
    assert "quickstart" in CliRunner().invoke(app, []).output


def test_the_package_runs_as_the_command():
    version = CliRunner().invoke(app, ["--version"]).stdout
    command = [sys.executable, "-m", "featcache", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == version


def test_the_reference_is_what_help_says():
    assert TARGET.read_text(encoding="utf-8") == reference()


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_ctrl_c_keeps_what_is_done_and_the_next_run_resumes(cache, tmp_path):
    (tmp_path / "slow_for_test.py").write_text(
        "import pathlib, time, torch\n"
        "class Slow(torch.nn.Module):\n"
        "    calls = 0\n"
        "    def forward(self, x):\n"
        "        self.calls += 1\n"
        "        stopped = pathlib.Path('stopped')\n"
        "        if self.calls == 20 and not stopped.exists():\n"
        "            stopped.touch()\n"
        "            time.sleep(60)\n"
        "        return x.mean((2, 3))\n"
        "def build(): return Slow()\n"
    )
    # a shell makes the jobs it starts with `&` ignore SIGINT, and so those that they start
    start = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from featcache.cli import main; main()"
    )
    command = [
        *(sys.executable, "-c", start, "extract"),
        *("--backbone", "slow_for_test:build", "--dataset", "digits?rows=300", "--split", "train"),
        *("--batch-size", "8", "--cache", str(cache.root)),
    ]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as run:
        while run.poll() is None and not (tmp_path / "stopped").exists():
            time.sleep(0.02)
        run.send_signal(signal.SIGINT)
        assert run.stderr is not None
        said = run.stderr.read()
    assert run.returncode == 130, said
    assert said.strip() == (
        "error: Interrupted; what is done is kept. Run the same command to resume."
    )
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "resuming" in again.stderr
    assert "300 rows" in again.stdout


def test_an_unfinished_set_is_not_called_damaged(run, digits, cache):
    path = cache.paths()[0]
    group = json.loads((path / "zarr.json").read_text())
    group["attributes"].update(sealed=None)
    (path / "zarr.json").write_text(json.dumps(group))
    assert "not complete" in run("cache", "verify").stdout
    found = json.loads(run("cache", "verify", "--json").stdout)
    assert found["unfinished"] == [str(path)]
    assert list(found["problems"].values()) == [[]]


def test_views_travel_and_caches_merge_by_commands(run, digits, cache, tmp_path):
    key = json.loads(run("ls", "features", "--json").stdout)[1]["key"]
    assert "int8" in run("cache", "derive", key, "pca:4|int8").stdout
    derived = json.loads(run("cache", "derive", key, "pca:4|int8", "--json").stdout)
    assert derived["bytes"] < derived["source_bytes"]
    shown = run(*words("knn", "--derive", "pca:4|int8")).stdout
    assert "against stored features" in shown
    told = json.loads(run(*words("knn", "--derive", "pca:4|int8", "--json")).stdout)
    assert told["was_stored"]
    target = tmp_path / "sets.tar"
    assert len(json.loads(run("cache", "export", target, "--json").stdout)["sets"]) == 3
    again = json.loads(run("cache", "import", target, "--json").stdout)
    assert {one["files"] for one in again} == {0}
    out = CliRunner().invoke(
        app, ["cache", "merge", str(cache.root), "--cache", str(tmp_path / "new"), "--json"]
    )
    assert [one["sealed"] for one in json.loads(out.stdout)] == [True] * 3
    assert "merged into another" in run("cache", "merge", cache.root, code=2).stderr


def test_a_remote_set_is_probed_in_place(run, digits, cache, tmp_path):
    (tmp_path / "remote").mkdir()
    assert "dataset digits-60: CC-BY-4.0" in run("cache", "push", tmp_path / "remote").stdout
    asked = words("retrieval", "--remote", str(tmp_path / "remote"), "--stream")
    out = CliRunner().invoke(app, [*asked, "--cache", str(tmp_path / "new"), "--json"])
    assert out.exit_code == 0, out.output
    here = json.loads(run(*words("retrieval", "--json")).stdout)
    assert json.loads(out.stdout)["id"] == here["id"]
    assert not (tmp_path / "new" / "features").exists()
