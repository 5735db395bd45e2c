"""`torchvision:CLASS` or `torchvision:CLASS@ROOT`: torchvision's classification datasets.

ROOT is what torchvision's constructor gets; `$FEATCACHE_DATA` by default. Nothing is downloaded.
torchvision finds files and labels; images are decoded by our own policy. Note that torchvision
unpickles CIFAR's files, after it has checked their MD5.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.datasets.dataset import NO_LABEL, Dataset, ImageReader, Split
from featcache.datasets.images import ArrayImages, FileImages
from featcache.datasets.named import DATA_VARIABLE, data_root, facts_of, named
from featcache.datasets.source import LoadedDataset, Source, order_splits, text_id
from featcache.digest import Json
from featcache.errors import DatasetError, UnknownNameError, did_you_mean

PREFIX = "torchvision:"


def open_torchvision(rest: str) -> Dataset:
    """Open one of torchvision's datasets; its files are read when a split is loaded.

    Args:
        rest: `CLASS` or `CLASS@ROOT`.

    Raises:
        UnknownNameError: If CLASS has no row in `records`.
        DatasetError: If no root is known.
    """
    name, _, option = rest.partition("@")
    splits = _splits(name)
    root = Path(option).expanduser() if option else data_root()
    if root is None:
        raise DatasetError(
            f"The folder that holds {name} must be known; got none. Set {DATA_VARIABLE}, or write "
            f"{PREFIX}{name}@ROOT."
        )
    order = order_splits(set(splits))
    return LoadedDataset(name, order, lambda split: _load(name, split, splits[split], root))


def _name(rest: str) -> str:
    return rest.partition("@")[0]


def _splits(name: str) -> Mapping[str, Mapping[str, Json]]:
    """Return our split names and the arguments torchvision takes for each."""
    known = {key.removeprefix(PREFIX): key for key in named() if key.startswith(PREFIX)}
    if name not in known:
        hint = did_you_mean(PREFIX + name, known.values(), most=3)
        raise UnknownNameError(
            f"{PREFIX}{name} is not a known dataset. {hint}"
            "List them with: featcache ls datasets 'torchvision:*'"
        )
    splits: Mapping[str, Mapping[str, Json]] = named()[known[name]]["splits"]
    return splits


def _load(name: str, split: str, arguments: Mapping[str, Json], root: Path) -> Split:
    inner = _construct(name, arguments, root)
    labels: NDArray[np.int64]
    reader: ImageReader
    if (samples := _samples(inner)) is None:
        reader, labels = _arrays(inner)
        ids = tuple(f"{split}/{row:05d}" for row in range(len(labels)))
    else:
        base = os.path.abspath(root)  # noqa: PTH100
        rows = sorted((_relative(path, base), label) for path, label in samples)
        reader = FileImages(base, tuple(path for path, _ in rows))
        ids = tuple(text_id(path) for path, _ in rows)
        labels = np.array([label for _, label in rows], dtype=np.int64)
    facts = facts_of(PREFIX + name)
    classes = _class_names(inner, facts["classes"])
    if len(labels) and not NO_LABEL <= labels.min() <= labels.max() < len(classes):
        raise DatasetError(
            f"Labels of {name} must be below {len(classes)}, its number of classes; got "
            f"{labels.min()}..{labels.max()}. Fetch the files again."
        )
    return Split(
        dataset=name,
        name=split,
        ids=ids,
        labels=labels,
        class_names=classes,
        images=reader,
        facts=facts | {"torchvision": dict(arguments)},
    )


def _construct(name: str, arguments: Mapping[str, Json], root: Path) -> Any:  # noqa: ANN401
    try:
        import torchvision.datasets as library

        if not root.is_dir():
            raise FileNotFoundError(f"there is no folder {str(root)!r}")  # noqa: TRY301
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return getattr(library, name)(str(root), **arguments)
    except Exception as error:  # torchvision raises anything on files it does not expect
        call = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        call = f"{name}({str(root)!r}, {call + ', ' if call else ''}download=True)"
        how = f'python -c "from torchvision.datasets import {name}; {call}"'
        if not named()[PREFIX + name].get("downloadable", True):
            how = "by hand, as torchvision's documentation says; it cannot download them any more"
        raise DatasetError(
            f"The files of {PREFIX}{name} must lie in {str(root)!r} as torchvision lays them out; "
            f"got: {' '.join(str(error).split())[:200]}. Get them with: {how}"
        ) from error


def _samples(inner: Any) -> list[tuple[str, int]] | None:  # noqa: ANN401
    """Return (file, label) per row, or None if the dataset holds arrays."""
    for name in ("samples", "_samples"):
        if hasattr(inner, name):
            return [(str(path), int(label)) for path, label in getattr(inner, name)]
    for name in ("_image_files", "_images"):
        if hasattr(inner, name):
            pairs = zip(getattr(inner, name), inner._labels, strict=True)
            return [(str(path), int(label)) for path, label in pairs]
    if hasattr(inner, "categories"):
        return _caltech(inner)
    return None


def _caltech(inner: Any) -> list[tuple[str, int]]:  # noqa: ANN401
    """Return (file, label) of Caltech 101 or 256, which hold numbers of images by category."""
    is_101 = type(inner).__name__ == "Caltech101"
    folder = Path(inner.root) / ("101_ObjectCategories" if is_101 else "256_ObjectCategories")
    return [
        (
            str(
                folder
                / inner.categories[label]
                / (f"image_{number:04d}.jpg" if is_101 else f"{label + 1:03d}_{number:04d}.jpg")
            ),
            label,
        )
        for label, number in zip(inner.y, inner.index, strict=True)
    ]


def _arrays(inner: Any) -> tuple[ArrayImages, NDArray[np.int64]]:  # noqa: ANN401
    pixels = np.asarray(inner.data)
    if pixels.ndim == 4 and pixels.shape[3] != 3:
        pixels = pixels.transpose(0, 2, 3, 1)  # (N, 3, H, W) to (N, H, W, 3)
    labels = np.asarray(inner.targets if hasattr(inner, "targets") else inner.labels)
    return ArrayImages(np.ascontiguousarray(pixels)), labels.astype(np.int64)


def _class_names(inner: Any, n_classes: int) -> tuple[str, ...]:  # noqa: ANN401
    names = getattr(inner, "classes", None) or getattr(inner, "categories", None)
    if names is None:
        return tuple(str(label) for label in range(n_classes))
    return tuple(name if isinstance(name, str) else ", ".join(name) for name in names)


def _relative(path: str, base: str) -> str:
    return Path(os.path.relpath(path, base)).as_posix()


SOURCE = Source(name=_name, open=open_torchvision)
