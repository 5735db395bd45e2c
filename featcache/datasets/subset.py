"""`SOURCE?rows=N`: a fixed stratified part of each split of any dataset.

Which rows are taken depends on ids and labels alone, and a smaller part lies inside a larger one.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featcache.datasets.dataset import Dataset, DigestMemo, ImageReader, Split
from featcache.datasets.images import Selectable
from featcache.errors import OptionError

_SUFFIX = re.compile(r"\?(\w+(?:=[^?/\\&]*)?(?:&\w+(?:=[^?/\\&]*)?)*)$")


def parse_suffix(source: str) -> tuple[str, int | None, bool]:
    """Split `SOURCE?part&rows=N` into SOURCE, N (None without it) and whether it says `part`.

    Raises:
        OptionError: If the suffix is another, or N is not a positive integer.
    """
    found = _SUFFIX.search(source)
    if found is None:
        return source, None, False
    rows, is_part = None, False
    for item in found[1].split("&"):
        key, _, value = item.partition("=")
        if item == "part" and not is_part:
            is_part = True
        elif key == "rows" and rows is None and re.fullmatch("[0-9]{1,18}", value) and int(value):
            rows = int(value)
        else:
            raise OptionError(
                "A dataset's `?` suffix must be `?rows=N` with a positive integer N, `?part`, or "
                f"`?part&rows=N`; got {found[0]!r}. Write for example digits?rows=300."
            )
    return source[: found.start()], rows, is_part


def subset_name(name: str, rows: int) -> str:
    """Return the name in the cache of `rows` rows per split of the dataset `name`."""
    return f"{name}-{rows}"


@dataclass(frozen=True, slots=True)
class SubsetDataset:
    """At most `rows` rows of each split of a dataset."""

    whole: Dataset
    rows: int
    first: Callable[[], Sequence[str]] = tuple
    """Gives the ids that are taken before all others, such as answers in a gallery."""

    @property
    def name(self) -> str:
        """Name in the cache."""
        return subset_name(self.whole.name, self.rows)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, train first."""
        return self.whole.splits

    def load(self, split: str) -> Split:
        """Return the part of one split; the whole split if it is not larger."""
        whole = self.whole.load(split)
        rows = choose_rows(whole.ids, whole.labels, self.rows, first=self.first())
        return replace(
            whole,
            dataset=self.name,
            ids=tuple(whole.ids[row] for row in rows),
            labels=whole.labels[rows],
            images=_select(whole.images, rows.tolist()),
            facts={**whole.facts, "subset_rows": self.rows, "subset_of_rows": len(whole)},
        )


def choose_rows(
    ids: Sequence[str], labels: NDArray[np.int64], count: int, *, first: Sequence[str] = ()
) -> NDArray[np.int64]:
    """Choose `count` rows, spread over the labels as the whole is.

    Within a label, rows are ordered by the SHA-256 of their id; the k-th of n rows gets the rank
    k / n, and the rows of lowest rank are taken. So each label gets a row before any gets a
    second, and fewer rows are always a part of more. Where there are fewer rows than labels, the
    labels are taken in a fixed order of their own, so that every split gets the same ones.

    Args:
        ids: N unique ids.
        labels: Shape (N,).
        count: How many to choose; N or more gives all.
        first: Ids that go before all others, in this order; those that are not there do not count.

    Returns:
        Row numbers, ascending, shape (min(count, N),).
    """
    hashes = [hashlib.sha256(name.encode()).digest() for name in ids]
    by_label: defaultdict[int, list[int]] = defaultdict(list)
    for row in sorted(range(len(ids)), key=hashes.__getitem__):
        by_label[int(labels[row])].append(row)
    place = {name: number - len(first) for number, name in enumerate(first)}  # below every rank
    ranked = sorted(
        (place.get(ids[row], k / len(rows)), hashes[row] if k else _label_hash(label), row)
        for label, rows in by_label.items()
        for k, row in enumerate(rows)
    )
    return np.array(sorted(row for _, _, row in ranked[:count]), dtype=np.int64)


def _label_hash(label: int) -> bytes:
    return hashlib.sha256(str(label).encode()).digest()


def _select(images: ImageReader, rows: Sequence[int]) -> ImageReader:
    return images.select(rows) if isinstance(images, Selectable) else _Rows(images, tuple(rows))


@dataclass(frozen=True, slots=True)
class _Rows:
    """Some rows of a reader that cannot select them itself."""

    images: ImageReader
    rows: tuple[int, ...]

    def read(self, row: int) -> Image.Image:
        return self.images.read(self.rows[row])

    def digests(self, memo: DigestMemo) -> list[str]:
        digests = self.images.digests(memo)
        return digests if len(digests) == 1 else [digests[row] for row in self.rows]
