"""The revisited Oxford and Paris: images in one folder, and a pickle of queries and answers.

    ROOT/jpg/all_souls_000013.jpg
    ROOT/gnd_roxford5k.pkl      {"imlist": [name, ...], "qimlist": [name, ...],
                                 "gnd": [{"bbx": [x0, y0, x1, y1], "easy": [row of imlist, ...],
                                          "hard": [...], "junk": [...]}, ...]}

The same as JSON, `gnd_roxford5k.json`, goes before the pickle. Arguments of a split: `table` (the
file without its ending), `part` (`query` or `gallery`) and `crop` (whether queries are cut to their
boxes, as the benchmark demands). Ids are the names; there are no classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featcache.datasets.cropped import Box
from featcache.datasets.dataset import Split
from featcache.datasets.listed import Listed, existing, listed_split, refuse
from featcache.datasets.plain_pickle import load_plain
from featcache.datasets.recorded import Record

LEVELS = ("easy", "hard", "junk")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    gallery: tuple[str, ...]
    queries: tuple[str, ...]
    boxes: tuple[Box, ...]
    answers: tuple[Mapping[str, tuple[str, ...]], ...]
    """For each query the names of its easy, hard and junk images."""


def read(record: Record, root: Path, split: str) -> Split:
    """Read the queries or the gallery, in the order of the table.

    Raises:
        DatasetError: If a file is missing, or the table is not of that form.
    """
    given = record.splits[split]
    table = _read_table(record, root, given["table"])
    if given["part"] == "gallery":
        rows = [Listed(f"{name}.jpg", id=name) for name in table.gallery]
    else:
        boxes = table.boxes if given["crop"] else [None] * len(table.queries)
        pairs = zip(table.queries, boxes, strict=True)
        rows = [Listed(f"{name}.jpg", id=name, box=box) for name, box in pairs]
    return listed_split(record, split, existing(record, root, "jpg"), rows)


def ground_truth(record: Record, root: Path) -> dict[str, dict[str, list[str]]]:
    """Return for each query the ids of its easy, hard and junk images.

    Raises:
        DatasetError: If the table is missing or not of its form.
    """
    table = _read_table(record, root, next(iter(record.splits.values()))["table"])
    return {
        query: {level: list(names) for level, names in answer.items()}
        for query, answer in zip(table.queries, table.answers, strict=True)
    }


def _read_table(record: Record, root: Path, name: str) -> _Table:
    file = existing(record, root, f"{name}.json", f"{name}.pkl")
    try:
        is_json = file.suffix == ".json"
        data = json.loads(file.read_text(encoding="utf-8")) if is_json else load_plain(file)
        gallery, queries = _names(data["imlist"]), _names(data["qimlist"])
        answers = [_answer(one, gallery) for one in data["gnd"]]
        boxes = tuple(_box(one["bbx"]) for one in data["gnd"])
        if len(answers) != len(queries):
            refuse(record, root, f"{file.name} has {len(queries)} queries, {len(answers)} answers")
    except (IndexError, KeyError, TypeError, ValueError) as error:
        refuse(record, root, f"{file.name} is not of its form: {error!r}")
    return _Table(gallery=gallery, queries=queries, boxes=boxes, answers=tuple(answers))


def _names(listed: Any) -> tuple[str, ...]:  # noqa: ANN401
    names = tuple(listed)
    if not all(isinstance(name, str) for name in names):
        raise TypeError("names must be text")
    return names


def _answer(entry: Mapping[str, Any], gallery: Sequence[str]) -> dict[str, tuple[str, ...]]:
    rows = {level: [int(row) for row in entry[level]] for level in LEVELS}
    if any(row < 0 for listed in rows.values() for row in listed):
        raise ValueError("rows must not be negative")
    return {level: tuple(gallery[row] for row in listed) for level, listed in rows.items()}


def _box(values: Any) -> Box:  # noqa: ANN401
    x0, y0, x1, y1 = (float(value) for value in values)
    return x0, y0, x1, y1
