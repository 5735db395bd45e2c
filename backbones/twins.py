"""Untrained twins: `random:NAME` has the architecture, transform and taps of a registry row."""

from __future__ import annotations

from collections.abc import Mapping

from featcache.backbones.catalog import BACKBONES
from featcache.digest import Json

PREFIX = "random:"


def twin_facts(name: str) -> Mapping[str, Json] | None:
    """Return the facts of the twin that a name asks for; None if it asks for none of ours.

    They are the row's, with a source that loads nothing.
    """
    known = name.removeprefix(PREFIX)
    if known == name or known not in BACKBONES:
        return None
    facts = BACKBONES.get(known).facts
    scheme, _, rest = str(facts.get("source", "")).partition(":")
    if scheme in ("timm", "torchscript", "diffusion"):
        source = f"{PREFIX}{rest if scheme == 'timm' else facts['source']}"
    elif scheme == "open_clip":
        source = f"{PREFIX}{scheme}:{rest.partition('.')[0]}"
    elif scheme in ("checkpoint", "package"):
        source = f"{PREFIX}{facts['architecture']}"
    else:
        return None
    return {**facts, "source": source}
