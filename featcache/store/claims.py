"""Who works on what: a claim is a file that is created only if absent.

The owner touches it while it works. A claim of a dead process of this machine is taken over at
once; one of another machine after it was not touched for `EXPIRY_S`, judged by the file
system's own clock, so that a wrong clock on either side does not matter.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from featcache.errors import ExtractionError
from featcache.store.files import json_bytes, publish, temporary_path, write_once
from featcache.store.processes import host, is_running, start_time

EXPIRY_S = 120.0
"""Seconds without a sign of life after which another machine's claim is stale."""
HEARTBEAT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The process behind a claim."""

    host: str
    pid: int
    started: str
    """Start time of the process as the system counts it: a process id may be used again."""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def this_process() -> Owner:
    """Return the owner that stands for the running process."""
    return Owner(host=host(), pid=os.getpid(), started=start_time(os.getpid()))


class Claim:
    """A claim held by this process."""

    def __init__(self, path: Path) -> None:
        """Wrap the path of a claim that this process has made."""
        self._path = path
        self._touched = time.monotonic()

    def keep_alive(self) -> None:
        """Show a sign of life, at most every `HEARTBEAT_S`.

        Raises:
            ExtractionError: If another process took the claim over meanwhile.
        """
        if time.monotonic() - self._touched >= HEARTBEAT_S:
            self._touched = time.monotonic()
            try:
                is_mine = read_owner(self._path) == this_process()
                os.utime(self._path)
            except FileNotFoundError:
                is_mine = False
            if not is_mine:
                raise ExtractionError(
                    f"A claim must be touched at least every {EXPIRY_S:.0f} s; this process was "
                    f"held up longer, and another took {self._path.name} over. Rows so far are "
                    "kept: run the same command again."
                )

    def release(self) -> None:
        """Give the claim up, if it is still this process's."""
        if read_owner(self._path) == this_process():
            self._path.unlink(missing_ok=True)


def try_claim(path: Path) -> Claim | Owner:
    """Claim `path`, or return the living owner that holds it."""
    me = this_process()
    record = json_bytes({"host": me.host, "pid": me.pid, "started": me.started})
    while not write_once(path, record):
        owner = read_owner(path)
        if owner == me:
            break
        if owner is not None and is_alive(owner, path):
            return owner
        _take_away(path, owner)
    return Claim(path)


def read_owner(path: Path) -> Owner | None:
    """Return who holds the claim at `path`; None if there is none or it is unreadable."""
    try:
        record = json.loads(path.read_bytes())
        return Owner(host=record["host"], pid=record["pid"], started=record["started"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _take_away(path: Path, stale: Owner | None) -> None:
    """Remove a stale claim; of several processes that try, one moves it and none is hurt."""
    grave = temporary_path(path.parent)
    try:
        path.rename(grave)
        if read_owner(grave) not in (stale, None):
            publish(grave, path)  # a newcomer had claimed it in between: give it back
    except FileNotFoundError:
        pass
    finally:
        grave.unlink(missing_ok=True)


def living_owner(work: Path) -> Owner | None:
    """Return a living process that holds a claim in a set's work directory; None if none does."""
    for path in sorted((work / "claims").glob("*.json")):
        owner = read_owner(path)
        if owner is not None and is_alive(owner, path):
            return owner
    return None


def is_alive(owner: Owner, path: Path) -> bool:
    """Tell whether the owner of the claim at `path` may still be at work."""
    if owner.host == host():
        return is_running(owner.pid, owner.started)
    try:
        probe = temporary_path(path.parent)
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink()
        # a time far in the future is of a clock that was off, and no sign of life
        return abs(now - path.stat().st_mtime) < EXPIRY_S
    except FileNotFoundError:
        return False
