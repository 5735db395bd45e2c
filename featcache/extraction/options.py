"""How to extract and what came of it, as plain data: asking for a cached set needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from featcache.spec import ExtractionSpec

LARGE_BYTES = 20 * 10**9
"""Maps and patch tokens of a large dataset fill a disk before anybody looks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to extract; nothing here changes what is extracted."""

    device: str = "auto"
    batch_size: int | None = None
    """None: found by itself."""
    workers: int | None = None
    """Decoding processes; None: from the number of cores."""
    max_bytes: int | None = LARGE_BYTES
    """Features of one split that would take more on disk are refused; None: any size is meant."""


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
