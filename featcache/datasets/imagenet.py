"""The classes of ImageNet, which the datasets that test its classifiers refer to."""

from __future__ import annotations

from functools import cache
from importlib import resources

from featcache.registry import read_yaml


@cache
def imagenet_wnids() -> tuple[str, ...]:
    """Return the WordNet ids of ImageNet's 1,000 classes, in the order of their indices."""
    file = resources.files("featcache.datasets") / "imagenet.yaml"
    return tuple(read_yaml(file.read_text(encoding="utf-8")))
