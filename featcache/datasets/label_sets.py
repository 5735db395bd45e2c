"""Rows of several classes: how a set of labels becomes the one label that a row can have.

The task `multilabel` reads class names such as `cat|dog` as lists. So each set that occurs is a
class of its own, and a row without any class is told from a row without a label.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

SEPARATOR = "|"
"""Between the names in the name of a set; what the protocol `multilabel@1` splits at."""
EMPTY_SET = SEPARATOR
"""Name of the set of no class: a list whose names are all empty."""


def set_name(members: Iterable[str]) -> str:
    """Return the name of a set of classes, the same for any order: `cat|dog`."""
    return SEPARATOR.join(sorted(set(members))) or EMPTY_SET


def label_sets(*groups: Iterable[Collection[str]]) -> tuple[str, ...]:
    """Return the names of the sets that occur in any of some groups of rows, sorted.

    Args:
        groups: For each split the set of each row; give all splits, so that they share the names.
    """
    return tuple(sorted({set_name(members) for rows in groups for members in rows}))


def set_labels(rows: Iterable[Collection[str]], names: Sequence[str]) -> list[int]:
    """Return for each row the index of its set in `names`.

    Raises:
        KeyError: If a set is not among them.
    """
    index = {name: label for label, name in enumerate(names)}
    return [index[set_name(members)] for members in rows]
