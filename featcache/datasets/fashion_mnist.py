"""`fashion-mnist` or `fashion-mnist@DIR`: 70,000 grey images of clothes, from their IDX files.

They are looked for in DIR, in torchvision's folder below `$FEATCACHE_DATA`, and where Debian's
package `dataset-fashion-mnist` puts them.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featcache.datasets.dataset import Dataset, Split
from featcache.datasets.images import ArrayImages
from featcache.datasets.named import data_root, facts_of
from featcache.datasets.source import LoadedDataset, Source
from featcache.errors import DatasetError

CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
_STEMS = {"train": "train", "test": "t10k"}
_SIDE = 28
_UINT8 = 0x08
_MAX_INFLATION = 1032  # zlib: the most that deflate can shrink anything


def open_fashion_mnist(rest: str) -> Dataset:
    """Open Fashion-MNIST; `rest` is the folder of its files, or empty to look in known places.

    Raises:
        DatasetError: If no folder holds the files.
    """
    folders = _folders(rest)
    names = [f"{stem}-images-idx3-ubyte" for stem in _STEMS.values()]
    found = [folder for folder in folders if all(_find(folder, name) for name in names)]
    if found:
        return LoadedDataset("fashion-mnist", tuple(_STEMS), lambda split: _split(split, found[0]))
    raise DatasetError(
        "The files of Fashion-MNIST must be in one of "
        f"{', '.join(repr(str(folder)) for folder in folders)}; none holds "
        "train-images-idx3-ubyte[.gz] and t10k-images-idx3-ubyte[.gz]. Install Debian's package "
        "dataset-fashion-mnist, or write fashion-mnist@DIR."
    )


def _folders(rest: str) -> list[Path]:
    root = Path(rest).expanduser() if rest else data_root()
    below = [root / "FashionMNIST" / "raw"] if root is not None else []
    return [Path(rest).expanduser(), *below] if rest else [*below, DEBIAN_FOLDER]


def _find(folder: Path, name: str) -> Path | None:
    return next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)


def _split(name: str, folder: Path) -> Split:
    images = _file(folder, f"{_STEMS[name]}-images-idx3-ubyte")
    pixels = read_idx(images, 3)
    labels = read_idx(_file(folder, f"{_STEMS[name]}-labels-idx1-ubyte"), 1)
    if pixels.shape != (len(labels), _SIDE, _SIDE) or not len(labels) or labels.max() > 9:
        raise DatasetError(
            f"Fashion-MNIST must have images of shape (N, {_SIDE}, {_SIDE}) and N labels in 0..9; "
            f"{str(images)!r} has {pixels.shape} and {len(labels)} labels up to "
            f"{labels.max(initial=0)}. Fetch the files again."
        )
    return Split(
        dataset="fashion-mnist",
        name=name,
        ids=tuple(f"{name}/{row:05d}" for row in range(len(labels))),
        labels=labels.astype(np.int64),
        class_names=CLASSES,
        images=ArrayImages(pixels),
        facts=facts_of("fashion-mnist"),
    )


def _file(folder: Path, name: str) -> Path:
    if (found := _find(folder, name)) is None:
        raise DatasetError(
            f"{str(folder)!r} must hold {name} or {name}.gz; it does not. Fetch the file again."
        )
    return found


def read_idx(path: Path, n_dims: int) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes; `.gz` is decompressed.

    The header is checked against the file's size before anything of that size is allocated.

    Args:
        path: The file.
        n_dims: How many dimensions it must have.

    Raises:
        DatasetError: If it is not such a file, or is cut or too long.
    """
    is_gzip = path.suffix == ".gz"
    try:
        limit = path.stat().st_size * (_MAX_INFLATION if is_gzip else 1)
        with gzip.open(path) if is_gzip else path.open("rb") as stream:
            header = stream.read(4 + 4 * n_dims)
            if header[:4] != bytes([0, 0, _UINT8, n_dims]) or len(header) != 4 + 4 * n_dims:
                raise _broken(path, f"its header is {header.hex()}")
            shape = tuple(int(size) for size in np.frombuffer(header[4:], ">u4"))
            n_bytes = math.prod(shape)
            if n_bytes > limit:
                raise _broken(path, f"its header promises {n_bytes} bytes, the file is shorter")
            data = stream.read(n_bytes + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise _broken(path, str(getattr(error, "strerror", None) or error)) from error
    if len(data) != n_bytes:
        got = "more" if len(data) > n_bytes else str(len(data))
        raise _broken(path, f"its header promises {n_bytes} bytes, it holds {got}")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _broken(path: Path, got: str) -> DatasetError:
    return DatasetError(
        f"{str(path)!r} must be a whole IDX file of bytes; {got}. Fetch the file again."
    )


SOURCE = Source(name=lambda _rest: "fashion-mnist", open=open_fashion_mnist)
