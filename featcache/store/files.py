"""Files that appear whole or not at all, and errors of the disk in plain words."""

from __future__ import annotations

import errno
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from featcache.digest import Json
from featcache.errors import CorruptError, StoreError

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
_NO_PERMISSION = {errno.EACCES, errno.EPERM, errno.EROFS}
MAX_JSON_BYTES = 64 << 20


@contextmanager
def disk_errors(path: Path, action: str) -> Iterator[None]:
    """Turn an `OSError` inside the block into a `StoreError` that says what to do."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        if error.errno in _NO_SPACE:
            advice = "The disk is full: free some space and run the same command again; it resumes."
        elif error.errno in _NO_PERMISSION:
            advice = "The place cannot be written: choose another with --cache or FEATCACHE_CACHE."
        else:
            advice = "Check the disk and run the same command again; finished rows are kept."
        raise StoreError(
            f"Could not {action} {path}: {error.strerror or error}. {advice}"
        ) from error


def temporary_path(directory: Path) -> Path:
    """Return a name in `directory` that no other process uses."""
    return directory / f".tmp-{os.getpid()}-{uuid.uuid4().hex}"


def sync_file(path: Path) -> None:
    """Flush a file's content to disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_directory(directory: Path) -> None:
    """Flush a directory's entries to disk, where the system can."""
    if os.name == "nt":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_replacing(path: Path, data: bytes, *, staging: Path | None = None) -> None:
    """Write a whole file atomically; an existing one is replaced.

    Args:
        path: The file.
        data: Its content.
        staging: Directory of the same file system for the unfinished file, `path`'s if None.
    """
    temporary = temporary_path(staging or path.parent)
    try:
        _write_synced(temporary, data)
        temporary.replace(path)
        sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_once(path: Path, data: bytes, *, staging: Path | None = None) -> bool:
    """Write a whole file atomically unless it exists; return whether this call wrote it."""
    temporary = temporary_path(staging or path.parent)
    try:
        _write_synced(temporary, data)
        return publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def publish(temporary: Path, path: Path) -> bool:
    """Give a finished file its name unless the name is taken; the first writer wins.

    Returns:
        Whether this file got the name. `temporary` stays; the caller removes it.
    """
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}:
            raise
        return _publish_without_links(temporary, path)
    sync_directory(path.parent)
    return True


def _publish_without_links(temporary: Path, path: Path) -> bool:
    """Reserve the name by exclusive creation of a lock beside it, then rename into place."""
    lock = path.with_name(f"{path.name}.lock")
    try:
        os.close(os.open(lock, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    try:
        if path.exists():
            return False
        temporary.replace(path)
        sync_directory(path.parent)
        return True
    finally:
        lock.unlink(missing_ok=True)


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def json_bytes(value: Json) -> bytes:
    """Encode JSON for a file that people may read."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def read_json(path: Path) -> Json:
    """Read a JSON file.

    Raises:
        CorruptError: If it is not JSON, or larger than any that featcache writes.
        FileNotFoundError: If it does not exist.
    """
    size = path.stat().st_size
    if size > MAX_JSON_BYTES:
        raise CorruptError(f"{path} must be below {MAX_JSON_BYTES} bytes; it has {size}.")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CorruptError(
            f"{path} must be JSON; {error}. Delete the set's directory and extract it again."
        ) from error
