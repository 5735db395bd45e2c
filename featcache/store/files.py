"""Files that appear whole or not at all, and errors of the disk in plain words."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from featcache.digest import Json
from featcache.errors import CorruptError, FeatcacheError, StoreError
from featcache.store.processes import host, is_running, start_time

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
_NO_PERMISSION = {errno.EACCES, errno.EPERM, errno.EROFS}
TEMPORARY_PREFIX = ".tmp-"
_TEMPORARY = re.compile(r"\.tmp-(?P<pid>\d+)-(?P<started>\d*)-(?P<host>[0-9a-f]{8})-[0-9a-f]{32}")
_LOCK = f"{TEMPORARY_PREFIX}lock"
LOCK_EXPIRY_S = 10.0
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
MAX_JSON_BYTES = 64 << 20
MAX_JSON_DEPTH = 50


@contextmanager
def disk_errors(path: Path, action: str) -> Iterator[None]:
    """Turn an `OSError` inside the block into a `StoreError` that says what to do."""
    try:
        yield
    except FeatcacheError:
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
    """Return a name in `directory` that no other process uses, and that says whose it is."""
    pid = os.getpid()
    owner = f"{pid}-{start_time(pid)}-{_host_digest()}"
    return directory / f"{TEMPORARY_PREFIX}{owner}-{uuid.uuid4().hex}"


def has_living_writer(temporary: Path) -> bool | None:
    """Tell whether the process that made a temporary name still runs; None if it is elsewhere."""
    named = _TEMPORARY.fullmatch(temporary.name)
    if named is None or named["host"] != _host_digest():
        return None
    return is_running(int(named["pid"]), named["started"])


def _host_digest() -> str:
    return hashlib.sha256(host().encode()).hexdigest()[:8]


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

    Where the file system has no hard links, writers of one name must stage in one directory.

    Returns:
        Whether this file got the name. `temporary` may stay; the caller removes it.
    """
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if not _publish_without_links(temporary, path):
            return False
    sync_directory(path.parent)
    return True


def _publish_without_links(temporary: Path, path: Path) -> bool:
    """Look and rename under a lock beside the unfinished file.

    The lock is held for a few system calls, so an old one is of a process that was killed then.
    """
    lock = temporary.with_name(_LOCK)
    while True:
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL))
            break
        except FileExistsError:
            if path.exists():
                return False
            _break_lock(lock, temporary)
    try:
        if path.exists():
            return False
        temporary.replace(path)
        return True
    finally:
        lock.unlink(missing_ok=True)


def _break_lock(lock: Path, temporary: Path) -> None:
    """Wait a moment, and take a lock away that is too old, by the file system's own clock."""
    time.sleep(0.01)
    os.utime(temporary)
    try:
        if temporary.stat().st_mtime - lock.stat().st_mtime >= LOCK_EXPIRY_S:
            grave = temporary_path(lock.parent)
            lock.rename(grave)  # of several processes that try, one succeeds
            grave.unlink()
    except FileNotFoundError:
        pass


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
        CorruptError: If it is not JSON, or larger or deeper than any that featcache writes.
        FileNotFoundError: If it does not exist.
    """
    size = path.stat().st_size
    if size > MAX_JSON_BYTES:
        raise CorruptError(
            f"{path} must be below {MAX_JSON_BYTES} bytes; it has {size}. Delete the set's "
            "directory and extract it again."
        )
    return parse_json(path.read_bytes(), str(path))


def parse_json(data: bytes, where: str) -> Json:
    """Decode JSON that may come from anybody.

    Args:
        data: The bytes.
        where: What they are called in a message.

    Raises:
        CorruptError: If they are not JSON, nested deeper than `MAX_JSON_DEPTH`, or hold a number
            that is not finite or text that is not Unicode, which cannot be written again.
    """
    try:
        text = data.decode("utf-8")
        value = json.loads(text, parse_constant=_refuse_number, parse_float=_finite)
        _check_depth(value)
        if "\\u" in text:  # only so can JSON spell half a surrogate pair, which UTF-8 cannot
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise CorruptError(
            f"{where} must be JSON; {error}. Delete the set's directory and extract it again."
        ) from error
    return value


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse_number(text)


def _refuse_number(text: str) -> NoReturn:
    raise ValueError(f"it holds {text}, which is not a finite number")


def _check_depth(value: Json) -> None:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_JSON_DEPTH + 1):
        values = (one.values() if isinstance(one, dict) else one for one in level)
        level = [item for some in values for item in some if isinstance(item, dict | list)]
        if not level:
            return
    raise ValueError(f"it is nested deeper than {MAX_JSON_DEPTH} levels")


def is_same_json(first: Json, second: Json) -> bool:
    """Tell whether two JSON values are one to every reader; `1`, `1.0` and `true` are three."""
    return json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)
