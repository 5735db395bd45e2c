"""Suites: what they say, what they cost, and that a run does only what is missing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import timm
import yaml
from safetensors.torch import save_file
from typer.testing import CliRunner

import featcache
from featcache.backbones import factory
from featcache.backbones.catalog import BACKBONES
from featcache.cli.app import app
from featcache.datasets.catalog import DATASETS
from featcache.errors import OptionError, UnknownNameError
from featcache.extraction.options import Options
from featcache.verbs import run as running
from featcache.verbs.networks import NetworkRequest, Networks
from featcache.verbs.plan import plan
from featcache.verbs.run import Ledger, run
from featcache.verbs.suite import load_suite, shipped
from tests.verbs.test_verbs import paint


@pytest.fixture
def photos(tmp_path):
    return f"imagefolder:{paint(tmp_path / 'photos')}"


@pytest.fixture
def suite(tmp_path, photos):
    """Write a suite of one's own and return its path."""

    def write(**given):
        cells = [{"datasets": [photos], "tasks": ["knn", "centroid"]}]
        data = {"backbones": ["pixels", "random:test_vit"], "cells": cells, **given}
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(data))
        return str(path)

    return write


@pytest.fixture
def extractions(monkeypatch):
    """Return the list of (backbone, dataset) that a run extracts."""
    calls = []
    extract = running.extract

    def spy(*, backbone, dataset, **given):
        done = extract(backbone=backbone, dataset=dataset, **given)
        calls.append((backbone.name, dataset, sum(one.computed for one in done)))
        return done

    monkeypatch.setattr(running, "extract", spy)
    return calls


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_suite_resolves(name):
    found = load_suite(name)
    assert found.cells
    assert found.description
    assert found.citation
    assert len({cell.id for cell in found.cells}) == len(found.cells)


def test_the_study_is_run_with_every_backbone_that_it_used():
    backbones = {cell.backbone for cell in load_suite("bob").cells}
    frozen = {"classification", "retrieval", "ood"}
    used = [n for n in BACKBONES.names() if frozen & set(BACKBONES.get(n).facts.get("bob", []))]
    assert set(used) <= backbones
    assert len(used) > 40


def test_a_price_counts_each_set_once_and_needs_no_files(cache):
    planned = plan("bob-classification", cache=cache.root, only=["resnet50.a1_in1k/*"])
    names = {step.cell.dataset for step in planned.steps}
    images = sum(sum(DATASETS.get(name).facts["rows"].values()) for name in names)
    mini = DATASETS.get("inat2021").facts["rows"]["mini"]  # a split that the suite does not take
    price = planned.price()
    assert price.images == images - mini
    assert price.extractions == len(names)
    assert price.runs == len(planned.steps) == 22
    assert price.unknown == ()
    gflops = BACKBONES.get("resnet50.a1_in1k").facts["gflops"]
    assert price.seconds["cpu-2-cores"] == pytest.approx(price.images * gflops / 57)


def test_a_suite_is_run_and_each_set_extracted_once(suite, cache, extractions, photos):
    ended = run(suite(), cache=cache.root)
    assert [one.status for one in ended] == ["done"] * 4
    assert all(one.result.score == 1.0 for one in ended if one.cell.backbone == "pixels")
    assert extractions == [("pixels", photos, 36), ("random:test_vit", photos, 36)]


def test_a_second_run_computes_nothing_and_opens_no_image(suite, cache, photos, tmp_path):
    first = run(suite(), cache=cache.root)
    shutil.rmtree(tmp_path / "photos")
    again = run(suite(), cache=cache.root)
    assert [one.status for one in again] == ["stored"] * 4
    assert [one.result.id for one in again] == [one.result.id for one in first]


