"""Google Landmarks v2, retrieval: images in folders by the first three characters of their ids.

    ROOT/index/0/0/0/000a9b8c7d6e5f40.jpg
    ROOT/test/0/0/0/000b9b8c7d6e5f40.jpg
    ROOT/index.csv                          id
    ROOT/retrieval_solution_v2.1.csv        id,images,Usage      Usage: Public, Private or Ignored

The queries are the test images with an answer; `images` lists ids with spaces between, or None. The
tables may also lie in `index/` and `test/`, where the authors' script leaves them. Argument of a
split: `part`, `query` or `gallery`. There are no classes.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

from featcache.datasets.dataset import Split
from featcache.datasets.listed import Listed, existing, listed_split, refuse
from featcache.datasets.recorded import Record

SOLUTION = "retrieval_solution_v2.1.csv"


def read(record: Record, root: Path, split: str) -> Split:
    """Read the queries or the index, in the order of their table.

    Raises:
        DatasetError: If a file is missing, or a table lacks a column.
    """
    is_query = record.splits[split]["part"] == "query"
    names = list(ground_truth(record, root)) if is_query else _index(record, root)
    folder = existing(record, root, "test" if is_query else "index")
    rows = (Listed(f"{name[0]}/{name[1]}/{name[2]}/{name}.jpg", id=name) for name in names)
    return listed_split(record, split, folder, rows)


def ground_truth(record: Record, root: Path) -> dict[str, list[str]]:
    """Return for each query the ids of the index images that show its landmark.

    Raises:
        DatasetError: If the table is missing or lacks a column.
    """
    found = {}
    for row in _rows(existing(record, root, SOLUTION, f"test/{SOLUTION}")):
        if _field(record, root, row, "Usage") != "Ignored":
            found[_field(record, root, row, "id")] = _field(record, root, row, "images").split()
    return found


def _index(record: Record, root: Path) -> list[str]:
    file = existing(record, root, "index.csv", "index/index.csv")
    return [_field(record, root, row, "id") for row in _rows(file)]


def _rows(file: Path) -> Iterator[Mapping[str, str]]:
    with file.open(newline="", encoding="utf-8") as lines:
        yield from csv.DictReader(lines)


def _field(record: Record, root: Path, row: Mapping[str, str], name: str) -> str:
    value = row.get(name)
    return value if value else refuse(record, root, f"a table has no {name!r} in {dict(row)}")
