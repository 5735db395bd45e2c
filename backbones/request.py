"""What was asked for when a backbone is opened; the one argument of every registry target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from featcache.digest import Json
from featcache.errors import OptionError
from featcache.spec import ComputeDtype, Numerics


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One call of `load_backbone`, with the registry's facts about the name.

    A registry entry's target, built-in or from a plug-in, is a function
    `(request: Request) -> Backbone`.
    """

    name: str
    """As typed: a registry name, a `scheme:name` or a `package.module:factory`."""
    facts: Mapping[str, Json] = field(default_factory=dict)
    checkpoint: Path | None = None
    renamer: str | None = None
    transform_overrides: Mapping[str, Json] = field(default_factory=dict)
    compute: ComputeDtype = "fp32"

    def __post_init__(self) -> None:
        """Refuse an unknown precision, and a renamer without a file whose keys it renames."""
        Numerics(compute=self.compute)
        if self.renamer is not None and self.checkpoint is None:
            raise OptionError(
                f"A key renamer needs a checkpoint; got renamer {self.renamer!r} without one. "
                "Add --checkpoint FILE, or leave the renamer out."
            )

    @property
    def source(self) -> str:
        """`scheme:name` of the weights: the registry row's, or the name itself."""
        return str(self.facts.get("source", self.name))

    @property
    def is_open_clip(self) -> bool:
        """Whether the source is one of open_clip's: `open_clip:…` or `random:open_clip:…`."""
        return self.source.startswith(("open_clip:", "random:open_clip:"))

    def refuse_checkpoint(self, reason: str) -> None:
        """Raise if a checkpoint was given although this backbone cannot take one.

        Raises:
            OptionError: With `reason`, a clause that says where its weights come from.
        """
        if self.checkpoint is not None:
            raise OptionError(
                f"{self.name!r} cannot take a checkpoint: {reason}; got {str(self.checkpoint)!r}. "
                "Leave --checkpoint out, or give it to an architecture: --backbone timm:ARCH."
            )
