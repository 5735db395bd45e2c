"""Digests of files, computed once: a file of the same size, time and inode is not read again."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Self

from featcache.datasets.dataset import DigestMemo
from featcache.digest import blake3_file
from featcache.errors import StoreError
from featcache.store.files import write_replacing

RACY_NS = 2_000_000_000
"""A file changed this recently is not remembered: a second change could keep its time stamp."""
MAX_THREADS = 16
_FILES_PER_TASK = 256
_DIGEST_DIGITS = 64


class _Known(NamedTuple):
    size: int
    mtime_ns: int
    inode: int
    blake3: str


class FileDigestMemo:
    """Remembers digests of files in a JSON-lines file; safe to use from several threads.

    A memo that is missing, corrupt or cannot be written costs time, never a wrong answer.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Keep the digests at `path`, or only in memory."""
        self._path = path
        self._known = _read(path) if path is not None else {}
        self._new: dict[str, _Known] = {}

    def __enter__(self) -> Self:
        """Return the memo itself."""
        return self

    def __exit__(self, *raised: object) -> None:
        """Save what was learnt, even if the block failed."""
        self.save()

    def file_digest(self, path: str) -> str:
        """Return the BLAKE3 of the file at `path`, 64 hex digits; '' if it cannot be read."""
        path = os.path.abspath(path)  # noqa: PTH100  a hot loop over str
        try:
            before = _stamp(path)
            known = self._known.get(path)
            if known is not None and known[:3] == before:
                return known.blake3
            digest = blake3_file(Path(path))
            after = _stamp(path)
        except (OSError, ValueError):
            return ""
        if before == after and abs(time.time_ns() - after[1]) > RACY_NS:
            self._known[path] = self._new[path] = _Known(*after, digest)
        return digest

    def save(self) -> None:
        """Write all digests, with those that another process saved meanwhile.

        Nothing happens without a path, without news, or where nothing can be written.
        """
        if self._path is None or not self._new:
            return
        merged = _read(self._path) | self._new
        lines = [json.dumps([path, *known]) + "\n" for path, known in sorted(merged.items())]
        with contextlib.suppress(OSError, StoreError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_replacing(self._path, "".join(lines).encode())
            self._new = {}


def file_digests(paths: Sequence[str], memo: DigestMemo) -> list[str]:
    """Return the digest of each file, hashed in several threads.

    Args:
        paths: Files; empty gives an empty list.
        memo: Asked for each file, from several threads at once.

    Returns:
        One digest per path, '' for a file that cannot be read.
    """
    threads = min(MAX_THREADS, os.cpu_count() or 1)
    step = max(1, min(_FILES_PER_TASK, len(paths) // (4 * threads)))
    tasks = [paths[start : start + step] for start in range(0, len(paths), step)]
    with ThreadPoolExecutor(threads) as pool:
        parts = pool.map(lambda part: [memo.file_digest(path) for path in part], tasks)
        return [digest for part in parts for digest in part]


def _stamp(path: str) -> tuple[int, int, int]:
    found = os.stat(path)  # noqa: PTH116  a hot loop over str
    return found.st_size, found.st_mtime_ns, found.st_ino


def _read(path: Path) -> dict[str, _Known]:
    known: dict[str, _Known] = {}
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return {}
    for line in text.splitlines():
        try:
            name, size, mtime_ns, inode, digest = json.loads(line)
            is_digest = len(digest) == _DIGEST_DIGITS
        except (ValueError, TypeError):
            return {}
        if is_digest:
            known[name] = _Known(size, mtime_ns, inode, digest)
    return known