def test_cells_that_fail_are_kept_with_their_reason_and_the_rest_goes_on(
    suite, cache, tmp_path, extractions, photos
):
    missing = f"imagefolder:{tmp_path / 'later'}"
    cells = [{"datasets": [photos, missing], "tasks": ["knn", "centroid"]}]
    path = suite(backbones=["pixels"], cells=cells)
    ended = run(path, cache=cache.root)
    assert [one.status for one in ended] == ["done", "done", "failed", "failed"]
    assert "later" in ended[2].reason
    assert "could not be extracted" in ended[3].reason  # it is not tried twice
    failures = Ledger(cache.root, plan(path, cache=cache.root)).failures()
    assert failures == {one.cell.name: one.reason for one in ended[2:]}
    paint(tmp_path / "later", seed=3)
    again = run(path, cache=cache.root)
    assert [one.status for one in again] == ["stored", "stored", "done", "done"]
    assert [dataset for _, dataset, _ in extractions] == [photos, missing]
    assert Ledger(cache.root, plan(path, cache=cache.root)).failures() == {}


def test_a_strangers_exception_fails_its_cell_alone(suite, cache, monkeypatch):
    probe = running.probe

    def broken(*, protocol, **given):
        if protocol == "knn@1":
            raise RuntimeError("out of luck")
        return probe(protocol=protocol, **given)

    monkeypatch.setattr(running, "probe", broken)
    ended = run(suite(backbones=["pixels"]), cache=cache.root)
    assert [(one.status, one.reason) for one in ended] == [
        ("failed", "RuntimeError: out of luck"),
        ("done", ""),
    ]


def test_a_classifier_fitted_on_one_set_is_applied_to_others(suite, cache, tmp_path, photos):
    shifted = f"imagefolder:{paint(tmp_path / 'shifted', 4, seed=5)}"
    head = {"dataset": photos, "task": "linear"}
    cells = [{"datasets": [shifted], "tasks": ["head"], "head": head}]
    path = suite(backbones=["pixels"], cells=cells)
    fitted, applied = run(path, cache=cache.root)
    assert (fitted.cell.dataset, fitted.cell.protocol) == (photos, "linear@1")
    assert applied.result.score == 1.0
    used = applied.result.record["inputs"]["head"]["key"]
    assert used == fitted.result.record["details"]["head_key"]
    shutil.rmtree(cache.root / "results" / "shifted")
    assert [one.status for one in run(path, cache=cache.root)] == ["stored", "done"]


def test_a_head_whose_fit_failed_is_not_applied(suite, cache, tmp_path, photos):
    head = {"dataset": f"imagefolder:{tmp_path / 'nowhere'}", "task": "linear"}
    path = suite(cells=[{"datasets": [photos], "tasks": ["head"], "head": head}])
    assert {one.status for one in run(path, cache=cache.root)} == {"failed"}


def test_only_some_cells_are_run(suite, cache):
    path = suite()
    names = [one.cell.name for one in run(path, cache=cache.root, only=["pixels/*/knn@1"])]
    assert names == ["pixels/photos/knn@1"]
    assert len(plan(path, cache=cache.root, only=["random:*", "pixels/photos"]).steps) == 4
    with pytest.raises(OptionError, match=r"must match a cell of mine; nope matches none of 4"):
        plan(path, cache=cache.root, only=["nope"])


def test_a_rehearsal_says_so_in_every_name(suite, cache, photos):
    ended = run(suite(), cache=cache.root, limit=9, twins=True)
    assert {one.cell.name for one in ended} == {
        f"{backbone}/photos-9/{protocol}"
        for backbone in ("pixels", "random:test_vit")
        for protocol in ("knn@1", "centroid@1")
    }
    assert {one.result.record["dataset"] for one in ended} == {"photos-9"}
    limited = plan("quickstart", cache=cache.root, limit=60).steps
    assert {step.cell.dataset for step in limited} == {"digits?rows=60", "textures?rows=60"}
    recorded = plan("bob", cache=cache.root, limit=64, twins=True, only=["*resnet101.a1h*"]).steps
    assert {step.cell.backbone for step in recorded} == {"random:resnet101.a1h_in1k"}
    assert all("?part&rows=64" in step.cell.dataset for step in recorded)
    with pytest.raises(OptionError, match="at least 1 row; got 0"):
        plan("quickstart", limit=0)


