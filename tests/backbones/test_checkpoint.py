import argparse
import re
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from featcache.backbones.checkpoint import load_checkpoint
from featcache.backbones.factory import load_backbone
from featcache.backbones.weights import weights_digest
from featcache.errors import CheckpointError, OptionError, UnknownNameError

ARCH = "timm:test_vit"


@pytest.fixture(scope="module")
def trained():
    """A tiny ViT with its classifier: stands for a network trained elsewhere."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return timm.create_model("test_vit", num_classes=10).state_dict()


@pytest.fixture(scope="module")
def backbone_only(trained):
    return {key: value for key, value in trained.items() if not key.startswith("head.")}


def saved(path: Path, value: object) -> Path:
    if path.suffix == ".safetensors":
        save_file(value, path)
    else:
        torch.save(value, path)
    return path


def open_with(path: Path, renamer: str | None = None):
    return load_backbone(ARCH, checkpoint=path, renamer=renamer)


def test_safetensors_and_torch_files_give_the_same_backbone(tmp_path, trained):
    digests, names = set(), ("a.safetensors", "a.pth", "a.bin")
    for name in names:
        backbone = open_with(saved(tmp_path / name, trained))
        assert {"pooled", "cls", "logits"} <= set(backbone.taps)
        assert backbone.taps["logits"] == (10,)
        digests.add(backbone.identity.weights)
    assert len(digests) == 1


def test_the_weights_that_are_loaded_are_those_of_the_file(tmp_path, trained):
    backbone = open_with(saved(tmp_path / "a.pth", trained))
    twin = timm.create_model("test_vit", num_classes=10)
    twin.load_state_dict(trained)
    assert backbone.identity.weights == weights_digest(twin)


def test_a_file_without_classifier_gives_no_logits(tmp_path, backbone_only):
    backbone = open_with(saved(tmp_path / "a.pth", backbone_only))
    assert "logits" not in backbone.taps
    assert backbone.identity.options["dropped"] == []


def test_an_obvious_wrapper_is_looked_through_and_recorded(tmp_path, trained):
    path = saved(tmp_path / "a.pth", {"epoch": 3, "optimizer": {}, "model": trained})
    assert open_with(path).identity.options["wrapper"] == "model"


def test_module_prefixes_are_stripped_only_when_asked_for(tmp_path, trained):
    parallel = {f"module.{key}": value for key, value in trained.items()}
    path = saved(tmp_path / "a.pth", {"state_dict": parallel})
    with pytest.raises(CheckpointError, match=r"missing: .*unexpected: module\..*--renamer"):
        open_with(path)
    identity = open_with(path, "strip-module").identity
    assert identity.options == {"renamer": "strip-module", "wrapper": "state_dict", "dropped": []}
    assert identity.weights == open_with(saved(tmp_path / "b.pth", trained)).identity.weights


def test_dino_takes_the_teachers_backbone(tmp_path, backbone_only):
    teacher = {f"backbone.{key}": value for key, value in backbone_only.items()}
    teacher["head.last_layer.weight_g"] = torch.ones(4, 1)
    student = {f"module.{key}": torch.zeros_like(value) for key, value in teacher.items()}
    path = saved(tmp_path / "a.pth", {"student": student, "teacher": teacher, "epoch": 1})
    full = open_with(path, "dino").identity
    alone = open_with(saved(tmp_path / "b.pth", backbone_only), "dino").identity
    assert full.weights == alone.weights
    assert full.options == {"renamer": "dino", "wrapper": "teacher", "dropped": ["head.last_layer"]}


def test_mae_drops_the_decoder(tmp_path, backbone_only):
    extra = {"mask_token": torch.ones(1), "decoder_blocks.0.norm.bias": torch.ones(2)}
    path = saved(tmp_path / "a.pth", {"model": backbone_only | extra})
    with pytest.raises(CheckpointError, match=r"2 unexpected: decoder_blocks.0.norm.bias, mask_t"):
        open_with(path)
    assert open_with(path, "mae").identity.options["dropped"] == ["decoder_blocks.0", "mask_token"]


def test_moco_v3_takes_the_base_encoder_without_its_projector(tmp_path, backbone_only):
    tensors = {f"module.base_encoder.{key}": value for key, value in backbone_only.items()}
    tensors |= {key.replace("base", "momentum"): value * 2 for key, value in tensors.items()}
    tensors |= {"module.base_encoder.head.0.weight": torch.ones(2, 2)}
    tensors |= {"module.predictor.0.weight": torch.ones(2, 2)}
    path = saved(tmp_path / "a.pth", {"state_dict": tensors, "arch": "vit_small"})
    plain = open_with(saved(tmp_path / "b.pth", backbone_only)).identity
    assert open_with(path, "moco-v3").identity.weights == plain.weights


def test_moco_v3_builds_vit_small_with_its_twelve_heads(tmp_path):
    tensors = timm.create_model("vit_small_patch16_224", num_classes=0).state_dict()
    path = saved(
        tmp_path / "a.pth", {f"module.base_encoder.{key}": value for key, value in tensors.items()}
    )
    backbone = load_backbone("timm:vit_small_patch16_224", checkpoint=path, renamer="moco-v3")
    assert backbone.module.blocks[0].attn.num_heads == 12
    assert backbone.identity.options["num_heads"] == 12


def test_missing_unexpected_and_misshapen_tensors_are_listed_with_counts(tmp_path, trained):
    broken = {key: value for key, value in trained.items() if "blocks.3." not in key}
    broken |= {"extra.weight": torch.ones(1), "norm.weight": torch.ones(3)}
    with pytest.raises(CheckpointError) as caught:
        open_with(saved(tmp_path / "a.pth", broken))
    text = str(caught.value)
    assert "12 missing: blocks.3.attn.proj.bias" in text
    assert "and 2 more" in text
    assert "1 unexpected: extra.weight" in text
    assert "1 wrong shape: norm.weight (file (3,), model (64,))" in text


def test_a_file_that_needs_unpickling_is_refused_with_the_way_out(tmp_path, trained):
    path = saved(tmp_path / "a.pth", {"model": trained, "args": argparse.Namespace(lr=1)})
    with pytest.raises(CheckpointError, match=r"was refused.*safetensors\.torch\.save_file"):
        open_with(path)


def test_code_in_a_file_does_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    torch.save({"model": Bomb()}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="refused"):
        open_with(tmp_path / "a.pth")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"must be a file; got nothing there"),
        ("directory", r"must be a file; got a directory"),
        (b"", r"cannot be read \(.*the file is empty"),
        (b"this is no checkpoint at all", r"cannot be read \(.*Download it again"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_is_no_checkpoint_is_one_clear_error(tmp_path, content, message, suffix):
    path = tmp_path / f"a{suffix}"
    if content == "directory":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        open_with(path)


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_a_truncated_file_is_one_clear_error(tmp_path, trained, name):
    path = saved(tmp_path / name, trained)
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(CheckpointError, match=r"whole safetensors or torch file"):
        open_with(path)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 2], r"no state dict \(<class 'list'>\)"),
        ({"epoch": 1}, r"no state dict \(\['epoch'\]\)"),
        ({"model": {"a": torch.ones(1)}, "model_ema": {"a": torch.ones(1)}}, r"several models"),
    ],
)
def test_a_file_without_one_state_dict_is_refused(tmp_path, value, message):
    with pytest.raises(CheckpointError, match=message):
        open_with(saved(tmp_path / "a.pth", value))


def test_an_unknown_renamer_is_answered_with_the_nearest(tmp_path, trained):
    with pytest.raises(UnknownNameError, match=r"one of none, .*Did you mean 'moco-v3'"):
        open_with(saved(tmp_path / "a.pth", trained), "moco_v3")


def test_a_renamer_that_finds_nothing_is_an_error(tmp_path, trained):
    with pytest.raises(CheckpointError, match=r"'moco-v3'.*made 0.*another renamer"):
        open_with(saved(tmp_path / "a.pth", trained), "moco-v3")


def test_a_renamer_without_checkpoint_is_refused():
    with pytest.raises(OptionError, match=r"needs a checkpoint; got renamer 'dino'"):
        load_backbone(ARCH, renamer="dino")


@pytest.mark.parametrize("name", ["random:resnet18", "pixels", "hf-hub:org/name", "os:getcwd"])
def test_sources_with_weights_of_their_own_refuse_a_checkpoint(tmp_path, name):
    with pytest.raises(OptionError, match=rf"{re.escape(repr(name))} cannot take a checkpoint"):
        load_backbone(name, checkpoint=tmp_path / "a.pth")


def test_load_checkpoint_fills_any_module(tmp_path):
    module, other = nn.Linear(3, 2), nn.Linear(3, 2)
    report = load_checkpoint(other, saved(tmp_path / "a.safetensors", module.state_dict()))
    assert torch.equal(other.weight, module.weight)
    assert report.to_json() == {"renamer": "none", "wrapper": None, "dropped": []}
