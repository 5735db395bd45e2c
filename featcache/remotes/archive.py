"""One file as a remote: an uncompressed tar of what a directory remote holds.

Members are read where they lie and never unpacked, so no name in an archive leads anywhere.
"""

from __future__ import annotations

import io
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from featcache.errors import RemoteError
from featcache.remotes.transport import BLOCK_BYTES
from featcache.store.files import disk_errors, sync_directory, temporary_path

SUFFIX = ".tar"
MAX_MEMBERS = 1_000_000
_FAILURES = (tarfile.TarError, OSError, EOFError, ValueError, OverflowError)


class ArchiveTransport:
    """An archive that is read."""

    def __init__(self, path: Path) -> None:
        """List the members of an archive.

        Raises:
            RemoteError: If it is not a tar file, or not there.
        """
        self._path = path.expanduser().absolute()
        with self._errors():
            self._members = dict(_members(self._path))

    @property
    def url(self) -> str:
        """Return the file."""
        return str(self._path)

    def names(self, prefix: str) -> Iterator[str]:
        """Yield the names below `prefix`."""
        yield from (name for name in self._members if name.startswith(prefix))

    def size(self, name: str) -> int | None:
        """Return the bytes of `name`; None if it is absent."""
        return self._members[name][1] if name in self._members else None

    def read(self, name: str, start: int, stop: int) -> bytes:
        """Return bytes [start, stop) of `name`."""
        return b"".join(self._blocks(name, start, stop))

    def blocks(self, name: str) -> Iterator[memoryview | bytes]:
        """Stream all bytes of `name`."""
        return self._blocks(name, 0, self.size(name) or 0)

    def put(self, name: str, source: Path) -> None:
        """Refuse: an archive is written whole."""
        raise self._refusal()

    def create(self, name: str, data: bytes) -> bool:
        """Refuse: an archive is written whole."""
        raise self._refusal()

    def _blocks(self, name: str, start: int, stop: int) -> Iterator[bytes]:
        if name not in self._members:
            raise RemoteError(f"{name} must lie in {self.url}; it does not. Export it again.")
        offset, size = self._members[name]
        if stop > size:
            raise RemoteError(
                f"{name} in {self.url} must have {stop} bytes; it ends at {size}. Export it again."
            )
        with self._errors(), self._path.open("rb") as file:
            file.seek(offset + start)
            left = stop - start
            while left:
                block = file.read(min(left, BLOCK_BYTES))
                if not block:
                    raise EOFError(f"it ends within {name}")
                left -= len(block)
                yield block

    def _refusal(self) -> RemoteError:
        return RemoteError(
            f"A push needs a remote that can be written; {self.url} is an archive. Make another "
            "with: featcache cache export"
        )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except RemoteError:
            raise
        except _FAILURES as error:
            raise RemoteError(
                f"An archive must be a tar file that can be read; {self.url}: {error}. Export it "
                "again, or copy it again if it was cut short."
            ) from error


class ArchiveWriter:
    """An archive that is written: nobody sees it before it is whole.

    Use it as a context manager; leaving it by an exception leaves no file.
    """

    def __init__(self, path: Path) -> None:
        """Write to `path`; an existing file is replaced at the end."""
        self._path = path.expanduser().absolute()
        self._temporary = temporary_path(self._path.parent)
        self._sizes: dict[str, int] = {}
        self._small: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> ArchiveWriter:
        """Begin the file."""
        with disk_errors(self._path, "write"):
            self._tar = tarfile.open(self._temporary, "x", format=tarfile.PAX_FORMAT)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the file its name, or remove it after a failure."""
        try:
            with disk_errors(self._path, "write"):
                if kind is not None:
                    with suppress(OSError):
                        self._tar.close()
                    return
                self._tar.close()
                self._temporary.replace(self._path)
                sync_directory(self._path.parent)
        finally:
            self._temporary.unlink(missing_ok=True)

    @property
    def url(self) -> str:
        """Return the file."""
        return str(self._path)

    def names(self, prefix: str) -> Iterator[str]:
        """Yield the names below `prefix`."""
        yield from (name for name in self._sizes if name.startswith(prefix))

    def size(self, name: str) -> int | None:
        """Return the bytes of `name`; None if it is absent."""
        return self._sizes.get(name)

    def read(self, name: str, start: int, stop: int) -> bytes:
        """Return bytes of what `create` wrote."""
        return self._small[name][start:stop]

    def blocks(self, name: str) -> Iterator[memoryview | bytes]:
        """Stream what `create` wrote."""
        yield self._small[name]

    def put(self, name: str, source: Path) -> None:
        """Append a file."""
        with self._lock, disk_errors(self._path, "write"), source.open("rb") as file:
            self._add(name, source.stat().st_size, file)

    def create(self, name: str, data: bytes) -> bool:
        """Append `data` unless the name is taken."""
        with self._lock, disk_errors(self._path, "write"):
            if name in self._sizes:
                return False
            self._small[name] = data
            self._add(name, len(data), io.BytesIO(data))
            return True

    def _add(self, name: str, size: int, file: io.BufferedIOBase) -> None:
        entry = tarfile.TarInfo(name)  # no time, no owner: they are nobody's business
        entry.size, entry.mode = size, 0o644
        self._tar.addfile(entry, file)
        self._sizes[name] = size


def _members(path: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield (name, (offset, bytes)) of the plain files; links, devices and the like are not."""
    size = path.stat().st_size
    with tarfile.open(path, "r:") as tar:
        for count, entry in enumerate(tar):
            if count >= MAX_MEMBERS:
                raise ValueError(f"it has more than {MAX_MEMBERS} members")
            tar.members = []  # type: ignore[attr-defined]  # or each is kept for ever
            if entry.type not in {tarfile.REGTYPE, tarfile.AREGTYPE}:
                continue
            if entry.offset_data + entry.size > size:
                raise ValueError(f"it ends within {entry.name}")
            yield entry.name, (entry.offset_data, entry.size)
