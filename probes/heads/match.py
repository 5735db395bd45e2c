"""Which column of a head stands for each class of a dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ShapeError

_NAMED = 3


def match_classes(
    dataset: Sequence[str],
    names: Sequence[str],
    descriptions: Sequence[str] = (),
    class_map: Mapping[str, str] | None = None,
) -> NDArray[np.intp]:
    """Return the column of each dataset class.

    What `class_map` says of a class holds; otherwise its column is the one of its name, or the only
    one with that description. Case and spaces count.

    Args:
        dataset: The K class names of the dataset.
        names: The C class names of the head, each once.
        descriptions: What each of the C classes is in words, or nothing.
        class_map: Dataset class to head class, by name or description.

    Returns:
        Shape (K,), distinct columns from 0 to C - 1.

    Raises:
        ShapeError: If a class is not among the head's, if two share a column, or if `class_map` has
            a class that the dataset lacks.
    """
    mapping = class_map or {}
    if strange := sorted(mapping.keys() - set(dataset)):
        raise ShapeError(
            f"`class_map` must be about classes of the dataset; it has {_listed(strange)}. "
            "Leave those lines out."
        )
    counts = Counter(descriptions)
    columns = {text: c for c, text in enumerate(descriptions) if counts[text] == 1}
    columns |= {name: c for c, name in enumerate(names)}
    found = [columns.get(mapping.get(name, name)) for name in dataset]
    if missing := [name for name, c in zip(dataset, found, strict=True) if c is None]:
        raise ShapeError(
            f"Each class of the dataset must be among the head's {len(names)}, such as "
            f"{_listed(names)}; {len(missing)} of {len(dataset)} are not: {_listed(missing)}. "
            "Name their classes in the protocol's `class_map`, or use another head."
        )
    result = np.array(found, dtype=np.intp)
    taken, times = np.unique(result, return_counts=True)
    if len(taken) < len(result):
        column = taken[times > 1][0]
        twins = [name for name, c in zip(dataset, found, strict=True) if c == column]
        raise ShapeError(
            f"Each class of the dataset must have a head class of its own; {_listed(twins)} share "
            f"{names[column]!r}. Correct `class_map`, or join the classes in the dataset."
        )
    return result


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(repr, names[:_NAMED])) + more
