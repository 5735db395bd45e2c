"""Networks that are published as TorchScript: named files are run, unnamed ones are not."""

import pytest
import torch
from torch import nn

from featcache.backbones.factory import load_backbone
from featcache.backbones.published import WEIGHTS_VARIABLE
from featcache.errors import BackboneError, CheckpointError, OptionError

NAME = "sscd_resnet50.imagenet_mixup"


class Descriptor(nn.Module):
    """As SSCD's files: convolution, pooling, a linear layer, unit norm; dropout tells eval mode."""

    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 4, 16, stride=16)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 6)

    def forward(self, images):
        pooled = self.drop(self.body(images).mean(dim=(2, 3)))
        return nn.functional.normalize(self.head(pooled), dim=1)


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return Descriptor().eval()


def traced(network, path):
    """Write the file as its authors did, by a function that torch has since called old."""
    with pytest.warns(FutureWarning, match=r"torch\.jit"):
        torch.jit.trace(network, torch.zeros(1, 3, 320, 320)).save(str(path))
    return path


@pytest.fixture
def file(network, tmp_path):
    return traced(network, tmp_path / "sscd.torchscript.pt")


def test_a_named_file_gives_what_its_network_gives(network, file):
    backbone = load_backbone(NAME, checkpoint=file)
    assert backbone.taps == {"pooled": (6,)}
    images = torch.randint(0, 256, (3, *backbone.transform.input_shape), dtype=torch.uint8)
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    with torch.inference_mode():
        expected = network((images / 255 - mean) / std)
    torch.testing.assert_close(backbone.embed(images, ["pooled"])["pooled"], expected)
    assert backbone.transform.input_shape == (3, 320, 320)


def test_the_weights_of_the_file_are_in_the_identity(network, file, tmp_path):
    first = load_backbone(NAME, checkpoint=file).identity
    other = traced(Descriptor().eval(), tmp_path / "b.pt")
    second = load_backbone(NAME, checkpoint=other).identity
    assert first.weights != second.weights
    assert first.architecture == second.architecture == "torchscript/resnet50"


def test_a_program_without_published_digest_is_not_run_unless_it_is_named(
    tmp_path, monkeypatch, file
):
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path))
    file.rename(tmp_path / "sscd_imagenet_mixup.torchscript.pt")
    with pytest.raises(BackboneError, match=r"is a program.*--checkpoint sscd_imagenet_mixup"):
        load_backbone(NAME)


def test_a_file_that_is_no_torchscript_is_refused(tmp_path):
    torch.save({"a": torch.ones(1)}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"must be a TorchScript file; it cannot be read"):
        load_backbone(NAME, checkpoint=tmp_path / "a.pt")


def test_the_twin_is_as_wide_as_the_network_and_takes_no_file(file):
    twin = load_backbone(f"random:{NAME}")
    assert twin.taps == {"pooled": (512,)}
    assert twin.transform.spec == load_backbone(NAME, checkpoint=file).transform.spec
    with pytest.raises(OptionError, match="its weights are random"):
        load_backbone(f"random:{NAME}", checkpoint=file)
