"""A table with a column per finding: CheXpert.

    ROOT/train.csv                                         Path,Sex,...,Cardiomegaly,...
    ROOT/train/patient00001/study1/view1_frontal.jpg

`Path` starts with the name of the archive (`CheXpert-v1.0-small/train/...`), which does not count.
A finding is 1 (there), 0 (not there), -1 (uncertain) or empty (not mentioned, taken as not there).
Arguments of a split:

    table      the file
    findings   the columns that are classes
    uncertain  those of them in which -1 counts as there; in the others it counts as not there
    where      column to value: only rows with these values
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

from featcache.datasets.dataset import Split
from featcache.datasets.label_sets import label_sets, set_labels
from featcache.datasets.listed import Listed, existing, listed_split, refuse
from featcache.datasets.recorded import Record

_POSITIVE, _UNCERTAIN, _KNOWN = "1.0", "-1.0", ("1.0", "0.0", "-1.0", "")


def read(record: Record, root: Path, split: str) -> Split:
    """Read a split; rows are in the order of the table, with every set of findings as a class.

    Raises:
        DatasetError: If the file or a column is missing, or if a value is none of those above.
    """
    given = record.splits[split]
    findings: Sequence[str] = given["findings"]
    where: Mapping[str, str] = given.get("where", {})
    file = existing(record, root, str(given["table"]))
    with file.open(encoding="utf-8-sig", newline="") as lines:
        table = csv.DictReader(lines)
        needed = ["Path", *findings, *where]
        if missing := [name for name in needed if name not in (table.fieldnames or ())]:
            refuse(record, root, f"{file.name!r} has no column {missing[0]!r}")
        kept = [row for row in table if all(row[name] == where[name] for name in where)]
    uncertain = frozenset(given.get("uncertain", ()))
    sets = [_found(record, root, row, findings, uncertain) for row in kept]
    every = label_sets(*(combinations(findings, count) for count in range(len(findings) + 1)))
    rows = (
        Listed(row["Path"].partition("/")[2], label)
        for row, label in zip(kept, set_labels(sets, every), strict=True)
    )
    return listed_split(record, split, root, rows, every)


def _found(
    record: Record,
    root: Path,
    row: Mapping[str, str],
    findings: Sequence[str],
    uncertain: frozenset[str],
) -> list[str]:
    values = {name: _number(row[name]) for name in findings}
    if strange := [name for name, value in values.items() if value not in _KNOWN]:
        got = f"{strange[0]!r} of {row['Path']!r} is {row[strange[0]]!r}, not 1, 0, -1 or empty"
        refuse(record, root, got)
    return [
        name
        for name, value in values.items()
        if value == _POSITIVE or (value == _UNCERTAIN and name in uncertain)
    ]


def _number(text: str) -> str:
    """Return a value as train.csv writes it: 1 and 1.0 are the same."""
    return f"{text}.0" if text in ("1", "0", "-1") else text
