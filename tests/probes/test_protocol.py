from __future__ import annotations

import subprocess
import sys
from importlib import resources

import numpy as np
import pytest
import yaml

from featcache.errors import OptionError, ProtocolError, UnknownNameError
from featcache.probes.catalog import PROTOCOLS, default_protocol, entries, load_protocol
from featcache.probes.knn.options import KnnOptions
from featcache.probes.linear.options import LinearOptions
from featcache.probes.ood.options import OodOptions
from featcache.probes.options import parse_options
from featcache.probes.protocol import Protocol, check
from featcache.probes.run import run_task
from featcache.probes.tasks import TASKS, TaskInputs
from featcache.registry import Entry
from featcache.spec import (
    BackboneIdentity,
    DatasetIdentity,
    ExtractionSpec,
    Numerics,
    TransformSpec,
)

NAMES = [
    "bigvision-fewshot@1",
    "bob-gldv2@1",
    "bob-retrieval@1",
    "bob-roxford@1",
    "bob-rparis@1",
    "centroid@1",
    "clip-benchmark-linear@1",
    "clip-paper-logreg@1",
    "clip-readme-logreg@1",
    "clustering@1",
    "copydetection@1",
    "dino-knn@1",
    "dinov2-knn@1",
    "dinov2-linear@1",
    "dinov2-logreg@1",
    "disc21@1",
    "fewshot@1",
    "gpr1200@1",
    "gradient@1",
    "head@1",
    "imagetext@1",
    "knn@1",
    "lda@1",
    "linear@1",
    "lpplusplus@1",
    "mae-linear-1view@1",
    "mieb-fewshot@1",
    "multilabel@1",
    "ood@1",
    "openood-v1.5@1",
    "retrieval@1",
    "ridge@1",
    "roxford@1",
    "rparis@1",
    "tipadapter@1",
    "vtab1k-linear@1",
    "zeroshot@1",
]


def spec_of(tap="cls", compute="fp32", **transform):
    chosen = {"resize": 256, "crop": 224, **transform}
    return ExtractionSpec(
        dataset=DatasetIdentity(name="d", split="test", rows=1, fingerprint="", label_set=""),
        backbone=BackboneIdentity(name="b", architecture="a", weights=""),
        transform=TransformSpec(**chosen).to_json(),
        tap=tap,
        numerics=Numerics(compute=compute),
    )


def test_the_built_in_protocols_are_registered():
    assert list(entries()) == NAMES
    assert PROTOCOLS.names("*@1") == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_file_states_every_option_so_that_no_default_can_drift(name):
    file = resources.files("featcache.probes.protocols") / f"{name}.yaml"
    facts = yaml.safe_load(file.read_text(encoding="utf-8"))
    protocol = load_protocol(name)
    assert protocol.options == facts["options"]
    assert protocol.note
    assert protocol.citation
    assert protocol.selection
    assert callable(PROTOCOLS.load(name))
    for row in protocol.published:
        assert set(row) == {"dataset", "backbone", "metric", "value", "tolerance", "source"}


@pytest.mark.parametrize("task", list(TASKS))
def test_each_task_has_a_default_protocol_without_requirements(task):
    protocol = default_protocol(task)
    assert (protocol.name, protocol.task) == (f"{task}@1", task)
    assert check(protocol, spec_of(tap="anything", compute="bf16", resize=32, crop=None)) == []


def test_unknown_names_get_the_nearest():
    with pytest.raises(UnknownNameError, match="Did you mean 'dino-knn@1'"):
        load_protocol("dino-knn@2")
    with pytest.raises(OptionError, match="Did you mean 'linear'"):
        default_protocol("linaer")


def test_dino_knn_names_each_mismatch():
    protocol = load_protocol("dino-knn@1")
    assert check(protocol, spec_of()) == []
    assert check(protocol, spec_of(tap="pooled")) == []
    assert check(protocol, spec_of(tap="patch_mean", compute="bf16", resize=224)) == [
        "`tap` must be 'cls' or 'pooled'; got 'patch_mean'.",
        "`transform.resize` must be 256; got 224.",
        "`numerics.compute` must be 'fp32'; got 'bf16'.",
    ]


def test_clip_logreg_never_takes_projected_features():
    protocol = load_protocol("clip-paper-logreg@1")
    assert check(protocol, spec_of(tap="preprojection")) == []
    (mismatch,) = check(protocol, spec_of(tap="projection"))
    assert mismatch == "`tap` must be 'preprojection' or 'pooled'; got 'projection'."