def test_a_rehearsal_may_have_fewer_train_rows_than_the_protocol_asks_for(suite, cache, photos):
    cells = [{"datasets": [photos], "tasks": ["vtab1k-linear@1"]}]
    path = suite(backbones=["random:test_vit"], cells=cells)
    (refused,) = run(path, cache=cache.root)
    assert "must have 1000 train rows" in refused.reason
    (ended,) = run(path, cache=cache.root, limit=30)
    assert (ended.status, ended.result.record["dataset"]) == ("done", "photos-30")
    (planned,) = run(plan(path, cache=cache.root, limit=30), cache=cache.root)
    assert planned.status == "stored"


def test_another_order_has_the_same_cells(cache):
    first, second = (plan("bob-ood", cache=cache.root, shuffle_seed=seed) for seed in (None, 3))
    assert [s.cell for s in first.steps] != [s.cell for s in second.steps]
    assert {s.cell.id for s in first.steps} == {s.cell.id for s in second.steps}
    assert first.id == second.id
    assert second == plan("bob-ood", cache=cache.root, shuffle_seed=3)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"backbone": ["pixels"]}, OptionError, r"mine.yaml: a suite must have.*got 'backbone'"),
        ({"backbones": []}, OptionError, r"`backbones` must be a list of distinct texts; got \[\]"),
        ({"backbones": ["pixels", "pixels"]}, OptionError, "distinct texts"),
        ({"backbones": ["pixel"]}, UnknownNameError, "Did you mean 'pixels'"),
        ({"backbones": ["zzz*"]}, UnknownNameError, "'zzz\\*' matches none"),
        ({"seeds": [-1]}, OptionError, "`seeds` must be whole numbers of at least 0"),
        ({"cells": []}, OptionError, "`cells` must be a list, at least one"),
        ({"cells": ["x"]}, OptionError, "a cell must be a mapping"),
        ({"cells": [{"datasets": ["digits"]}]}, OptionError, "got no 'tasks'"),
        ({"cells": [{"datasets": ["digit"], "tasks": ["knn"]}]}, UnknownNameError, "'digits'"),
        ({"cells": [{"datasets": ["digits"], "tasks": ["kn"]}]}, OptionError, "`task` must be"),
        (
            {"cells": [{"datasets": ["digits"], "tasks": ["knn", "knn@1"]}]},
            OptionError,
            "pixels/digits/knn@1 twice",
        ),
        (
            {"cells": [{"datasets": ["digits"], "tasks": ["head"], "head": {"dataset": "digits"}}]},
            OptionError,
            "`head` must have the fields dataset, task; got no 'task'",
        ),
        ({"includes": ["nope"]}, UnknownNameError, "A suite must be one of"),
    ],
)
def test_a_suite_that_is_not_one_is_refused(suite, change, error, match):
    with pytest.raises(error, match=match):
        load_suite(suite(**change))


def test_a_name_that_is_no_suite_lists_those_there_are(tmp_path):
    with pytest.raises(UnknownNameError, match="bob-retrieval.*Did you mean 'quickstart'"):
        load_suite("quikstart")
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(OptionError, match="YAML file that can be read"):
        load_suite(str(tmp_path / "broken.yaml"))


def test_the_command_prices_runs_and_tells_by_its_exit_code(suite, cache, tmp_path, photos):
    invoke = CliRunner().invoke
    priced = invoke(app, ["run", suite(), "--dry-run", "--cache", str(cache.root)])
    assert priced.exit_code == 0
    assert "72 images in 2 extractions" in priced.stdout
    assert "4 results" in priced.stdout
    assert all(len(line) <= 80 for line in priced.stdout.splitlines())
    assert not (cache.root / "features").exists()
    done = invoke(app, ["run", suite(), "--json", "--cache", str(cache.root)])
    assert done.exit_code == 0
    assert [one["status"] for one in json.loads(done.stdout)] == ["done"] * 4
    cells = [{"datasets": [f"imagefolder:{tmp_path / 'none'}", photos], "tasks": ["knn"]}]
    failed = invoke(app, ["run", suite(cells=cells), "--cache", str(cache.root)])
    assert failed.exit_code == 1
    assert "2 of 4 cells are done, 2 failed." in failed.stdout
    assert "failed: pixels/none/knn@1" in failed.stderr


