"""Which process is which: an id may be used again, and means nothing on another machine."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def host() -> str:
    """Return what process ids are unique in: the machine since its start, and the container."""
    boot, container = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    since = boot.read_text().strip()[:8] if boot.exists() else ""
    space = str(container.readlink()) if container.is_symlink() else ""
    return "-".join(filter(None, (platform.node(), since, space)))


def start_time(pid: int) -> str:
    """Return when a process began, as the system counts it; empty where it does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    if fields[0] == "Z":
        return "ended"
    return fields[19]


def is_running(pid: int, started: str) -> bool:
    """Tell whether the process of this id and start time still runs on this host."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return start_time(pid) == started
