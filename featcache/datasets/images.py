"""Readers of images: files of a folder, and arrays in memory. All are picklable."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featcache.datasets.dataset import DigestMemo, ImageReader
from featcache.datasets.decode import decode
from featcache.datasets.memo import file_digests
from featcache.digest import blake3_bytes
from featcache.errors import ShapeError


@runtime_checkable
class Selectable(Protocol):
    """A reader that can give up rows without touching what they hold."""

    def select(self, rows: Sequence[int]) -> ImageReader:
        """Return a reader of these rows, in this order."""


@dataclass(frozen=True, slots=True)
class FileImages:
    """One image file per row."""

    folder: str
    """Where relative paths start; '' if all are absolute."""
    paths: tuple[str, ...]

    def path(self, row: int) -> str:
        """Return the file of a row."""
        return os.path.join(self.folder, self.paths[row])  # noqa: PTH118  a hot loop over str

    def read(self, row: int) -> Image.Image:
        """Return the decoded image in mode RGB.

        Raises:
            UnreadableImageError: With the reason, if it cannot be decoded.
        """
        return decode(self.path(row))

    def digests(self, memo: DigestMemo) -> list[str]:
        """Return one digest per row, of the file's bytes; '' for a file that cannot be read."""
        return file_digests([self.path(row) for row in range(len(self.paths))], memo)

    def select(self, rows: Sequence[int]) -> FileImages:
        """Return a reader of these rows, in this order."""
        return FileImages(self.folder, tuple(self.paths[row] for row in rows))


@dataclass(frozen=True, slots=True, eq=False)
class ArrayImages:
    """Images in memory."""

    pixels: NDArray[np.uint8]
    """Shape (N, H, W) grey or (N, H, W, 3) RGB."""
    digest: str = ""
    """Names the contents if the pixels do not, as when a decoder's version changes last bits."""

    def __post_init__(self) -> None:
        """Refuse other shapes and types."""
        shape, dtype = self.pixels.shape, self.pixels.dtype
        if dtype != np.uint8 or not (len(shape) == 3 or (len(shape) == 4 and shape[3] == 3)):
            raise ShapeError(
                "Images must be uint8 of shape (N, H, W) or (N, H, W, 3); "
                f"got {dtype} {shape}. Convert them first."
            )

    def read(self, row: int) -> Image.Image:
        """Return the image in mode RGB."""
        return Image.fromarray(self.pixels[row]).convert("RGB")

    def digests(self, memo: DigestMemo) -> list[str]:
        """Return one digest for all rows."""
        shape = str(self.pixels.shape).encode()
        return [self.digest or blake3_bytes(shape, np.ascontiguousarray(self.pixels).tobytes())]

    def select(self, rows: Sequence[int]) -> ArrayImages:
        """Return a reader of these rows, in this order."""
        return ArrayImages(self.pixels[np.asarray(rows, dtype=np.intp)], self.digest)
