"""`textures`: patches of the photographs that scikit-image ships; each photograph is a class.

Train patches come from the left of a photograph and test patches from the right, with a gap, so
that no pixel is in both. The patches of one photograph are alike: a set to try things on, where
good backbones come near 100 %, not a benchmark.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featcache.datasets.dataset import Dataset, Split
from featcache.datasets.decode import decode
from featcache.datasets.images import ArrayImages
from featcache.datasets.named import facts_of
from featcache.datasets.source import LoadedDataset, Source, refuse_option
from featcache.digest import blake3_bytes
from featcache.errors import DatasetError, MissingDependencyError

PATCH = 64
"""Side of a patch in pixels."""
ROWS = 6
COLUMNS: Mapping[str, int] = {"train": 4, "test": 2}
"""Patches side by side in a split: 24 train and 12 test patches of each photograph."""
GAP = 16
"""Pixels between the train and the test part."""


@dataclass(frozen=True, slots=True)
class _Photograph:
    file: str
    box: tuple[int, int, int, int] | None = None
    """Part that is cut, (left, top, right, bottom); the whole if None."""


PHOTOGRAPHS: Mapping[str, _Photograph] = {
    "astronaut": _Photograph("astronaut.png"),
    "brick": _Photograph("brick.png"),
    "camera": _Photograph("camera.png"),
    "cat": _Photograph("chelsea.png"),
    "cell": _Photograph("cell.png"),
    "clock": _Photograph("clock_motion.png"),
    "coffee": _Photograph("coffee.png"),
    "coins": _Photograph("coins.png"),
    "galaxies": _Photograph("hubble_deep_field.jpg"),
    "grass": _Photograph("grass.png"),
    "gravel": _Photograph("gravel.png"),
    "moon": _Photograph("moon.png"),
    "motorcycle": _Photograph("motorcycle_left.png"),
    "retina": _Photograph("retina.jpg", (300, 300, 1111, 1111)),  # its corners are black
    "rocket": _Photograph("rocket.jpg"),
    "tissue": _Photograph("ihc.png"),
}
"""Class name to photograph, sorted by name."""


def open_textures(rest: str) -> Dataset:
    """Open the embedded textures; `rest` must be empty.

    Raises:
        OptionError: If `rest` is not empty.
        MissingDependencyError: If scikit-image is not installed.
        DatasetError: If its photographs are not where they belong.
    """
    refuse_option("textures", rest)
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        raise MissingDependencyError("The dataset 'textures'", "quickstart")
    folder = Path(spec.origin).parent / "data"
    missing = [one.file for one in PHOTOGRAPHS.values() if not (folder / one.file).is_file()]
    if missing:
        raise DatasetError(
            f"scikit-image must ship its photographs; {missing[0]!r} is not in {str(folder)!r}. "
            "Reinstall it with: pip install --force-reinstall scikit-image"
        )
    return LoadedDataset("textures", tuple(COLUMNS), lambda split: _split(split, folder))


def _split(name: str, folder: Path) -> Split:
    patches, digest = _patches(folder)
    per_class = patches[name].shape[1]
    return Split(
        dataset="textures",
        name=name,
        ids=tuple(f"{label}/{name}-{i:02d}" for label in PHOTOGRAPHS for i in range(per_class)),
        labels=np.repeat(np.arange(len(PHOTOGRAPHS), dtype=np.int64), per_class),
        class_names=tuple(PHOTOGRAPHS),
        images=ArrayImages(patches[name].reshape(-1, PATCH, PATCH, 3), digest),
        facts=facts_of("textures"),
    )


@cache
def _patches(folder: Path) -> tuple[dict[str, NDArray[np.uint8]], str]:
    """Return (classes, patches, PATCH, PATCH, 3) per split, and a digest of files and grid.

    The files are digested, not the pixels: JPEG decoders differ in last bits between versions.
    """
    grid = repr((PATCH, ROWS, COLUMNS, GAP, [one.box for one in PHOTOGRAPHS.values()]))
    files = [(folder / one.file).read_bytes() for one in PHOTOGRAPHS.values()]
    cut: dict[str, list[NDArray[np.uint8]]] = {name: [] for name in COLUMNS}
    for photograph, data in zip(PHOTOGRAPHS.values(), files, strict=True):
        pixels = np.asarray(decode(data).crop(photograph.box) if photograph.box else decode(data))
        for name, patches in cut_patches(pixels).items():
            cut[name].append(patches)
    digest = blake3_bytes(grid.encode(), *files)
    return {name: np.stack(patches) for name, patches in cut.items()}, digest


def cut_patches(pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8]]:
    """Cut the train and the test patches of one photograph from an even grid.

    Patches of one split overlap where the photograph is too small to lay them side by side.

    Args:
        pixels: Shape (H, W, 3), with H >= PATCH and W >= GAP + 3 * PATCH.

    Returns:
        Split name to patches, shape (ROWS * columns, PATCH, PATCH, 3); no pixel is in both.
    """
    height, width = pixels.shape[:2]
    border = (width - GAP) * COLUMNS["train"] // sum(COLUMNS.values())
    areas = {"train": (0, border), "test": (border + GAP, width)}
    return {
        name: np.stack(
            [
                pixels[top : top + PATCH, left : left + PATCH]
                for top in _starts(0, height, ROWS)
                for left in _starts(*areas[name], COLUMNS[name])
            ]
        )
        for name in COLUMNS
    }


def _starts(start: int, stop: int, count: int) -> list[int]:
    last = stop - PATCH
    return [start + (last - start) * i // (count - 1) for i in range(count)]


SOURCE = Source(name=lambda _rest: "textures", open=open_textures)
