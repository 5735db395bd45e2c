"""The registry of backbones: rows of `registry.yaml`, and those of installed plug-ins."""

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
}
"""The module that opens a source, by its scheme."""

BACKBONES: Registry[Callable[[Request], Backbone]] = Registry(
    "backbone", "featcache.backbones", list_command="featcache ls backbones"
)


def entries() -> dict[str, Entry]:
    """Return the built-in rows by name; reads one YAML file and imports no network code."""
    text = Path(__file__).with_name("registry.yaml").read_text(encoding="utf-8")
    return {
        name: Entry(target=_TARGETS[facts["source"].partition(":")[0]], facts=facts)
        for name, facts in read_yaml(text).items()
    }
