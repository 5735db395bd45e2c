"""The contract between extraction and whatever holds images and labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from featcache.digest import Json, sha256_json
from featcache.spec import DatasetIdentity

if TYPE_CHECKING:
    from PIL import Image

NO_LABEL = -1
"""Label of a row without one."""


class DigestMemo(Protocol):
    """Remembers digests of files by (path, size, mtime), so that unchanged ones are free."""

    def file_digest(self, path: str) -> str:
        """Return the BLAKE3 of the file at `path`, hex; '' if it cannot be read."""


class ImageReader(Protocol):
    """Gives the image of a row; must be picklable (worker processes get a copy)."""

    def read(self, row: int) -> Image.Image:
        """Return the decoded image in mode RGB.

        Raises:
            UnreadableImageError: With the reason, if it cannot be decoded.
        """

    def digests(self, memo: DigestMemo) -> list[str]:
        """Return one content digest per row (or one for all rows in a list of length 1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """One split: an ordered list of samples with ids, labels and a reader of images."""

    dataset: str
    """Name of the dataset in the cache; says nothing about where the files lie."""
    name: str
    ids: tuple[str, ...]
    """Unique, stable, independent of the machine."""
    labels: NDArray[np.int64]
    """Shape (N,), indices into `class_names`, `NO_LABEL` where there is none."""
    class_names: tuple[str, ...]
    images: ImageReader
    facts: Mapping[str, Json] = field(default_factory=dict)
    """Licence, citation, chance level and the like; recorded, not part of the key."""

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.ids)

    def identity(self, memo: DigestMemo) -> DatasetIdentity:
        """Return what names these rows: ids, contents, labels and class names, in order."""
        return DatasetIdentity(
            name=self.dataset,
            split=self.name,
            rows=len(self.ids),
            fingerprint=sha256_json({"ids": self.ids, "digests": self.images.digests(memo)}),
            label_set=sha256_json({"classes": self.class_names, "labels": self.labels.tolist()}),
        )


@runtime_checkable
class Dataset(Protocol):
    """A named collection of splits."""

    @property
    def name(self) -> str:
        """Name in the cache."""

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, train first."""

    def load(self, split: str) -> Split:
        """Return one split; `split` must be one of `splits`.

        Raises:
            DatasetError: If the split does not exist or its files are not as they must be.
        """
