import subprocess
import sys

import pytest
import timm
import torch

from featcache.backbones.catalog import BACKBONES, entries
from featcache.backbones.timm_config import CLASS_COUNTS, is_clip, native_transform
from featcache.backbones.transforms import with_overrides

FACTS = (
    "source",
    "architecture",
    "objective",
    "data",
    "params_m",
    "gflops",
    "resolution",
    "licence",
    "citation",
    "default_tap",
)
ROWS = entries()
TIMM = {name: e.facts for name, e in ROWS.items() if e.facts["source"].startswith("timm:")}
NAMED = (
    *("clip_vitb16", "clip_vitl14", "dino_vits16", "dino_vitb16", "dinov2_vits14"),
    *("dinov2_vitb14", "mae_vitb16", "resnet50", "resnet50.tv_in1k", "convnext_base"),
    *("convnext_base_in22k", "swinv2_base_in22k", "vit_base_in21k", "vit_small_in21k"),
    *("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2", "pixels"),
)


@pytest.mark.parametrize("name", ROWS)
def test_every_row_is_complete(name):
    facts = ROWS[name].facts
    assert [fact for fact in FACTS if facts.get(fact) in (None, "")] == []
    assert set(facts) <= {*FACTS, "transform", "package", "file", "extra", "renamer"}


def test_the_promised_names_are_registered():
    assert set(NAMED) <= set(BACKBONES.names())


def test_every_timm_source_has_pretrained_weights_under_that_tag():
    known = set(timm.list_pretrained())
    assert [f for f in TIMM.values() if f["source"].removeprefix("timm:") not in known] == []


@pytest.mark.parametrize("name", TIMM)
def test_a_row_agrees_with_what_timm_says_of_it(name):
    facts = TIMM[name]
    source = facts["source"].removeprefix("timm:")
    config = timm.get_pretrained_cfg(source).to_dict()
    spec = with_overrides(native_transform(name, config), facts.get("transform", {}))
    assert facts["architecture"] == source.partition(".")[0]
    assert facts["licence"] == config["license"]
    assert facts["resolution"] == spec.crop


@pytest.mark.parametrize(
    "name", ["clip_resnet50", "dinov2_vits14", "swinv2_tiny", "vit_small_in21k"]
)
def test_parameter_counts_are_those_of_the_network_without_classifier(name):
    with torch.device("meta"):
        module = timm.create_model(TIMM[name]["architecture"], num_classes=0)
    counted = sum(item.numel() for item in module.parameters()) / 1e6
    if name == "dinov2_vits14":  # at 224 px it has 16 x 16 positions instead of 37 x 37
        counted -= (37**2 - 16**2) * 384 / 1e6
    assert abs(counted - TIMM[name]["params_m"]) < 0.006


def test_clip_towers_are_told_from_classifiers_throughout_timm():
    for name in timm.list_pretrained():
        config = timm.get_pretrained_cfg(name).to_dict()
        classes = config.get("num_classes") or 0
        if is_clip(name, config):
            assert 256 < classes < 1500, name
        elif "clip" in name and classes:
            assert classes in CLASS_COUNTS, name


def test_importing_and_asking_load_neither_torch_nor_timm():
    code = (
        "import sys\n"
        "import featcache.backbones.factory as factory\n"
        "assert factory.BACKBONES.get('dinov2_vits14').facts\n"
        "assert factory.request_identity('efficientnet_lite0')\n"
        "assert factory.request_identity('resnet50') is None\n"
        "heavy = {'torch', 'timm', 'torchvision', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
