"""Results: one JSON record per probe run, with per-sample predictions beside it in Parquet."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featcache.digest import Json, sha256_json
from featcache.errors import FeatcacheError, OptionError, ShapeError
from featcache.spec import KEY_DIGITS
from featcache.store.cache import slug
from featcache.store.files import (
    disk_errors,
    json_bytes,
    read_json,
    temporary_path,
    write_replacing,
)

if TYPE_CHECKING:
    from featcache.fit_store import Fit

RESULT_FORMAT = 1
"""Bumped when a metric or the meaning of a field changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedHead:
    """The linear classifier that a probe fitted, on features as they are stored."""

    weights: NDArray[np.floating]
    """Shape (D, C)."""
    bias: NDArray[np.floating]
    """Shape (C,)."""
    class_names: tuple[str, ...]
    """The C columns, in order: the classes seen in training."""
    is_unit_norm: bool = False
    """Whether rows are scaled to unit norm first."""
    absent: tuple[str, ...] = ()
    """Classes of the dataset that had no training row, so that none is ever predicted as one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a probe gives back."""

    metrics: Mapping[str, float]
    primary: str
    """The metric a table shows; one of `metrics`, larger is better."""
    n: int
    """Rows (or queries) the metrics are means over."""
    predictions: Mapping[str, NDArray[np.generic]]
    """Per-sample columns of one length; `id` is among them."""
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """95 % confidence intervals of some of the metrics, over test samples only."""
    details: Mapping[str, Json] = field(default_factory=dict)
    """What was chosen on the way (L2 strength, class counts, which side is positive)."""
    head: FittedHead | None = None
    """The classifier behind the predictions; kept beside the record, which names its key."""
    fit: Fit | None = None
    """What was learnt of train alone, for further runs; None if there is nothing worth keeping."""

    def __post_init__(self) -> None:
        """Refuse an outcome that its own record would contradict."""
        if self.primary not in self.metrics:
            raise ShapeError(f"`primary` must be one of the metrics; got {self.primary!r}.")
        lengths = {name: len(column) for name, column in self.predictions.items()}
        if "id" not in lengths or len(set(lengths.values())) != 1:
            raise ShapeError(f"`predictions` must hold `id` and columns as long; got {lengths}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What was asked: everything that decides a result, and so its id."""

    task: str
    protocol: str
    backbone: str
    dataset: str
    tap: str
    inputs: Mapping[str, Json]
    """Role ('train', 'test', 'ood') to the key, digest and rows of the feature set it reads."""
    options: Mapping[str, Json]
    """The protocol's options in full, so that an edited protocol gives another id."""
    seed: int

    @property
    def id(self) -> str:
        """Twenty hex digits of the SHA-256 of the question."""
        return sha256_json({"format": RESULT_FORMAT, **self.to_json()})[:KEY_DIGITS]

    def to_json(self) -> dict[str, Json]:
        """Return the fields as plain JSON."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One stored result."""

    path: Path
    record: Mapping[str, Any]

    @property
    def id(self) -> str:
        """The id of its question."""
        return str(self.record["id"])

    @property
    def score(self) -> float:
        """The primary metric."""
        return float(self.record["metrics"][self.record["primary"]])

    def predictions(self) -> Mapping[str, NDArray[np.generic]]:
        """Read the per-sample columns."""
        import pyarrow.parquet as pq

        table = pq.read_table(self.path.with_suffix(".parquet"))
        return {name: table[name].to_numpy() for name in table.column_names}


class ResultStore:
    """The results below a cache's root."""

    def __init__(self, root: Path) -> None:
        """Use `<root>/results`; nothing is created yet."""
        self._root = root / "results"

    def path_of(self, question: Question) -> Path:
        """Return where the answer to `question` lies, whether or not it exists."""
        name = f"{slug(question.backbone)}-{slug(question.protocol)}-{question.id}.json"
        return self._root / slug(question.dataset) / slug(question.task) / name

    def find(self, question: Question) -> Result | None:
        """Return the stored answer to `question`, if there is one."""
        path = self.path_of(question)
        if not path.exists() or not path.with_suffix(".parquet").exists():
            return None
        return Result(path=path, record=read_json(path))

    def save(self, question: Question, outcome: Outcome, how: Mapping[str, Json]) -> Result:
        """Store an answer: predictions first, then the record that names them.

        Args:
            question: What was asked.
            outcome: What the probe gave.
            how: Versions, device, seconds and time of the run.

        Raises:
            StoreError: If it cannot be written.
        """
        path = self.path_of(question)
        record = {
            "id": question.id,
            "format": RESULT_FORMAT,
            **question.to_json(),
            "metrics": {name: _number(value) for name, value in outcome.metrics.items()},
            "intervals": {name: list(map(_number, v)) for name, v in outcome.intervals.items()},
            "primary": outcome.primary,
            "n": outcome.n,
            "details": dict(outcome.details),
            "how": dict(how),
            "predictions": path.with_suffix(".parquet").name,
        }
        with disk_errors(path.parent, "write a result to"):
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_parquet(path.with_suffix(".parquet"), outcome.predictions)
            write_replacing(path, json_bytes(record))
        return Result(path=path, record=record)

    def all(self, pattern: str = "*") -> list[Result]:
        """Return the results whose `dataset/task/backbone/protocol` matches, oldest first."""
        found = []
        for path in self._root.glob("*/*/*.json"):
            try:
                record = read_json(path)
                name = "/".join(
                    record[part] for part in ("dataset", "task", "backbone", "protocol")
                )
                result = Result(path=path, record=record)
                sort_key = (record["how"]["created"], result.id, result.score)
            except (FeatcacheError, KeyError, TypeError):
                continue  # a file that is no result, or a newer format's
            if record["format"] == RESULT_FORMAT and fnmatch.fnmatch(name, f"*{pattern}*"):
                found.append((sort_key, result))
        return [result for _, result in sorted(found, key=lambda item: item[0])]


def _number(value: float) -> float:
    """Return a plain float; NaN must have been dealt with by the probe."""
    number = float(value)
    if not math.isfinite(number):
        raise OptionError(f"A metric must be a finite number; got {number!r}.")
    return number


def _write_parquet(path: Path, columns: Mapping[str, NDArray[np.generic]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    temporary = temporary_path(path.parent)
    try:
        arrays = [_arrow(values) for values in columns.values()]
        table = pa.Table.from_arrays(arrays, names=list(columns))
        pq.write_table(table, temporary, compression="zstd")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _arrow(values: NDArray[np.generic]) -> Any:  # noqa: ANN401  pyarrow is untyped
    """Hand a column to Arrow by its buffers: `pa.array` imports pandas, which takes a second."""
    import pyarrow as pa

    kind, count = pa.from_numpy_dtype(values.dtype), len(values)
    if values.dtype.kind == "U":
        words = [word.encode() for word in values.tolist()]
        ends = np.cumsum([0, *map(len, words)]).astype(np.int64)
        text = pa.py_buffer(b"".join(words))
        return pa.Array.from_buffers(
            pa.large_string(), count, [None, pa.py_buffer(ends), text]
        ).cast(pa.string())
    if values.dtype.kind == "b":
        values = np.packbits(values.astype(np.bool_), bitorder="little")
    return pa.Array.from_buffers(kind, count, [None, pa.py_buffer(np.ascontiguousarray(values))])
