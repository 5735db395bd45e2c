"""How to extract and what came of it, as plain data: asking for a cached set needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from featcache.spec import ExtractionSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to extract; nothing here changes what is extracted."""

    device: str = "auto"
    batch_size: int | None = None
    """None: found by itself."""
    workers: int | None = None
    """Decoding processes; None: from the number of cores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extracted:
    """One feature set after an extraction."""

    path: Path
    spec: ExtractionSpec
    digest: str
    rows: int
    unreadable: int
    computed: int
    """Rows this process embedded now; 0 if all were cached."""
    seconds: float
