"""The digest of the weights that are really in a module."""

from __future__ import annotations

import torch

from featcache.digest import blake3_bytes, canonical_json

_COUNTER = "num_batches_tracked"
"""BatchNorm's training step count: no output in eval mode depends on it, and files differ in it."""


def weights_digest(module: torch.nn.Module) -> str:
    """Return the BLAKE3 of a module's state dict, 64 hex digits; '' if it holds no tensor.

    Entries go in by sorted name, each as its name, dtype, shape and raw bytes, so the digest
    does not depend on the file format, the memory layout or the device. What is not in the
    state dict (a removed classifier, non-persistent buffers) and BatchNorm's step counters are
    left out.
    """
    parts: list[bytes | memoryview] = []
    for name, tensor in sorted(module.state_dict().items()):
        if isinstance(tensor, torch.Tensor) and not name.endswith(_COUNTER):
            head = [name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
            parts += [canonical_json(head).encode(), _bytes_of(tensor)]
    return blake3_bytes(*parts) if parts else ""


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    """Return the raw bytes in row-major order; bfloat16 and scalars included."""
    flat = tensor.detach().to("cpu").contiguous().reshape(-1)  # (numel,)
    return flat.view(torch.uint8).numpy().data
