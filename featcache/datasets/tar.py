"""Tar archives as folders that are never unpacked: where each file lies, and images read in place.

Only plain archives: in a compressed one nothing can be found without reading all before it.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featcache.datasets.dataset import DigestMemo
from featcache.datasets.decode import decode, disk_reason
from featcache.datasets.memo import file_digests
from featcache.digest import blake3_bytes
from featcache.errors import DatasetError, UnreadableImageError

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")
"""How compressed archives are called."""
ABSENT = -1
"""Size of a file that is not there."""

_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_BLOCK = 512
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file in an archive."""

    name: str
    offset: int
    """Where its bytes begin in the archive."""
    size: int


def members(path: str) -> Iterator[Member]:
    """Yield the regular files of an archive in their order; what they hold is not read.

    Raises:
        DatasetError: If it cannot be read, is compressed, is damaged or cut short, or holds a
            sparse file, whose bytes do not lie side by side. An archive must end with its mark,
            so that one that was cut between two files is told from a whole one.
    """
    try:
        with Path(path).open("rb") as file:
            _refuse_compressed(path, file)
            with tarfile.open(fileobj=file, mode="r:") as archive:
                while (found := archive.next()) is not None:
                    if found.issparse():
                        _refuse(path, f"{found.name!r} is stored as a sparse file")
                    if found.isreg():
                        yield Member(found.name, found.offset_data, found.size)
                    archive.members = []  # type: ignore[attr-defined]  # else all are kept
                _check_end(path, file, archive.offset)
    except (tarfile.TarError, ValueError, EOFError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(_message(path, f"it is damaged: {error}")) from error
    except OSError as error:
        raise DatasetError(
            f"A tar archive must be a readable file; {path!r}: {error.strerror}. Check the path."
        ) from error


def read_member(file: IO[bytes], member: Member) -> bytes:
    """Return what a file in an open archive holds."""
    file.seek(member.offset)
    return file.read(member.size)


@dataclass(frozen=True, slots=True, eq=False)
class TarImages:
    """One image per row, each some bytes of an archive."""

    archives: tuple[str, ...]
    archive: NDArray[np.int64]
    """Shape (N,), indices into `archives`."""
    offset: NDArray[np.int64]
    """Shape (N,), where the image begins in its archive."""
    size: NDArray[np.int64]
    """Shape (N,), in bytes; `ABSENT` for a row without image."""

    def read(self, row: int) -> Image.Image:
        """Return the decoded image in mode RGB.

        Raises:
            UnreadableImageError: With the reason, if it is not there or cannot be decoded.
        """
        return decode(self.read_bytes(row))

    def read_bytes(self, row: int) -> bytes:
        """Return the encoded image.

        Raises:
            UnreadableImageError: If it is not there.
        """
        size = int(self.size[row])
        if size == ABSENT:
            raise UnreadableImageError("no image in the sample")
        try:
            with Path(self.archives[self.archive[row]]).open("rb") as file:
                file.seek(int(self.offset[row]))
                data = file.read(size)
        except OSError as error:
            raise UnreadableImageError(disk_reason(error)) from error
        if len(data) < size:
            raise UnreadableImageError("truncated: the archive ends before the image")
        return data

    def digests(self, memo: DigestMemo) -> list[str]:
        """Return one digest per row: of the archive's bytes, and of the place in it."""
        used = np.unique(self.archive)
        paths = [self.archives[one] for one in used]
        of = dict(zip(used.tolist(), file_digests(paths, memo), strict=True))
        places = zip(self.archive.tolist(), self.offset.tolist(), self.size.tolist(), strict=True)
        return [
            blake3_bytes(f"{of[archive]} {offset} {size}".encode()) if of[archive] else ""
            for archive, offset, size in places
        ]

    def select(self, rows: Sequence[int]) -> TarImages:
        """Return a reader of these rows, in this order."""
        kept = np.asarray(rows, dtype=np.intp)
        return TarImages(self.archives, self.archive[kept], self.offset[kept], self.size[kept])


def _refuse_compressed(path: str, file: IO[bytes]) -> None:
    start = file.read(8)
    file.seek(0)
    for magic, kind in _MAGIC.items():
        if start.startswith(magic):
            _refuse(path, f"it is compressed by {kind}")


def _check_end(path: str, file: IO[bytes], end: int) -> None:
    """Refuse an archive whose files are not followed by zeros alone: `tarfile` says nothing."""
    file.seek(end)
    first = file.read(_BLOCK)
    if len(first) < _BLOCK:
        _refuse(path, f"it ends at byte {end + len(first)} without the mark of its end")
    if any(first):
        _refuse(path, f"it is damaged: what stands at byte {end} describes no file")
    while block := file.read(_READ_BYTES):
        if any(block):
            _refuse(path, "something follows its end, as if archives were put one behind another")


def _refuse(path: str, got: str) -> None:
    raise DatasetError(_message(path, got))


def _message(path: str, got: str) -> str:
    return (
        f"A shard must be a whole, plain tar archive; of {path!r}, {got}. Fetch or write it again, "
        "uncompressed."
    )