def test_a_killed_run_goes_on_where_it_was(suite, cache, tmp_path):
    sets = [f"imagefolder:{paint(tmp_path / f'set{i}', 4, seed=i)}" for i in range(6)]
    path = suite(backbones=["pixels"], cells=[{"datasets": sets, "tasks": ["knn"]}])
    code = "import sys, featcache; featcache.run(sys.argv[1], cache=sys.argv[2])"
    process = subprocess.Popen([sys.executable, "-c", code, path, str(cache.root)], env=os.environ)
    ledger = cache.root / "runs"
    while process.poll() is None and len(list(ledger.rglob("*.json"))) < 2:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {path.stem for path in ledger.rglob("*.json") if not path.name.startswith(".")}
    assert 2 <= len(kept) < 6
    ended = run(path, cache=cache.root)
    assert len([one for one in ended if one.status == "stored"]) >= len(kept)
    assert {one.status for one in ended} <= {"stored", "done"}
    assert len(featcache.results(cache=cache.root)) == 6


def test_networks_and_datasets_of_ones_own_stand_in_a_suite(tmp_path, monkeypatch, photos, cache):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_suite_net.py").write_text(
        "import torch\n\n\ndef build():\n"
        "    pool = torch.nn.AdaptiveAvgPool2d(2)\n"
        "    return torch.nn.Sequential(pool, torch.nn.Flatten())\n"
    )
    images = sorted((tmp_path / "photos").rglob("*.png"))
    splits = ("train", "train", "test")
    lines = [f"{path},{path.parent.name},{splits[i % 3]}" for i, path in enumerate(images)]
    (tmp_path / "table.csv").write_text("\n".join(["path,label,split", *lines]))
    cells = [{"datasets": [photos, f"csv:{tmp_path / 'table.csv'}"], "tasks": ["knn"]}]
    (tmp_path / "own.yaml").write_text(
        yaml.safe_dump({"backbones": ["my_suite_net:build"], "cells": cells})
    )
    ended = run(str(tmp_path / "own.yaml"), cache=cache.root)
    assert [one.status for one in ended] == ["done", "done"]


def test_a_network_is_loaded_once_for_all_datasets(suite, cache, photos, tmp_path, monkeypatch):
    loaded = []
    load = factory.load_backbone

    def spy(name, **given):
        loaded.append(name)
        return load(name, **given)

    monkeypatch.setattr(factory, "load_backbone", spy)
    more = f"imagefolder:{paint(tmp_path / 'more', seed=3)}"
    path = suite(cells=[{"datasets": [photos, more], "tasks": ["centroid"]}])
    ended = run(path, cache=cache.root, options=Options(device="cpu", batch_size=4, workers=0))
    assert [one.status for one in ended] == ["done"] * 4
    assert loaded == ["pixels", "random:test_vit"]
    kept = {one.open().digest for one in cache.stored("more/*/*test_vit*")}
    apart = featcache.extract(backbone="random:test_vit", dataset=more, cache=tmp_path / "apart")
    assert kept == {one.digest for one in apart}


def test_a_network_is_loaded_anew_when_its_weights_change(tmp_path):
    file = tmp_path / "weights.safetensors"
    networks, model = Networks(), timm.create_model("test_vit", num_classes=0)
    request = NetworkRequest(
        name="timm:test_vit",
        checkpoint=file,
        renamer=None,
        transform_overrides={},
        compute="fp32",
    )
    save_file(model.state_dict(), file)
    first = networks.load(request)
    assert networks.load(request) is first
    save_file({k: v + 1 for k, v in model.state_dict().items()}, file)
    os.utime(file, ns=(1, 1))
    second = networks.load(request)
    assert second.identity.weights != first.identity.weights
