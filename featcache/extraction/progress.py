"""What extraction tells whoever watches; the command line draws it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the events of one extraction."""

    def start(self, label: str, total: int, done: int) -> None:
        """Begin a split of `total` rows, of which `done` are stored already."""

    def advance(self, rows: int) -> None:
        """Count newly embedded rows."""

    def note(self, message: str) -> None:
        """Say something worth a line: resuming, waiting for another process."""

    def stop(self) -> None:
        """End the split."""


class Silent:
    """Shows nothing."""

    def start(self, label: str, total: int, done: int) -> None:
        """Ignore the event."""

    def advance(self, rows: int) -> None:
        """Ignore the event."""

    def note(self, message: str) -> None:
        """Ignore the event."""

    def stop(self) -> None:
        """Ignore the event."""
