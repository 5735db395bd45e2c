"""What a remote must be able to do, and the simplest one: a directory (a disk, NFS)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from featcache.errors import RemoteError
from featcache.store.files import (
    publish,
    sync_file,
    temporary_path,
    write_once,
)

BLOCK_BYTES = 1 << 22
"""Bytes that travel at a time: 4 MiB."""


class Transport(Protocol):
    """Named byte sequences, each whole or absent. Names are relative POSIX paths."""

    @property
    def url(self) -> str:
        """Return where it is, without credentials."""

    def names(self, prefix: str) -> Iterator[str]:
        """Yield the names below the directory `prefix`, in no order.

        Raises:
            RemoteError: If it cannot be reached, or cannot list.
        """

    def size(self, name: str) -> int | None:
        """Return the bytes of `name`; None if it is absent."""

    def read(self, name: str, start: int, stop: int) -> bytes:
        """Return bytes [start, stop) of `name`.

        Raises:
            RemoteError: If it is absent or shorter, or if the remote cannot be reached.
        """

    def blocks(self, name: str) -> Iterator[memoryview | bytes]:
        """Stream all bytes of `name`.

        Raises:
            RemoteError: If it is absent, or if the remote cannot be reached.
        """

    def put(self, name: str, source: Path) -> None:
        """Store a file under `name`; nobody sees it before it is whole.

        Raises:
            RemoteError: If it cannot be written.
        """

    def create(self, name: str, data: bytes) -> bool:
        """Store `data` under `name` unless the name is taken; return whether this call did.

        Raises:
            RemoteError: If it cannot be written.
        """


def read_small(transport: Transport, name: str, limit: int) -> bytes | None:
    """Return a whole object of at most `limit` bytes; None if it is absent.

    Raises:
        RemoteError: If it is larger, or if the remote cannot be reached.
    """
    size = transport.size(name)
    if size is None:
        return None
    if size > limit:
        raise RemoteError(
            f"{name} at {transport.url} must have at most {limit} bytes; it has {size}. "
            "It is not what featcache writes: do not use this remote."
        )
    return transport.read(name, 0, size) if size else b""


class DirectoryTransport:
    """A directory that several machines see. Files appear by a hard link, so whole."""

    def __init__(self, root: Path) -> None:
        """Use `root`, which must exist."""
        self._root = root.expanduser().absolute()
        if not self._root.is_dir():
            raise RemoteError(
                f"A directory remote must exist; {self._root} does not. Make it, or mount it."
            )

    @property
    def url(self) -> str:
        """Return the directory."""
        return str(self._root)

    def names(self, prefix: str) -> Iterator[str]:
        """Yield the names of all files below `prefix`; links are not followed."""
        for folder, _, files in os.walk(self._root / prefix):
            for file in files:
                if not file.startswith(".tmp-"):
                    yield (Path(folder) / file).relative_to(self._root).as_posix()

    def size(self, name: str) -> int | None:
        """Return the bytes of `name`; None if it is absent."""
        try:
            return (self._root / name).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._error("read", name, error) from error

    def read(self, name: str, start: int, stop: int) -> bytes:
        """Return bytes [start, stop) of `name`."""
        try:
            with (self._root / name).open("rb") as file:
                file.seek(start)
                data = file.read(stop - start)
        except OSError as error:
            raise self._error("read", name, error) from error
        if len(data) != stop - start:
            raise RemoteError(
                f"{name} at {self.url} must have {stop} bytes; it ends at {start + len(data)}. "
                "Push the set again."
            )
        return data

    def blocks(self, name: str) -> Iterator[memoryview | bytes]:
        """Stream all bytes of `name`."""
        try:
            with (self._root / name).open("rb") as file:
                while block := file.read(BLOCK_BYTES):
                    yield block
        except OSError as error:
            raise self._error("read", name, error) from error

    def put(self, name: str, source: Path) -> None:
        """Copy a file in under a temporary name, flush it and give it its name."""
        target = self._root / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = temporary_path(target.parent)
            try:
                shutil.copyfile(source, temporary)
                sync_file(temporary)
                publish(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise self._error("write", name, error) from error

    def create(self, name: str, data: bytes) -> bool:
        """Write a file unless it exists."""
        target = self._root / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            return write_once(target, data)
        except OSError as error:
            raise self._error("write", name, error) from error

    def _error(self, action: str, name: str, error: OSError) -> RemoteError:
        return RemoteError(
            f"Could not {action} {name} at {self.url}: {error.strerror or error}. "
            "Check that the directory is mounted and that you may use it, then try again."
        )
