"""The registry of backbones: rows of `registry/*.yaml`, and those of installed plug-ins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from featcache.backbone import Backbone
from featcache.backbones.request import Request
from featcache.registry import Entry, Registry, read_yaml

_TARGETS = {
    "timm": "featcache.backbones.timm_source:open_backbone",
    "open_clip": "featcache.backbones.open_clip_source:open_backbone",
    "package": "featcache.backbones.packaged:open_backbone",
    "pixels": "featcache.backbones.pixels:open_backbone",
    "checkpoint": "featcache.backbones.checkpoint_source:open_backbone",
    "torchscript": "featcache.backbones.torchscript_source:open_backbone",
    "diffusion": "featcache.backbones.diffusion_source:open_backbone",
}
"""The module that opens a source, by its scheme."""

BACKBONES: Registry[Callable[[Request], Backbone]] = Registry(
    "backbone", "featcache.backbones", list_command="featcache ls backbones"
)


def entries() -> dict[str, Entry]:
    """Return the built-in rows by name; reads a few YAML files and imports no network code."""
    files = sorted(Path(__file__).with_name("registry").glob("*.yaml"))
    return {
        name: Entry(target=_TARGETS[facts["source"].partition(":")[0]], facts=facts)
        for path in files
        for name, facts in read_yaml(path.read_text(encoding="utf-8")).items()
    }
