import sys
import textwrap
from typing import ClassVar

import huggingface_hub.constants
import pytest
import torch
from torch import nn

from featcache.backbone import Backbone
from featcache.backbones.catalog import BACKBONES
from featcache.backbones.factory import load_backbone, request_identity, wrap
from featcache.errors import (
    BackboneError,
    MissingDependencyError,
    OptionError,
    SpecError,
    UnknownNameError,
)
from featcache.registry import Entry
from featcache.spec import TransformSpec

SMALL = TransformSpec(resize=24, crop=16)


class Mean(nn.Module):
    def forward(self, images):
        return images.mean((2, 3))


@pytest.fixture
def user_module(tmp_path, monkeypatch):
    """Write a module of the user's into the working directory."""
    monkeypatch.chdir(tmp_path)

    def write(code: str, name: str = "my_networks") -> None:
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(code))
        monkeypatch.delitem(sys.modules, name, raising=False)

    yield write
    sys.modules.pop("my_networks", None)


def test_a_misspelt_registry_name_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match=r"Did you mean 'efficientnet_lite0'.*featcache ls"):
        load_backbone("efficientnet_lit0")


def test_a_bare_timm_architecture_is_answered_with_its_scheme():
    with pytest.raises(UnknownNameError, match=r"write timm:resnet18"):
        load_backbone("resnet18")


@pytest.mark.parametrize("name", ["timm:resnet5O.a1_in1k", "random:resnet5O"])
def test_a_misspelt_timm_architecture_is_answered_with_the_nearest(name):
    with pytest.raises(UnknownNameError, match=r"Did you mean '?.*resnet5"):
        load_backbone(name)


def test_a_misspelt_timm_tag_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match=r"'resnet50.a1_in1k'"):
        load_backbone("timm:resnet50.a1_in1")


@pytest.mark.parametrize(
    "name", ["timm:resnet18.a1_in1k", "hf-hub:timm/resnet18.a1_in1k", "resnet50.a1_in1k"]
)
def test_weights_out_of_reach_say_what_can_be_done(name, monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BackboneError, match=r"downloaded once from the hub.*--checkpoint FILE"):
        load_backbone(name)


def test_an_architecture_without_weights_names_both_ways_out():
    with pytest.raises(BackboneError, match=r"--checkpoint FILE.*random:botnet50ts_256"):
        load_backbone("timm:botnet50ts_256")


def test_packaged_weights_that_are_not_installed_name_the_extra(monkeypatch):
    facts = dict(BACKBONES.get("efficientnet_lite0").facts, package="no_such_package_at_all")
    entry = Entry(target=BACKBONES.get("efficientnet_lite0").target, facts=facts)
    monkeypatch.setitem(BACKBONES._entries, "absent", entry)
    with pytest.raises(MissingDependencyError, match=r"'absent'.*featcache\[quickstart\]"):
        load_backbone("absent")
    assert request_identity("absent") is None


def test_random_twins_are_deterministic_and_leave_the_global_state_alone():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = load_backbone("random:test_vit").identity
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    assert load_backbone("random:test_vit").identity == first
    assert first.name == "random:test_vit"


def test_another_crop_rebuilds_a_network_of_fixed_size():
    overrides = {"resize": 72, "crop": 64}
    backbone = load_backbone("random:test_vit", transform_overrides=overrides)
    assert backbone.transform.input_shape == (3, 64, 64)
    assert backbone.identity.options["img_size"] == 64
    assert backbone.embed(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), ["cls"])["cls"].shape == (
        1,
        64,
    )


def test_a_users_factory_in_the_working_directory_is_wrapped(user_module):
    user_module(
        """
        from torch import nn
        def tiny():
            return nn.Sequential(nn.Conv2d(3, 5, 16, 16), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        """
    )
    before = list(sys.path)
    backbone = load_backbone("my_networks:tiny", transform_overrides={"resize": 40, "crop": 32})
    assert sys.path == before
    assert backbone.taps == {"pooled": (5,)}
    assert backbone.identity.name == "my_networks:tiny"
    assert backbone.transform.input_shape == (3, 32, 32)
    assert request_identity("my_networks:tiny") is None


def test_editing_a_factorys_file_changes_the_identity(user_module):
    def identity(scale: int):
        user_module(
            f"""
            from torch import nn
            class Scaled(nn.Module):
                def forward(self, images):
                    return images.mean((2, 3)) * {scale}
            """
        )
        return load_backbone("my_networks:Scaled").identity

    assert identity(1) != identity(22)


