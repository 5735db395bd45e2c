"""What every task does with its tables first: labelled rows, and rows in the order of ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featcache.digest import Json
from featcache.errors import ShapeError
from featcache.probes.options import check_choice

if TYPE_CHECKING:
    from featcache.probes.tasks import TaskInputs
    from featcache.store.table import Table


def labelled_pair(inputs: TaskInputs) -> tuple[Table, Table, dict[str, Json]]:
    """Return the labelled train rows by id, the labelled test rows as they come, and counts."""
    source = present(inputs.train)
    train = labelled(source, "train", in_id_order=True)
    test = labelled(inputs.test, "test", in_id_order=False)
    is_new: NDArray[np.bool_] = ~np.isin(test.labels, train.labels)
    details: dict[str, Json] = {
        "dropped_unlabelled_train": len(source) - len(train),
        "dropped_unlabelled_test": len(inputs.test) - len(test),
        "test_classes_absent_from_train": len(np.unique(test.labels[is_new])),
        "test_rows_of_absent_classes": int(is_new.sum()),
    }
    return train, test, details


def by_id(table: Table) -> Table:
    """Return the rows in the order of their ids."""
    return table.take(np.argsort(table.ids, kind="stable"))


def labelled(table: Table, name: str, *, in_id_order: bool) -> Table:
    """Return the rows that have a label, with `in_id_order` in the order of their ids.

    Raises:
        ShapeError: If there is none.
    """
    rows = np.flatnonzero(table.labels >= 0)
    if not len(rows):
        raise ShapeError(
            f"`{name}` must have labelled rows; got {len(table)} rows and no label. "
            "Use a dataset with classes."
        )
    if in_id_order:
        rows = rows[np.argsort(table.ids[rows], kind="stable")]
    elif len(rows) == len(table):
        return table
    return table.take(rows)


def present(table: Table | None) -> Table:
    """Return the table.

    Raises:
        ShapeError: If there is none.
    """
    if table is None:
        raise ShapeError("This task needs train rows; got none. Extract a train split.")
    return table


def of_classes(inputs: TaskInputs, names: Sequence[str]) -> TaskInputs:
    """Return the rows of the named classes alone; all rows where no name is given.

    Rows without a label stay, so that whoever drops them can count them.

    Raises:
        OptionError: If there is no such class.
    """
    known = inputs.test.class_names
    for name in names:
        check_choice("classes", name, known)
    if not names:
        return inputs
    others = [place for place, name in enumerate(known) if name not in names]

    def part(table: Table) -> Table:
        return table.take(np.flatnonzero(~np.isin(table.labels, others)))

    return replace(
        inputs,
        test=part(inputs.test),
        train=None if inputs.train is None else part(inputs.train),
        validation=None if inputs.validation is None else part(inputs.validation),
    )
