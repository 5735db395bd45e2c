import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from featcache.backbones.weights import weights_digest


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))


@pytest.fixture(autouse=True)
def _keep_random_state():
    with torch.random.fork_rng(devices=[]):
        yield


def test_the_digest_changes_with_one_bit():
    module = network()
    before = weights_digest(module)
    module[3].bias.data.view(torch.int32)[1] ^= 1
    assert weights_digest(module) != before


def test_the_digest_does_not_depend_on_the_file_format(tmp_path):
    module = network()
    torch.save(module.state_dict(), tmp_path / "new.pth")
    torch.save(module.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(module.state_dict(), tmp_path / "it.safetensors")
    digests = {weights_digest(module)}
    for loaded in (
        torch.load(tmp_path / "new.pth", weights_only=True),
        torch.load(tmp_path / "old.pth", weights_only=True),
        load_file(tmp_path / "it.safetensors"),
    ):
        other = network(seed=1)
        assert weights_digest(other) not in digests
        other.load_state_dict(loaded)
        digests.add(weights_digest(other))
    assert len(digests) == 1


def test_the_digest_does_not_depend_on_the_memory_layout_or_the_order():
    module = network()
    before = weights_digest(module)
    module.to(memory_format=torch.channels_last)
    assert weights_digest(module) == before
    held = nn.Module()
    held.a, held.b = nn.Parameter(torch.ones(2)), nn.Parameter(torch.zeros(2))
    turned = nn.Module()
    turned.b, turned.a = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.ones(2))
    assert weights_digest(held) == weights_digest(turned)


def test_the_digest_tells_names_shapes_and_dtypes_apart():
    def holding(name: str, value: torch.Tensor) -> nn.Module:
        module = nn.Module()
        module.register_buffer(name, value)
        return module

    values = [
        ("a", torch.zeros(4)),
        ("b", torch.zeros(4)),
        ("a", torch.zeros(2, 2)),
        ("a", torch.zeros(4, dtype=torch.int32)),
        ("a", torch.zeros(8, dtype=torch.bfloat16)),
        ("a", torch.tensor(0.0)),
        ("a", torch.zeros(0)),
    ]
    assert len({weights_digest(holding(*value)) for value in values}) == len(values)


def test_batch_norm_counters_are_no_weights_and_no_tensors_give_no_digest():
    module = network()
    before = weights_digest(module)
    module[1].num_batches_tracked += 5
    assert weights_digest(module) == before
    assert weights_digest(nn.Flatten()) == ""
