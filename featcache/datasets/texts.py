"""Texts in the place of images: what a text tower embeds, with ids and labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featcache.datasets.source import some_of
from featcache.digest import blake3_bytes, sha256_json
from featcache.errors import DatasetError
from featcache.spec import DatasetIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSplit:
    """An ordered list of texts: prompts of classes, or captions of images."""

    name: str
    """Name in the cache. Not that of the images' dataset: `prompts`, `flickr30k-captions`."""
    split: str
    ids: tuple[str, ...]
    """Unique, stable, independent of the machine."""
    texts: tuple[str, ...]
    labels: NDArray[np.int64]
    """Shape (N,), indices into `class_names`, `NO_LABEL` where there is none."""
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse rows that do not fit together.

        Raises:
            DatasetError: If lengths differ, ids repeat, a text is blank or a label has no class.
        """
        n = len(self.texts)
        if len(self.ids) != n or self.labels.shape != (n,):
            raise DatasetError(
                f"Each text must have an id and a label; {self.name!r} has {n} texts, "
                f"{len(self.ids)} ids and labels of shape {self.labels.shape}. Give as many."
            )
        if len(set(self.ids)) < n:
            raise DatasetError(
                f"Ids of texts must differ; {n - len(set(self.ids))} of {self.name!r} repeat. "
                "Number the texts that have one source."
            )
        blank = [one for one, text in zip(self.ids, self.texts, strict=True) if not text.strip()]
        if blank:
            raise DatasetError(
                f"A text must have a character that is no space; those of {some_of(blank)} in "
                f"{self.name!r} have none. Leave them out."
            )
        if n and not -1 <= self.labels.min() <= self.labels.max() < len(self.class_names):
            raise DatasetError(
                f"Labels must be -1 or below the number of classes, {len(self.class_names)}; those "
                f"of {self.name!r} are {self.labels.min()} to {self.labels.max()}. Correct them."
            )

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.texts)

    def identity(self) -> DatasetIdentity:
        """Return what names these rows: ids, texts, labels and class names, in order.

        Raises:
            SpecError: If there is no text.
        """
        digests = [blake3_bytes(text.encode()) for text in self.texts]
        return DatasetIdentity(
            name=self.name,
            split=self.split,
            rows=len(self.texts),
            fingerprint=sha256_json({"ids": self.ids, "digests": digests}),
            label_set=sha256_json({"classes": self.class_names, "labels": self.labels.tolist()}),
        )