def test_a_factory_may_return_a_backbone_which_then_decides_for_itself(user_module):
    user_module(
        """
        from featcache.backbones.pixels import PixelBackbone
        class Mine(PixelBackbone):
            pass
        """
    )
    assert isinstance(load_backbone("my_networks:Mine"), Backbone)
    with pytest.raises(OptionError, match=r"decides its transform and precision"):
        load_backbone("my_networks:Mine", compute="bf16")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "def make(): raise RuntimeError('no weights here')",
            r"my_networks:make.*RuntimeError: no w",
        ),
        ("def make(): return 3", r"returned int.*Return the network"),
        ("make = 3", r"function without arguments; 'my_networks:make' is a int"),
        ("def make(n): return n", r"raised TypeError"),
        ("def make(:", r"must be importable; it raised SyntaxError"),
        ("import no_such_thing_here\ndef make(): ...", r"importable.*no_such_thing_here"),
    ],
)
def test_a_factory_that_fails_is_one_clear_error(user_module, code, message):
    user_module(code)
    with pytest.raises(BackboneError, match=message):
        load_backbone("my_networks:make")


def test_a_factory_that_is_not_there_says_what_is_missing(user_module):
    user_module("x = 1")
    with pytest.raises(UnknownNameError, match=r"attribute.*'my_networks:make'"):
        load_backbone("my_networks:make")
    with pytest.raises(UnknownNameError, match=r"importable module.*PYTHONPATH"):
        load_backbone("no_such_module_here:make")
    with pytest.raises(UnknownNameError, match=r"Did you mean 'timm:resnet18'"):
        load_backbone("tim:resnet18")


def test_wrap_takes_a_dict_of_taps():
    class Two(nn.Module):
        def forward(self, images):
            return {"a": images.mean((2, 3)), "map": images}

    backbone = wrap(Two(), name="two", transform=SMALL)
    assert backbone.taps == {"a": (3,), "map": (3, 16, 16)}
    assert backbone.default_tap == "a"


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda x: x, r"shape \(B, D\); got \(1, 3, 16, 16\).*Pool them"),
        (lambda x: [x], r"tensor or a dict.*got list under 'pooled'"),
        (lambda x: {}, r"at least one tap"),
        (lambda x: x @ x[:, :, :3], r"raised RuntimeError.*Check the transform"),
        (lambda x: x.mean((0, 2, 3))[None], r"row of features per image"),
    ],
)
def test_wrap_refuses_what_is_no_feature(forward, message):
    class Bad(nn.Module):
        def forward(self, images):
            return forward(images)

    with pytest.raises(BackboneError, match=message):
        wrap(Bad(), name="bad", transform=SMALL)


def test_wrap_needs_a_module_and_a_normalisation():
    with pytest.raises(BackboneError, match=r"must be a torch.nn.Module; got function"):
        wrap(lambda x: x, name="bad")

    class Bare:
        spec: ClassVar = {"mean": [0, 0, 0]}
        input_shape = (3, 8, 8)

    with pytest.raises(BackboneError, match=r"`mean` and `std`.*std is missing"):
        wrap(Mean(), name="bare", transform=Bare())


def test_wrap_runs_a_network_that_branches_on_values():
    class Branching(nn.Module):
        def forward(self, images):
            return images.mean((2, 3)) if images.sum() > 0 else images.amax((2, 3))

    assert wrap(Branching(), name="branching", transform=SMALL).taps == {"pooled": (3,)}


def test_a_request_is_fingerprinted_by_its_files_and_options(tmp_path):
    lite = request_identity("efficientnet_lite0")
    assert lite == request_identity("efficientnet_lite0")
    file = tmp_path / "a.pth"
    file.write_bytes(b"one")
    asked = [
        lite,
        request_identity("efficientnet_lite1"),
        request_identity("efficientnet_lite0", compute="bf16"),
        request_identity("efficientnet_lite0", transform_overrides={"resize": 300}),
        request_identity("efficientnet_lite0", checkpoint=file),
        request_identity("efficientnet_lite0", checkpoint=file, renamer="none"),
        request_identity("timm:resnet18", checkpoint=file),
        request_identity("random:resnet18"),
        request_identity("pixels"),
    ]
    file.write_bytes(b"other")
    asked.append(request_identity("timm:resnet18", checkpoint=file))
    assert None not in asked
    assert len({str(one) for one in asked}) == len(asked)


@pytest.mark.parametrize(
    "name", ["resnet50.a1_in1k", "timm:resnet18", "hf-hub:a/b", "my.own:net", "typo"]
)
def test_what_only_loading_can_tell_has_no_fingerprint(name):
    assert request_identity(name) is None


def test_a_checkpoint_that_is_not_there_has_no_fingerprint(tmp_path):
    assert request_identity("timm:resnet18", checkpoint=tmp_path / "none.pth") is None


def test_an_unknown_precision_is_refused():
    with pytest.raises(SpecError, match=r"`compute` must be one of fp32.*got 'int8'"):
        load_backbone("pixels", compute="int8")


def test_pixels_refuse_another_transform():
    with pytest.raises(OptionError, match=r"one fixed transform, 16 x 16"):
        load_backbone("pixels", transform_overrides={"resize": 256})
