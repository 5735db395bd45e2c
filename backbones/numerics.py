"""The compute precision of a forward pass, set for its duration and restored after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from featcache.errors import OptionError
from featcache.spec import ComputeDtype

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def check_supported(compute: ComputeDtype, device_type: str) -> None:
    """Refuse a precision that the device does not have.

    Raises:
        OptionError: For fp16 or tf32 on the CPU.
    """
    if device_type == "cpu" and compute in ("fp16", "tf32"):
        raise OptionError(
            f"Precision {compute!r} must run on a CUDA device; got device 'cpu'. "
            "Use fp32 or bf16, or --device cuda."
        )


@contextmanager
def precision(compute: ComputeDtype, device_type: str) -> Iterator[None]:
    """Run a block at a compute precision, whatever the process-wide flags say.

    'fp32' means IEEE: TF32 and reduced-precision kernels are off, on CUDA and in oneDNN.
    'bf16' and 'fp16' autocast, so that sums and norms stay in float32. The flags belong to the
    process: two threads must not be in such blocks of different precision at once.

    Raises:
        OptionError: If the device does not have this precision.
    """
    check_supported(compute, device_type)
    dtype = _AUTOCAST.get(compute)
    with (
        _float32_kernels("tf32" if compute == "tf32" else "ieee"),
        torch.autocast(device_type, dtype=dtype or torch.bfloat16, enabled=dtype is not None),
    ):
        yield


@contextmanager
def _float32_kernels(mode: str) -> Iterator[None]:
    knobs = _knobs(mode)
    before = [getattr(owner, name) for owner, name, _ in knobs]
    try:
        for owner, name, value in knobs:
            setattr(owner, name, value)
        yield
    finally:
        for (owner, name, _), value in zip(knobs, before, strict=True):
            setattr(owner, name, value)


def _knobs(mode: str) -> list[tuple[Any, str, Any]]:
    """Return (owner, attribute, value) of each process-wide flag to set for `mode`."""
    backends: Any = torch.backends
    if hasattr(backends.cuda.matmul, "fp32_precision"):
        cuda = [(backends.cuda.matmul, "fp32_precision", mode)]
        cuda += [(backends.cudnn.conv, "fp32_precision", mode)]
        # oneDNN would use bf16 for `set_float32_matmul_precision('medium')`
        return cuda + [
            (owner, "fp32_precision", "ieee")
            for owner in (backends.mkldnn.matmul, backends.mkldnn.conv)
        ]
    on = mode == "tf32"  # torch < 2.9
    return [(backends.cuda.matmul, "allow_tf32", on), (backends.cudnn, "allow_tf32", on)]
