"""Networks of timm's architectures with weights that their authors publish: `checkpoint:URL`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featcache.backbones.published import published_file
from featcache.backbones.request import Request

if TYPE_CHECKING:
    from featcache.backbones.torch_backbone import TorchBackbone


def open_backbone(request: Request) -> TorchBackbone:
    """Build the row's architecture with its published file, or with `request.checkpoint`.

    A file that is given is read with the row's renamer, unless another is asked for.

    Raises:
        BackboneError: If the file is not there and cannot be fetched.
        CheckpointError: If it is damaged, or does not fit the architecture.
    """
    from featcache.backbones.timm_source import build_from_file

    address = request.source.partition(":")[2]
    renamer = request.renamer or request.facts.get("renamer", "none")
    path = request.checkpoint or published_file(request.name, address, request.facts)
    return build_from_file(request, request.facts["architecture"], path, renamer)
