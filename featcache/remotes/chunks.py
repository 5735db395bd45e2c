"""A bounded directory of chunks that were fetched, so that they are not fetched again."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from featcache.digest import blake3_bytes
from featcache.store.files import TEMPORARY_PREFIX, disk_errors, temporary_path

CHUNKS = "chunks"
"""Directory of a cache for what is read from remotes chunk by chunk."""


class ChunkCache:
    """Chunks by their BLAKE3. The least recently used go when there are too many bytes."""

    def __init__(self, root: Path, limit_bytes: int) -> None:
        """Keep chunks below `root`, at most `limit_bytes` of them in all."""
        self._root, self._limit = root, limit_bytes
        self._lock = threading.Lock()
        self._bytes: int | None = None

    def read(self, digest: str, fetch: Callable[[], bytes]) -> bytes:
        """Return the chunk with this BLAKE3, fetched unless it is here.

        Args:
            digest: 64 hex digits.
            fetch: Gives the bytes, or raises.

        Returns:
            The chunk. What was stored is checked again; what is fetched is returned as it is, and
            kept only if it is the right one.

        Raises:
            StoreError: If the directory cannot be written.
        """
        path = self._root / digest[:2] / digest
        with suppress(FileNotFoundError):
            data = path.read_bytes()
            if blake3_bytes(data) == digest:
                with suppress(OSError):
                    os.utime(path)
                return data
        data = fetch()
        if blake3_bytes(data) == digest and len(data) <= self._limit:
            with disk_errors(path, "write"):
                self._keep(path, data)
        return data

    def _keep(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_path(path.parent)
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        with self._lock:
            if self._bytes is None:
                self._bytes = sum(size for _, size, _ in self._found())
            else:
                self._bytes += len(data)
            if self._bytes > self._limit:
                self._evict()

    def _evict(self) -> None:
        """Remove the least recently used until a tenth of the room is free."""
        found = sorted(self._found())
        total = sum(size for _, size, _ in found)
        for _, size, path in found:
            if total <= self._limit * 0.9:
                break
            path.unlink(missing_ok=True)  # another process may have been faster
            total -= size
        self._bytes = total

    def _found(self) -> list[tuple[float, int, Path]]:
        """Return (last use, bytes, path) of every chunk."""
        found = []
        for path in self._root.glob("??/*"):
            with suppress(FileNotFoundError):
                stat = path.stat()
                if not path.name.startswith(TEMPORARY_PREFIX):
                    found.append((stat.st_mtime, stat.st_size, path))
        return found