def test_a_transform_without_the_field_is_a_mismatch():
    spec = spec_of()
    own = ExtractionSpec(
        dataset=spec.dataset, backbone=spec.backbone, transform={"name": "mine"}, tap="cls"
    )
    found = check(load_protocol("dino-knn@1"), own)
    assert "`transform.crop` must be 224; got None." in found


def test_a_plug_in_brings_its_own_method_and_options():
    facts = {"task": "knn", "options": {"anything": [1, 2]}}
    protocol = Protocol.from_entry("mine@1", Entry("builtins:print", facts))
    assert protocol.options == {"anything": [1, 2]}
    assert protocol.runner == "builtins:print"


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"task": "knn", "options": {"temprature": 1}}, "Did you mean 'temperature'"),
        ({"task": "ood", "options": {"head": {"tole": 1.0}}}, "'head.tole'. Did you mean 'tol'"),
        ({"task": "knn", "options": {}, "notes": ""}, "Did you mean 'note'"),
        ({"task": "knn", "options": {}, "requires": {"tap": []}}, "Did you mean 'taps'"),
        ({"task": "knm", "options": {}}, "Did you mean 'knn'"),
        ({"task": "knn"}, "lacks options"),
    ],
)
def test_what_no_protocol_has_is_refused(facts, message):
    with pytest.raises(OptionError, match=message):
        Protocol.from_entry("mine@1", Entry("", facts))


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (LinearOptions, {"tol": "1e-6"}, "`tol` must be a number; got '1e-6'. In YAML write"),
        (LinearOptions, {"strengths": []}, "at least one"),
        (LinearOptions, {"strengths": [1.0, 0.1]}, "in increasing order"),
        (LinearOptions, {"strengths": 3}, "`strengths` must be a list"),
        (LinearOptions, {"held_out": 1}, "between 0 and 1, both excluded"),
        (LinearOptions, {"max_iter": 2.5}, "a whole number"),
        (LinearOptions, {"max_iter": 0}, "at least 1"),
        (LinearOptions, {"standardise": "zscores"}, "Did you mean 'zscore'"),
        (KnnOptions, {"k": [20, 0]}, "from 1; got"),
        (KnnOptions, {"k": [20, 20]}, "distinct whole numbers"),
        (KnnOptions, {"k": [5]}, "`primary_k` must be one of `k`"),
        (KnnOptions, {"exclude_self": 1}, "a name or a mapping"),
        (KnnOptions, {"temperature": [0]}, "`temperature` must"),
        (OodOptions, {"detectors": ["msp", "odin"]}, "must be one of msp"),
        (OodOptions, {"detectors": ["msp"]}, "`primary` must be one of msp; got 'knn'"),
        (OodOptions, {"detectors": []}, "at least one"),
        (OodOptions, {"head": 3}, "a name or a mapping"),
    ],
)
def test_options_out_of_range_are_refused(kind, values, message):
    with pytest.raises(OptionError, match=message):
        parse_options(kind, values)


def test_whole_numbers_stand_for_floats():
    assert parse_options(LinearOptions, {"strengths": [1, 10]}).strengths == (1.0, 10.0)


def test_listing_loads_nothing_heavy():
    code = (
        "import sys, featcache.probes.catalog\n"
        "from featcache.probes.catalog import load_protocol\n"
        "from featcache.probes.tasks import TASKS\n"
        "from featcache.registry import load_target\n"
        "for facts in TASKS.values(): load_target(facts.options), load_target(facts.runner)\n"
        "featcache.probes.catalog.PROTOCOLS.load('knn@1'); load_protocol('clip-paper-logreg@1')\n"
        "heavy = {'torch', 'faiss', 'sklearn', 'scipy', 'pandas', 'zarr'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_protocol_that_the_field_names_is_there():
    asked = (
        "dino-knn dinov2-knn dinov2-logreg dinov2-linear clip-paper-logreg clip-readme-logreg "
        "mae-linear-1view clip-benchmark-linear mieb-fewshot vtab1k-linear bigvision-fewshot "
        "bob-retrieval roxford openood-v1.5"
    )
    assert {f"{name}@1" for name in asked.split()} <= set(NAMES)


def test_dinov2s_grid_is_its_45_strengths():
    grid = load_protocol("dinov2-logreg@1").options["strengths"]
    np.testing.assert_allclose(grid, 10 ** np.linspace(-6, 5, 45), rtol=1e-15)


def test_a_protocol_for_a_number_of_train_rows_refuses_others(make_table):
    protocol = load_protocol("vtab1k-linear@1")
    inputs = TaskInputs(train=make_table(160, seed=1), test=make_table(40, seed=2))
    with pytest.raises(
        ProtocolError, match="1000 train rows, a validation split included; got 160"
    ):
        run_task(protocol, inputs)
