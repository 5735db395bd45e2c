"""Make a process fail or die at a chosen file operation. For forked children: nothing is undone."""

import ctypes
import errno
import os
import pathlib
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

KINDS = ("fsync", "rename", "write", "link")
_AUDITED = ("open", "os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir", "os.utime")


class _File:
    """A file whose `write` is someone else's."""

    def __init__(self, file: Any, write: Callable[[Any, bytes], int]) -> None:
        self._file, self._write = file, write

    def write(self, data: bytes) -> int:
        return self._write(self._file, data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "_File":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _replace_write(write: Callable[[Any, bytes], int]) -> None:
    original = pathlib.Path.open

    def open_(self: pathlib.Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        file = original(self, mode, *args, **kwargs)
        return file if "r" in mode else _File(file, write)

    pathlib.Path.open = open_  # type: ignore[method-assign,assignment]


def at_each_operation(root: str, act: Callable[[], None]) -> None:
    """Call `act` between any two file operations below `root`, and in the middle of each write."""

    def hear(event: str, args: tuple[Any, ...]) -> None:
        if event in _AUDITED and any(str(one).startswith(root) for one in args[:2]):
            act()

    def write(file: Any, data: bytes) -> int:
        half = memoryview(data)[: len(data) // 2]
        act()
        done = file.write(half) if len(half) else 0
        act()
        return int(done + file.write(memoryview(data)[done:]))

    flush = os.fsync

    def fsync(descriptor: int) -> None:
        act()
        flush(descriptor)
        act()

    _replace_write(write)
    os.fsync = fsync  # type: ignore[assignment]
    sys.addaudithook(hear)


def die_at(n: int) -> Callable[[], None]:
    """Return what kills this process the `n`-th time it is called."""
    seen = 0

    def act() -> None:
        nonlocal seen
        seen += 1
        if seen == n:
            os.kill(os.getpid(), signal.SIGKILL)

    return act


def fail(kind: str, first: int, times: int, told: Callable[[], None]) -> None:
    """Make the operations of one kind fail, from the `first`-th on and `times` in a row."""
    seen = 0

    def is_bad() -> bool:
        nonlocal seen
        seen += 1
        if first <= seen < first + times:
            told()
            return True
        return False

    def failing(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if is_bad():
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return original(*args, **kwargs)

        return call

    def write(file: Any, data: bytes) -> int:
        if is_bad():
            file.write(memoryview(data)[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return int(file.write(data))

    if kind == "write":
        _replace_write(write)
    calls = {"fsync": ["fsync"], "link": ["link"], "rename": ["rename", "replace"], "write": []}
    for name in calls[kind]:
        setattr(os, name, failing(getattr(os, name)))


def without_links() -> None:
    """Make the file system one that has no hard links."""

    def link(*_args: Any, **_kwargs: Any) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    os.link = link  # type: ignore[assignment]


def with_files_below(n_bytes: int) -> None:
    """Let no file grow beyond `n_bytes`."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, resource.RLIM_INFINITY))


def can_mount() -> bool:
    """Give this process mounts of its own, which end with it; return whether the system lets it."""
    if sys.platform != "linux" or ctypes.CDLL(None).unshare(0x20000):  # CLONE_NEWNS
        return False
    return _mount("--make-rprivate", "/")


def mount_small_disk(path: pathlib.Path, n_bytes: int) -> None:
    """Mount a file system of `n_bytes` at `path`, or make the one there that large."""
    path.mkdir(exist_ok=True)
    how = f"remount,size={n_bytes}" if path.is_mount() else f"size={n_bytes}"
    if not _mount("-t", "tmpfs", "-o", how, "tmpfs", str(path)):
        sys.exit(f"could not mount {path}")


def unmount(path: pathlib.Path) -> None:
    """Take the small disk away."""
    subprocess.run(["umount", "-l", str(path)], check=True)


def _mount(*words: str) -> bool:
    try:
        return subprocess.run(["mount", *words], capture_output=True).returncode == 0
    except OSError:
        return False
