"""Fork extractions that can be killed; imports are done once, so a run takes tenths of a second.

Call `hurry` in a process of its own before the first.
"""

import contextlib
import os
import platform
import resource
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import zarr  # noqa: F401  so that a killed child does not spend its life importing

from featcache.errors import FeatcacheError
from featcache.extraction import run
from featcache.store import claims, files, layout
from featcache.store.cache import Cache
from featcache.store.feature_set import FeatureSet
from tests.extraction import faults
from tests.fakes import FakeBackbone, Notes, fake_split, fill, specs_for

ROWS, TAPS = 400, ("pooled", "wide")
SPLIT, BACKBONE = fake_split(ROWS, broken=[7, 350]), FakeBackbone()
REFUSED = 3
"""Exit code of a child that stopped with one of featcache's own errors."""


def hurry() -> None:
    """Make chunks tiny and poll often, in this process and those that it forks."""
    torch.set_num_threads(1)
    layout.CHUNK_BYTES, layout.CHUNKS_PER_SHARD = 256, 4  # 7 shards of `pooled`, 13 of `wide`
    run._POLL_S = 0.02


@dataclass(frozen=True, kw_only=True)
class Child:
    """One extraction in a process of its own."""

    root: Path
    taps: Sequence[str] = TAPS
    pause_s: float = 0.001
    """Time each batch takes."""
    die_at: int | None = None
    """File operation at which it kills itself."""
    fault: tuple[str, int, int] | None = None
    """Kind of operation that fails, from which one on, and how often."""
    links: bool = True
    lock_expiry_s: float = 0.2
    """Age at which the lock of a file system without links is one of the dead."""
    host: str | None = None
    """Name of the machine it seems to run on."""
    expiry_s: float | None = None
    file_bytes: int | None = None
    """Size that no file may exceed."""
    log: Path = Path("/dev/stderr")
    """Gets the error the child stops with, and a line for each fault it met."""

    def start(self) -> int:
        """Fork the extraction; return its process id."""
        return fork(self._extract, self.log)

    def _extract(self) -> None:
        if self.host is not None:
            platform.node = lambda: str(self.host)
        if self.expiry_s is not None:
            claims.EXPIRY_S, claims.HEARTBEAT_S = self.expiry_s, self.expiry_s / 8
        files.LOCK_EXPIRY_S = self.lock_expiry_s
        if not self.links:
            faults.without_links()
        if self.file_bytes is not None:
            faults.with_files_below(self.file_bytes)
        if self.fault is not None:
            faults.fail(*self.fault, lambda: _append(self.log, "fault\n"))
        if self.die_at is not None:
            faults.at_each_operation(str(self.root), faults.die_at(self.die_at))
        backbone = FakeBackbone(hook=lambda _: time.sleep(self.pause_s))
        fill(Cache(self.root), SPLIT, backbone, self.taps, notes=Notes(), batch_size=4)


def fork(work: Callable[[], None], log: Path) -> int:
    """Run `work` in a forked child; it ends with 0, `REFUSED`, or 1 for any other error."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except FeatcacheError as error:
        code = REFUSED
        _append(log, f"refused: {type(error).__name__}: {error}\n")
    except BaseException:
        _append(log, f"unclean: {traceback.format_exc()}\n")
    finally:
        os._exit(code)


def _append(log: Path, text: str) -> None:
    faults.with_files_below(resource.RLIM_INFINITY)
    with contextlib.suppress(OSError):
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, text.encode())
        os.close(descriptor)


def paths(root: Path, taps: Sequence[str] = TAPS) -> list[Path]:
    """Return where the sets of these taps lie."""
    return [Cache(root).path_of(spec) for spec in specs_for(SPLIT, BACKBONE, taps)]


def count_operations(root: Path) -> int:
    """Return between how many file operations an undisturbed extraction can be killed."""
    seen, reader_writer = 0, os.pipe()

    def work() -> None:
        def act() -> None:
            nonlocal seen
            seen += 1

        faults.at_each_operation(str(root), act)
        fill(Cache(root), SPLIT, FakeBackbone(), TAPS, notes=Notes(), batch_size=4)
        os.write(reader_writer[1], str(seen).encode())

    pid = fork(work, Path("/dev/stderr"))
    if os.waitpid(pid, 0)[1]:
        sys.exit("an undisturbed extraction failed")
    return int(os.read(reader_writer[0], 20))


def opened(root: Path) -> list[FeatureSet]:
    """Open the sealed sets."""
    return [FeatureSet(path) for path in paths(root)]
