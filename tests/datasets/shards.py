"""Shards in the WebDataset format that tests write."""

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from tests.datasets.pictures import encoded, noise


def shard(path: Path, files: Iterable[tuple[str, bytes]], **options: object) -> Path:
    """Write a plain tar archive of these files, in this order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as archive:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def image(seed: int, kind: str = "PNG") -> bytes:
    return encoded(Image.fromarray(noise(6, 5, 3, seed=seed)), kind)


def samples(numbers: Iterable[int], classes: int = 3) -> list[tuple[str, bytes]]:
    """An image and a class for each number, as webdataset's own writer orders them."""
    files = []
    for n in numbers:
        files += [(f"{n:04d}.cls", str(n % classes).encode()), (f"{n:04d}.png", image(n))]
    return files
