"""Image files of which only a part is the image: a box, or all but a border."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from featcache.datasets.dataset import DigestMemo
from featcache.datasets.images import FileImages
from featcache.digest import blake3_bytes
from featcache.errors import UnreadableImageError

Box = tuple[float, float, float, float]
"""Left, upper, right, lower; in pixels from the upper left corner."""


@dataclass(frozen=True, slots=True)
class CroppedFiles:
    """One image file per row, without a border, or cut to a box of its own."""

    files: FileImages
    border: int = 0
    """Pixels taken off each side."""
    boxes: tuple[Box, ...] = ()
    """One per row, or none; rounded to whole pixels as PIL does, and cut at the image's edges."""

    def read(self, row: int) -> Image.Image:
        """Return the decoded part of the image in mode RGB.

        Raises:
            UnreadableImageError: If it cannot be decoded, or if nothing would be left of it.
        """
        whole = self.files.read(row)
        box = self._box(row, *whole.size)
        if box[0] >= box[2] or box[1] >= box[3]:
            raise UnreadableImageError(f"nothing is left of {whole.size} pixels cut to {box}")
        return whole.crop(box)

    def _box(self, row: int, width: int, height: int) -> tuple[int, int, int, int]:
        edge = self.border
        left, upper, right, lower = edge, edge, width - edge, height - edge
        if not self.boxes:
            return left, upper, right, lower
        x0, y0, x1, y1 = (round(value) for value in self.boxes[row])
        return max(left, x0), max(upper, y0), min(right, x1), min(lower, y1)

    def digests(self, memo: DigestMemo) -> list[str]:
        """Return one digest per row, of the file's bytes and what is cut out of it."""
        return [
            digest and blake3_bytes(digest.encode(), self._cut(row).encode())
            for row, digest in enumerate(self.files.digests(memo))
        ]

    def _cut(self, row: int) -> str:
        return f"border {self.border} box {self.boxes[row] if self.boxes else None}"

    def select(self, rows: Sequence[int]) -> CroppedFiles:
        """Return a reader of these rows, in this order."""
        boxes = tuple(self.boxes[row] for row in rows) if self.boxes else ()
        return CroppedFiles(self.files.select(rows), self.border, boxes)
