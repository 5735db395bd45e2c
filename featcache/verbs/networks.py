"""Load networks for extractions that come one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from featcache.backbone import Backbone
from featcache.digest import Json
from featcache.spec import ComputeDtype


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkRequest:
    """What says which network is loaded, and how."""

    name: str
    checkpoint: Path | None
    renamer: str | None
    transform_overrides: Mapping[str, Json]
    compute: ComputeDtype

    def fingerprint(self) -> Json | None:
        """Return what is equal only for the same network; None where only loading can tell."""
        from featcache.backbones.factory import request_identity

        return request_identity(
            self.name,
            checkpoint=self.checkpoint,
            renamer=self.renamer,
            transform_overrides=self.transform_overrides,
            compute=self.compute,
        )


class Networks:
    """Loads networks and keeps the last: a suite embeds many datasets with one after the other."""

    def __init__(self) -> None:
        """Keep nothing yet."""
        self._kept: tuple[NetworkRequest, Json | None, Backbone] | None = None

    def load(self, request: NetworkRequest) -> Backbone:
        """Return the network that was asked for last, or load this one in its place.

        Raises:
            FeatcacheError: As `load_backbone`.
        """
        from featcache.backbones.factory import load_backbone

        fingerprint = request.fingerprint()
        if self._kept is not None and self._kept[:2] == (request, fingerprint):
            return self._kept[2]
        self._kept = None  # its memory is needed for the next
        loaded = load_backbone(
            request.name,
            checkpoint=request.checkpoint,
            renamer=request.renamer,
            transform_overrides=request.transform_overrides,
            compute=request.compute,
        )
        self._kept = (request, fingerprint, loaded)
        return loaded
