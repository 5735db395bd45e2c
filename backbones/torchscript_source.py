"""Networks that their authors publish as TorchScript, architecture and weights in one file.

Such a file is a program. TorchScript cannot import Python modules or open files by itself, but it
runs: so only a file that you name with --checkpoint is run, or one with a digest in the registry.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

from featcache.backbones.published import place_of, published_file
from featcache.backbones.request import Request
from featcache.backbones.timm_source import own_random_state
from featcache.backbones.torch_backbone import TorchBackbone
from featcache.backbones.transforms import PilTransform, with_overrides
from featcache.backbones.weights import weights_digest
from featcache.errors import BackboneError, CheckpointError
from featcache.spec import BackboneIdentity, TransformSpec

_IMAGENET = TransformSpec(resize=256, crop=224, interpolation="bilinear")


def open_backbone(request: Request) -> TorchBackbone:
    """Run the file as the network; its output becomes the tap `pooled`.

    Raises:
        BackboneError: If no file is named and none is pinned, or if it cannot be fetched.
        CheckpointError: If it is no TorchScript, or another than the pinned one.
    """
    if request.source.startswith("random:"):
        request.refuse_checkpoint("its weights are random")
        return _assemble(request, _twin(request), {"seed": 0})
    return _assemble(request, _read(request), {})


def _read(request: Request) -> nn.Module:
    path, address = request.checkpoint, request.source.partition(":")[2]
    if path is None:
        if not request.facts.get("sha256"):
            raise BackboneError(
                f"The file of {request.name!r} is a program, and its SHA-256 must be known before "
                f"it is run; the authors publish none. Fetch {address}, look at where it came "
                f"from, and give it with --checkpoint {place_of(address).name}"
            )
        path = published_file(request.name, address, request.facts)
    try:
        with warnings.catch_warnings():  # torch calls the format old, but the files exist
            warnings.simplefilter("ignore", FutureWarning)
            module: nn.Module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever the archive reader raises
        said = next(iter(str(error).splitlines()), "no message")[:160]
        raise CheckpointError(
            f"{str(path)!r} must be a TorchScript file; it cannot be read: {said}. Fetch it again."
        ) from error
    return module


def _assemble(request: Request, module: nn.Module, options: dict[str, Any]) -> TorchBackbone:
    spec = _IMAGENET
    for overrides in (request.facts.get("transform", {}), request.transform_overrides):
        spec = with_overrides(spec, overrides)
    return TorchBackbone(
        module,
        identity=BackboneIdentity(
            name=request.name,
            architecture=f"torchscript/{request.facts.get('architecture', 'unknown')}",
            weights=weights_digest(module.float()),
            options=options,
        ),
        transform=PilTransform(spec),
        trunk=_run,
        taps={"pooled": _as_it_is},
        compute=request.compute,
    )


def _run(module: nn.Module, images: torch.Tensor) -> torch.Tensor:
    output: torch.Tensor = module(images)
    return output


def _as_it_is(_module: nn.Module, output: torch.Tensor) -> torch.Tensor:
    return output


def _twin(request: Request) -> nn.Module:
    """Return an untrained network of the row's architecture and width.

    Raises:
        BackboneError: If the row does not say how wide its features are.
    """
    import timm

    if "dim" not in request.facts:
        raise BackboneError(
            f"An untrained twin needs the number of values of {request.name!r}; its row has no "
            "`dim`. Add it to the registry."
        )
    with own_random_state():
        made: nn.Module = timm.create_model(
            request.facts["architecture"], num_classes=request.facts["dim"]
        )
        return made
