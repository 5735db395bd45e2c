"""ImageNet-C: a folder for each corruption and severity, in them ImageNet's class folders.

    ROOT/noise/gaussian_noise/1/n01440764/*.JPEG      one folder per archive
    ROOT/gaussian_noise/1/n01440764/*.JPEG            all archives unpacked in one place

A split is called `CORRUPTION-SEVERITY`; its argument `group` is the archive.
"""

from __future__ import annotations

from pathlib import Path

from featcache.datasets.dataset import Split
from featcache.datasets.listed import existing
from featcache.datasets.readers.wnids import wnid_split
from featcache.datasets.recorded import Record


def read(record: Record, root: Path, split: str) -> Split:
    """Read one corruption at one severity; rows are ordered by class and file name.

    Raises:
        DatasetError: If there is no such folder, or if one in it is no class of ImageNet.
    """
    corruption, _, severity = split.rpartition("-")
    inner = f"{corruption}/{severity}"
    group = record.splits[split]["group"]
    return wnid_split(record, existing(record, root, f"{group}/{inner}", inner), split)
