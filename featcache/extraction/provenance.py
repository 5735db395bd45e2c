"""How a result came about: versions and device. Recorded, never part of a key."""

from __future__ import annotations

import platform
from functools import lru_cache
from importlib import metadata

from featcache.digest import Json

_PACKAGES = (
    *("featcache", "torch", "torchvision", "timm", "pillow", "numpy", "zarr"),
    *("faiss-gpu", "faiss-cpu"),
)


@lru_cache(maxsize=4)
def environment(device: str) -> dict[str, Json]:
    """Return versions of the libraries that matter and the name of the device."""
    return {
        "device": device_name(device),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
    }


def device_name(device: str) -> str:
    """Return the product name of a device: the GPU's, or the processor architecture."""
    if device.startswith("cuda"):
        import torch

        return str(torch.cuda.get_device_name(device))
    return f"cpu ({platform.machine()})"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
