"""Run the network on a batch: batch size, out-of-memory, and checks of what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featcache.errors import BackboneError, ExtractionError, OptionError
from featcache.extraction.allocator import keep_freed_memory
from featcache.extraction.loader import Images

if TYPE_CHECKING:
    import torch

    from featcache.backbone import Backbone

CPU_BATCH = 16
"""Larger batches gain nothing on a processor: activations fall out of its cache."""
GPU_BATCH = 256
_CANNOT_ALLOCATE = ("out of memory", "can't allocate memory", "not enough memory")


def resolve_device(device: str) -> str:
    """Return a usable device; 'auto' is the first GPU if there is one.

    Raises:
        OptionError: If the device does not exist here.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise OptionError(
            f"`device` must be usable on this machine; {device!r} is not: {reason}. "
            "Use --device cpu or --device auto."
        ) from error
    return device


class Embedder:
    """Embeds batches on one device; halves its batch whenever memory runs out."""

    def __init__(self, backbone: Backbone, taps: Sequence[str], device: str) -> None:
        """Move the network to `device`; on a CPU, see `allocator.keep_freed_memory`."""
        if device == "cpu":
            keep_freed_memory()
        self._backbone, self._taps, self._device = backbone.to(device), tuple(taps), device
        self._limit: int | None = None

    def find_batch_size(self) -> int:
        """Return the batch that fits: a fixed one on a CPU, the largest of 256, 128, … on a GPU."""
        import torch

        if self._device == "cpu":
            return CPU_BATCH
        shape = self._backbone.transform.input_shape
        self._forward(torch.zeros((GPU_BATCH, *shape), dtype=torch.uint8))
        return min(self._limit or GPU_BATCH, GPU_BATCH)

    def warm_up(self, images: Images) -> None:
        """Embed a batch for nothing but the time it takes."""
        self._forward(images.pixels)

    def embed(self, images: Images, stored: str) -> dict[str, NDArray[np.floating]]:
        """Return each tap's features as they will be stored, zeros where a row is unreadable.

        Raises:
            ExtractionError: If a feature is NaN, infinite or too large for the stored type.
            BackboneError: If the features have another shape than declared.
        """
        features = self._forward(images.pixels)
        bad = [row - images.start for row in images.unreadable]
        return {tap: self._checked(tap, features[tap], images, bad, stored) for tap in self._taps}

    def _forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Embed in parts no larger than what fits, learning that limit on the way."""
        import torch

        while True:
            limit = self._limit or len(pixels)
            try:
                parts = [
                    self._backbone.embed(part.to(self._device, non_blocking=True), self._taps)
                    for part in torch.split(pixels, limit)
                ]
                break
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error):
                    raise
                if limit == 1:
                    raise ExtractionError(
                        "One image must fit into memory; it does not. Use a smaller backbone, "
                        "--precision bf16, or a device with more memory. Rows so far are kept."
                    ) from error
            self._limit = limit // 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        if len(parts) == 1:
            return parts[0]
        return {tap: torch.cat([part[tap] for part in parts]) for tap in self._taps}

    def _checked(
        self, tap: str, tensor: torch.Tensor, images: Images, bad: list[int], stored: str
    ) -> NDArray[np.floating]:
        expected = (len(images.pixels), *self._backbone.taps[tap])
        if tuple(tensor.shape) != expected:
            raise BackboneError(
                f"Backbone {self._backbone.identity.name!r} must give tap {tap!r} in shape "
                f"{expected}; got {tuple(tensor.shape)}. Correct its declared taps."
            )
        values: NDArray[np.floating] = tensor.detach().float().cpu().numpy()
        if bad:
            values = values.copy()
            values[bad] = 0
        limit = float(np.finfo(stored).max)
        largest = np.abs(values).max(initial=0.0)  # NaN wins any comparison of max
        if not largest <= limit:
            per_row = np.abs(values).reshape(len(values), -1).max(axis=1)
            row = images.start + int(np.flatnonzero(~(per_row <= limit))[0])
            worst = per_row[row - images.start]
            advice = (
                "Store float32 with --stored float32."
                if np.isfinite(worst)
                else "Check the weights, or compute in --precision fp32."
            )
            raise ExtractionError(
                f"Features must be finite and at most {limit:g} to be stored as {stored}; row {row}"
                f" of tap {tap!r} has {worst:g}. {advice} Rows before it are kept."
            )
        return values.astype(stored)


def _is_out_of_memory(error: BaseException) -> bool:
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(phrase in str(error).lower() for phrase in _CANNOT_ALLOCATE)
