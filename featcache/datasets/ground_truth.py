"""Ground truth of a dataset for retrieval, as the JSON file that protocols read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import cast

from featcache.datasets.catalog import DATASETS, parse_source
from featcache.datasets.named import named
from featcache.datasets.recorded import Record, find_root
from featcache.digest import Json
from featcache.errors import DatasetError, OptionError
from featcache.registry import load_target

Answers = Mapping[str, Json]
"""Query id to a list of gallery ids, or to such lists by the levels easy, hard and junk."""

FIELD = "ground_truth"
"""Field of a record: how the file is called that protocols look for in the working directory."""


def ground_truth(source: str) -> Answers:
    """Return what is relevant to each query of a dataset; no image is opened.

    Args:
        source: Name of the dataset, or NAME@DIR.

    Raises:
        OptionError: If the dataset has classes and no ground truth of its own.
        DatasetError: If its tables are missing or not as they must be.
    """
    record, rest = _record(source)
    module = f"featcache.datasets.readers.{record.reader}"
    find = cast(Callable[[Record, Path], Answers], load_target(f"{module}:ground_truth"))
    return find(record, find_root(record, rest))


def first_answers(answers: Answers) -> list[str]:
    """Return gallery ids: an answer to each query before a second one to any, no junk.

    Queries come by the SHA-256 of their id, which is how a part of them is chosen; so the parts of
    both have to do with each other.
    """
    queries = sorted(answers, key=lambda query: hashlib.sha256(query.encode()).digest())
    lists = [_relevant(answers[query]) for query in queries]
    return list(dict.fromkeys(one for turn in zip_longest(*lists) for one in turn if one))


def _relevant(answer: Json) -> list[str]:
    if isinstance(answer, dict):
        return [*answer["easy"], *answer["hard"]]
    return list(answer)


def write_ground_truth(source: str, file: Path | None = None) -> Path:
    """Write the ground truth of a dataset as JSON, where protocols find it.

    Args:
        source: Name of the dataset, or NAME@DIR.
        file: Where to; None: in the working directory, under the name that protocols know.

    Returns:
        The file. One that holds the same already is left as it is.

    Raises:
        OptionError: If the dataset has no ground truth, or if the file holds something else.
        DatasetError: If its tables are missing or not as they must be.
    """
    target = file or Path(str(_record(source)[0].facts[FIELD]))
    text = json.dumps(ground_truth(source), indent=1, sort_keys=True) + "\n"
    if target.exists() and target.read_text(encoding="utf-8") != text:
        raise OptionError(
            f"`{target}` must be a new file; there is one with other content. Name another file, "
            "or move that one away."
        )
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DatasetError(
            f"The ground truth must be written to {str(target)!r}; {error.strerror}. Name another "
            "file."
        ) from error
    return target


def _record(source: str) -> tuple[Record, str]:
    name, rest = parse_source(source)
    facts = DATASETS.get(name).facts
    if FIELD not in facts:
        known = [other for other, one in named().items() if FIELD in one]
        raise OptionError(
            f"A dataset must have a ground truth beside its classes, as {', '.join(known)} do; "
            f"{name!r} has none. Use a protocol without `ground_truth`: same class is relevant."
        )
    return Record.of(name, facts), rest
