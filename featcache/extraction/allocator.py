"""Keep freed memory in the process while a network runs on the CPU.

glibc gives every large block back to the system at once, so that each activation of each batch is
made of fresh pages again; half of a convolutional network's time can go into page faults.
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_TOP_PAD_BYTES = 64 << 20
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell glibc to reuse freed blocks, for the rest of the process.

    Results do not change; peak memory grows by about one batch of activations.

    Returns:
        Whether the C library took the settings; false on anything but glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER), (_M_TOP_PAD, _TOP_PAD_BYTES))
    return all([mallopt(name, value) for name, value in settings])
