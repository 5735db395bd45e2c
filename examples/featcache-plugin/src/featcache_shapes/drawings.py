"""A dataset: ids, labels, class names, and a reader that gives the image of a row."""

import numpy as np

from featcache.datasets.dataset import Dataset, Split
from featcache.datasets.images import ArrayImages
from featcache.datasets.source import LoadedDataset, Source

CLASSES = ("circle", "square", "stripes")
SIDE = 64
ROWS = {"train": 60, "test": 30}


def open_shapes(_rest: str) -> Dataset:
    """Open the dataset; what follows `shapes@` would be in `_rest`."""
    return LoadedDataset("shapes", tuple(ROWS), load)


def load(split: str) -> Split:
    """Return one split; the class of a row is its number modulo three."""
    rng = np.random.default_rng([1968, list(ROWS).index(split)])
    labels = np.arange(ROWS[split]) % len(CLASSES)
    return Split(
        dataset="shapes",
        name=split,
        ids=tuple(f"{split}/{row:03d}" for row in range(len(labels))),
        labels=labels,
        class_names=CLASSES,
        images=ArrayImages(np.stack([drawing(label, rng) for label in labels])),
        facts={"licence": "CC0-1.0"},
    )


def drawing(label: int, rng: np.random.Generator) -> np.ndarray:
    """Return one noisy drawing, shape (SIDE, SIDE), uint8."""
    y, x = np.mgrid[:SIDE, :SIDE] - rng.integers(24, 40, (2, 1, 1))
    size = rng.integers(10, 20)
    inside = (x**2 + y**2 < size**2, np.maximum(abs(x), abs(y)) < size, x // 4 % 2 == 0)[label]
    noise = rng.normal(0, 12, (SIDE, SIDE))
    return np.clip(200 * inside + 20 + noise, 0, 255).astype(np.uint8)


SOURCE = Source(name=lambda _rest: "shapes", open=open_shapes)
