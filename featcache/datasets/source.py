"""Where datasets come from: what a scheme or a name stands for, and how it is called in a cache."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from featcache.datasets.dataset import Dataset, Split
from featcache.errors import DatasetError, OptionError

SPLIT_ALIASES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""What people call their splits, in lower case, to our names."""

_UNSAFE = re.compile(r"[^\w.]+")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


@dataclass(frozen=True, slots=True)
class Source:
    """What a scheme (`csv:REST`) or a name (`digits`, `fashion-mnist@REST`) stands for."""

    name: Callable[[str], str]
    """Gives the dataset's name in the cache for REST; touches no file."""
    open: Callable[[str], Dataset]
    """Opens the dataset for REST; raises a FeatcacheError."""


@dataclass(frozen=True, slots=True)
class LoadedDataset:
    """A dataset whose splits are made by one function."""

    name: str
    splits: tuple[str, ...]
    make: Callable[[str], Split]

    def load(self, split: str) -> Split:
        """Return one split.

        Raises:
            DatasetError: If `split` is not one of `splits`.
        """
        check_split(self, split)
        return self.make(split)


def check_split(dataset: Dataset, split: str) -> None:
    """Refuse a split that a dataset does not have.

    Raises:
        DatasetError: With the splits there are.
    """
    if split not in dataset.splits:
        raise DatasetError(
            f"A split of {dataset.name!r} must be one of {', '.join(dataset.splits)}; "
            f"got {split!r}. Choose one of these."
        )


def order_splits(names: set[str]) -> tuple[str, ...]:
    """Return split names in the order train, val, test, then all others sorted."""
    known = [name for name in ("train", "val", "test") if name in names]
    return (*known, *sorted(names.difference(known)))


def safe_name(text: str) -> str:
    """Return `text` as a dataset name: letters and digits of any script, `.`, `_` and `-`.

    The name is the same on each system (Unicode NFC) and never empty.
    """
    return _UNSAFE.sub("-", unicodedata.normalize("NFC", text)).strip("-.") or "images"


def path_name(rest: str, *, is_file: bool = False) -> str:
    """Return the dataset name of a path: its last part, without the extension of a file.

    A folder that is called like a split (`photos/train`) is named with its parent.
    """
    if _DRIVE.match(rest):
        parts = PureWindowsPath(rest).parts[1:]
    else:
        parts = Path(os.path.abspath(Path(rest).expanduser())).parts[1:]  # noqa: PTH100
    last = parts[-1] if parts else ""
    if is_file:
        last = last.rpartition(".")[0] or last
    if last.lower() in SPLIT_ALIASES and len(parts) > 1:
        last = f"{parts[-2]}-{last}"
    return safe_name(last)


def text_id(path: str) -> str:
    r"""Return a path from the file system as an id that is valid text.

    Bytes that are not UTF-8 are written as `\xNN`.
    """
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def class_facts(n_classes: int) -> dict[str, int | float]:
    """Return the facts that follow from the number of classes; none without classes."""
    return {"classes": n_classes, "chance": 1 / n_classes} if n_classes else {}


def some_of(names: list[str], limit: int = 5) -> str:
    """Return names for a message: at most `limit` of them, and how many more there are."""
    shown = ", ".join(repr(name) for name in names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown


def refuse_option(name: str, rest: str) -> None:
    """Refuse `name@rest` for a dataset that takes no option.

    Raises:
        OptionError: If `rest` is not empty.
    """
    if rest:
        raise OptionError(f"The dataset {name!r} takes no `@` option; got {rest!r}. Leave it out.")
