"""Files that authors publish, with their exact keys: found or fetched, renamed, loaded."""

import hashlib

import pytest
import timm
import torch
import torch.nn.functional as F  # noqa: N812
import torchvision

from featcache.backbones.catalog import entries
from featcache.backbones.factory import load_backbone
from featcache.backbones.published import WEIGHTS_VARIABLE, place_of, published_file
from featcache.backbones.renamers import get_renamer
from featcache.errors import BackboneError, CheckpointError
from tests.backbones.published_files import CONVNEXT, PUBLISHED, filled, vicregl_convnext, write

ROWS = {name: entry.facts for name, entry in entries().items()}
FILES = {
    name: facts["source"].rpartition("/")[2]
    for name, facts in ROWS.items()
    if facts["source"].startswith("checkpoint:")
}


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A folder of weight files that were fetched by hand."""
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(folder))
    return folder


def test_the_keys_of_every_published_file_are_known():
    assert FILES.keys() == PUBLISHED.keys()


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_tensor_of_the_network_comes_from_the_published_file(name):
    facts, shapes = ROWS[name], PUBLISHED[name]()
    rule = get_renamer(facts["renamer"])
    with torch.device("meta"):
        build = timm.model_entrypoint(facts["architecture"])
        network = build(num_classes=0, **rule.model_args.get(facts["architecture"], {}))
    wanted = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    renamed = rule.rename(shapes.keys(), wanted.keys())
    assert {new: shapes[old] for old, new in renamed.items()} == wanted


@pytest.mark.parametrize("name", ["dino_resnet50", "mocov3_resnet50", "vicreg_resnet50"])
def test_a_published_resnet50_gives_what_torchvisions_gives(name, weights):
    tensors = write(name, weights, FILES[name])
    backbone = load_backbone(name)
    body = {key.removeprefix("module.base_encoder."): value for key, value in tensors.items()}
    network = torchvision.models.resnet50()
    network.fc = torch.nn.Identity()
    network.load_state_dict({key: body[key] for key in network.state_dict()})
    images = torch.randint(0, 256, (2, *backbone.transform.input_shape), dtype=torch.uint8)
    mean, std = (torch.tensor(ROWS[name]["transform"][key]) for key in ("mean", "std"))
    inputs = (images / 255 - mean[:, None, None]) / std[:, None, None]
    with torch.inference_mode():
        expected = network.eval()(inputs)
    torch.testing.assert_close(backbone.embed(images, ["pooled"])["pooled"], expected)
    assert set(backbone.taps) == {"pooled", "map4", "map8", "map16", "map32"}


@pytest.mark.parametrize("name", ["mocov3_vits16", "midas_swinv2_tiny"])
def test_a_published_transformer_is_loaded_without_its_other_halves(name, weights):
    tensors = write(name, weights, FILES[name])
    backbone = load_backbone(name)
    loaded = backbone.module.state_dict()
    prefix = {"mocov3_vits16": "module.base_encoder.", "midas_swinv2_tiny": "pretrained.model."}
    key = "blocks.0.attn.qkv.weight"
    key = key if name == "mocov3_vits16" else f"layers.0.{key}"
    assert torch.equal(loaded[key], tensors[prefix[name] + key])
    assert "logits" not in backbone.taps
    rest = {"mocov3_vits16": "module.predictor", "midas_swinv2_tiny": "scratch.layer1_rn"}
    assert rest[name] in backbone.identity.options["dropped"]


def test_the_layers_between_stages_of_midas_move_to_the_later_stage(weights):
    tensors = write("midas_swinv2_tiny", weights, FILES["midas_swinv2_tiny"])
    loaded = load_backbone("midas_swinv2_tiny").module.state_dict()
    for stage in (1, 2, 3):
        old = f"pretrained.model.layers.{stage - 1}.downsample.reduction.weight"
        assert torch.equal(loaded[f"layers.{stage}.downsample.reduction.weight"], tensors[old])


def convnext_of_vicregl(tensors, images, depths):
    """What VICRegL's ConvNeXt computes: places are normed, then averaged."""

    def norm(x, name, eps=1e-6):
        weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
        last = x.permute(0, 2, 3, 1)
        return F.layer_norm(last, last.shape[-1:], weight, bias, eps).permute(0, 3, 1, 2)

    def conv(x, name, **options):
        return F.conv2d(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"], **options)

    def linear(x, name):
        last = x.permute(0, 2, 3, 1)
        found = F.linear(last, tensors[f"{name}.weight"], tensors[f"{name}.bias"])
        return found.permute(0, 3, 1, 2)

    hidden = norm(conv(images, "downsample_layers.0.0", stride=4), "downsample_layers.0.1")
    for stage, depth in enumerate(depths):
        if stage:
            down = f"downsample_layers.{stage}"
            hidden = conv(norm(hidden, f"{down}.0"), f"{down}.1", stride=2)
        for block in (f"stages.{stage}.{number}" for number in range(depth)):
            inner = conv(hidden, f"{block}.dwconv", padding=3, groups=hidden.shape[1])
            inner = linear(norm(inner, f"{block}.norm"), f"{block}.pwconv1")
            hidden = hidden + linear(F.gelu(inner), f"{block}.pwconv2")
    return norm(hidden, "norm").mean(dim=(2, 3))


def test_vicregls_convnext_computes_what_its_authors_compute(tmp_path):
    tensors = filled(vicregl_convnext("convnext_small"))
    torch.save(tensors, tmp_path / "convnext.pth")
    backbone = load_backbone(
        "timm:convnext_small", checkpoint=tmp_path / "convnext.pth", renamer="vicregl-convnext"
    )
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = convnext_of_vicregl(tensors, images, CONVNEXT["convnext_small"][0])
        found = backbone.module(images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.1


@pytest.mark.parametrize(
    ("name", "other", "match"),
    [
        ("midas_swinv2_tiny", "dino_resnet50", "Renamer 'midas' must give each tensor"),
        ("dino_resnet50", "mocov3_resnet50", r"missing: bn1\.bias.*unexpected: module\.base"),
        ("mocov3_vits16", "mocov3_resnet50", r"missing: blocks\.0.*unexpected: bn1\.bias"),
        ("midas_swinv2_base_384", "midas_swinv2_tiny", r"missing: layers\.2\.blocks\.10.*wrong sh"),
    ],
)
def test_the_file_of_another_network_is_refused_with_the_difference(name, other, match, weights):
    write(other, weights, FILES[name])
    with pytest.raises(CheckpointError, match=match):
        load_backbone(name)


def test_a_file_that_cannot_be_fetched_says_where_it_may_lie(weights):
    address = (weights / "nowhere" / "a.pth").as_uri()
    with pytest.raises(BackboneError, match=rf"'net' must be at '{weights}/a\.pth'.*--checkpoint"):
        published_file("net", address, {})
    assert list(weights.iterdir()) == []


def test_a_file_is_fetched_once_and_kept_under_its_own_name(tmp_path, weights):
    there = tmp_path / "served.pth"
    there.write_bytes(b"weights")
    facts = {"sha256": hashlib.sha256(b"weights").hexdigest()}
    found = published_file("net", there.as_uri(), facts)
    there.unlink()
    assert found == place_of(there.as_uri()) == weights / "served.pth"
    assert published_file("net", there.as_uri(), facts).read_bytes() == b"weights"
    assert list(weights.iterdir()) == [found]


@pytest.mark.parametrize("fact", ["sha256", "sha256_prefix"])
def test_a_file_with_another_digest_is_refused(weights, fact):
    (weights / "a.pth").write_bytes(b"other")
    wanted = hashlib.sha256(b"weights").hexdigest()
    facts = {fact: wanted if fact == "sha256" else wanted[:8]}
    with pytest.raises(CheckpointError, match=f"starts with {wanted[:8]}.*Delete it, and fetch"):
        published_file("net", "https://example.org/a.pth", facts)
