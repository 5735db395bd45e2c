"""Worker processes that decode and transform images, in row order and in bounded memory."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from featcache.backbone import Transform
from featcache.datasets.dataset import ImageReader
from featcache.errors import ExtractionError, UnreadableImageError

PREFETCH = 4
"""Batches each worker may hold ready: bounds the memory of the queue."""
MAX_ASPECT = 200
"""Longest side over shortest: beyond it, scaling the shorter side up would fill the memory."""


@dataclass(frozen=True, slots=True)
class Images:
    """Consecutive rows, ready for the network."""

    start: int
    pixels: torch.Tensor
    """Shape (n, 3, H, W), uint8; zeros where a row is unreadable."""
    unreadable: dict[int, str]
    """Row to reason."""

    def pin_memory(self) -> Images:
        """Return the batch in page-locked memory (the loader calls this for CUDA)."""
        return Images(self.start, self.pixels.pin_memory(), self.unreadable)


class _Ranges(TorchDataset[Images]):
    """Item i is the batch of rows `ranges[i]`; one bad image never takes others along."""

    def __init__(
        self, reader: ImageReader, transform: Transform, ranges: Sequence[tuple[int, int]]
    ) -> None:
        self._reader, self._transform, self._ranges = reader, transform, ranges

    def __len__(self) -> int:
        return len(self._ranges)

    def __getitem__(self, index: int) -> Images:
        start, stop = self._ranges[index]
        pixels = torch.zeros((stop - start, *self._transform.input_shape), dtype=torch.uint8)
        unreadable: dict[int, str] = {}
        for row in range(start, stop):
            try:
                image = self._reader.read(row)
                if max(image.size) > MAX_ASPECT * min(image.size):
                    size = f"{image.width}x{image.height}"
                    raise UnreadableImageError(f"too elongated to scale: {size} pixels")  # noqa: TRY301
                pixels[row - start] = self._transform(image)
            except UnreadableImageError as error:
                unreadable[row] = str(error)
            except MemoryError:
                unreadable[row] = "too large for the memory of a worker"
        return Images(start, pixels, unreadable)


INLINE_SHARE = 0.3
"""Decoding time over embedding time below which a CPU decodes best between batches: a decoding
process would keep taking a core from the network's threads, which wait for each other."""


def n_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_workers(device: str, *, decode_s: float, embed_s: float) -> int:
    """Return how many decoding processes to start for one device.

    Args:
        device: Where the network runs; a GPU leaves all cores but one to decoding.
        decode_s: Seconds to decode one batch in this process.
        embed_s: Seconds to embed it.
    """
    if device != "cpu":
        return max(1, min(n_cores() - 1, 16))
    return 0 if decode_s < INLINE_SHARE * embed_s else max(1, n_cores() // 2)


def load_images(
    reader: ImageReader,
    transform: Transform,
    ranges: Sequence[tuple[int, int]],
    *,
    workers: int,
    pin_memory: bool,
) -> Iterator[Images]:
    """Yield one batch per row range, in order.

    Args:
        reader: Gives the image of a row.
        transform: Turns it into the network's input.
        ranges: Row ranges [start, stop).
        workers: Decoding processes; 0 decodes in this one.
        pin_memory: Put batches into page-locked memory for a quick copy to a CUDA device.

    Raises:
        ExtractionError: If a worker process dies (out of memory, a crash in a decoder).
    """
    if not ranges:
        return
    loader = DataLoader(
        _Ranges(reader, transform, ranges),
        batch_size=None,
        num_workers=min(workers, len(ranges)),
        prefetch_factor=PREFETCH if workers else None,
        pin_memory=pin_memory,
        worker_init_fn=_ignore_interrupt,
    )
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise ExtractionError(
            f"Decoding workers must stay alive; one died ({error}). Rows so far are kept: run the "
            "same command again, with fewer --workers if memory was short."
        ) from error


def _ignore_interrupt(_worker: int) -> None:
    """Leave Ctrl-C to the parent, which stops its workers in order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
