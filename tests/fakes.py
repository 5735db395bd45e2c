"""Small stand-ins that follow the contracts: a dataset in memory and a backbone without weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from featcache.datasets.dataset import DigestMemo, Split
from featcache.digest import Json, blake3_bytes
from featcache.errors import UnreadableImageError
from featcache.extraction.options import Options
from featcache.extraction.progress import Silent
from featcache.extraction.run import Extraction
from featcache.spec import BackboneIdentity, ExtractionSpec, Numerics
from featcache.store.cache import Cache
from featcache.store.feature_set import FeatureSet


class NoMemo:
    def file_digest(self, path: str) -> str:
        return ""


@dataclass(frozen=True)
class ArrayImages:
    """Images in memory; rows in `broken` cannot be read."""

    pixels: NDArray[np.uint8]
    broken: frozenset[int] = frozenset()

    def read(self, row: int) -> Image.Image:
        if row in self.broken:
            raise UnreadableImageError("truncated: 3 bytes missing")
        return Image.fromarray(self.pixels[row])

    def digests(self, memo: DigestMemo) -> list[str]:
        return [blake3_bytes(self.pixels.tobytes())]


def fake_split(
    rows: int, *, classes: int = 3, broken: Sequence[int] = (), seed: int = 0, name: str = "train"
) -> Split:
    rng = np.random.default_rng(seed)
    return Split(
        dataset="fake",
        name=name,
        ids=tuple(f"{name}/{row:05d}.png" for row in range(rows)),
        labels=rng.integers(0, classes, rows),
        class_names=tuple(f"class {i}" for i in range(classes)),
        images=ArrayImages(rng.integers(0, 256, (rows, 6, 5, 3), np.uint8), frozenset(broken)),
    )


@dataclass(frozen=True)
class FakeTransform:
    size: int = 4

    @property
    def spec(self) -> Mapping[str, Json]:
        return {"resize": self.size, "engine": "fake"}

    @property
    def input_shape(self) -> tuple[int, int, int]:
        return (3, self.size, self.size)

    def __call__(self, image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.array(image.resize((self.size, self.size)))).permute(2, 0, 1)


@dataclass
class FakeBackbone:
    """A fixed random projection of the pixels; `hook` sees every batch first."""

    dim: int = 8
    seed: int = 0
    hook: Callable[[torch.Tensor], None] | None = None
    transform: FakeTransform = field(default_factory=FakeTransform)
    default_tap: str = "pooled"

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        self._weight = torch.randn(3 * self.transform.size**2, self.dim, generator=generator)

    @property
    def identity(self) -> BackboneIdentity:
        digest = blake3_bytes(self._weight.numpy().tobytes())
        return BackboneIdentity(name="fake", architecture="projection", weights=digest)

    @property
    def taps(self) -> Mapping[str, tuple[int, ...]]:
        return {"pooled": (self.dim,), "wide": (2 * self.dim,)}

    def to(self, device: str) -> FakeBackbone:
        return self

    def embed(self, images: torch.Tensor, taps: Sequence[str]) -> dict[str, torch.Tensor]:
        if self.hook is not None:
            self.hook(images)
        pooled = images.flatten(1).float() / 255 @ self._weight
        both = {"pooled": pooled, "wide": torch.cat([pooled, -pooled], 1)}
        return {tap: both[tap] for tap in taps}


def specs_for(
    split: Split, backbone: FakeBackbone, taps: Sequence[str] = ("pooled",), **numerics: str
) -> list[ExtractionSpec]:
    return [
        ExtractionSpec(
            dataset=split.identity(NoMemo()),
            backbone=backbone.identity,
            transform=backbone.transform.spec,
            tap=tap,
            numerics=Numerics(**numerics),  # type: ignore[arg-type]
        )
        for tap in taps
    ]


class Notes(Silent):
    """Keeps what extraction says."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, message: str) -> None:
        self.said.append(message)


def fill(
    cache: Cache,
    split: Split,
    backbone: FakeBackbone | None = None,
    taps: Sequence[str] = ("pooled",),
    *,
    notes: Notes | None = None,
    batch_size: int | None = 16,
    workers: int | None = 0,
    **numerics: str,
) -> list[FeatureSet]:
    """Extract a split in this process and open the sealed sets."""
    backbone = backbone or FakeBackbone()
    specs = specs_for(split, backbone, taps, **numerics)
    options = Options(device="cpu", batch_size=batch_size, workers=workers)
    Extraction(cache, split, backbone, specs, options, notes or Notes()).run({"created": "now"})
    return [FeatureSet(cache.path_of(spec)) for spec in specs]
