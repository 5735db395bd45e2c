"""Derive the leaderboard from stored results: one row per backbone, one column per question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import mean

from featcache.result_store import Result


@dataclass(frozen=True, slots=True, order=True)
class Column:
    """One comparable question; scores of different columns are never averaged."""

    dataset: str
    task: str
    protocol: str
    metric: str
    others: tuple[str, ...] = ()
    """For 'ood': the datasets to be told from `dataset`."""
    split: str = "test"
    version: str = ""
    """Fingerprint of the scored rows: another version of a dataset is another question."""
    seed: int = 0

    @property
    def heading(self) -> str:
        """Task, metric and OOD datasets; the protocol only if it is not the task's default."""
        task = self.task if self.protocol == _default_protocol(self.task) else self.protocol
        versus = f" vs {'+'.join(self.others)}" if self.others else ""
        split = f" ({self.split})" if self.split not in ("test", "all") else ""
        seed = f" seed {self.seed}" if self.seed else ""
        return f"{task}{versus}{split} {self.metric}{seed}"

    @property
    def title(self) -> str:
        """The dataset and the heading."""
        return f"{self.dataset} {self.heading}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One backbone's scores."""

    backbone: str
    cells: tuple[Result | None, ...]
    mean_gap: float
    """Mean over the columns it has of how far its score is behind the best one there, in 0..1."""
    mean_rank: float
    """Mean over the columns it has of its rank there, ties averaged; 1 is best."""
    extraction_s: float
    probe_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaderboard:
    """A table of results, smallest mean gap first."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


def leaderboard(results: Sequence[Result]) -> Leaderboard:
    """Arrange results into a leaderboard.

    Of several results for one cell (another tap or precision) the newest stands. Rows are sorted
    by (cells that are missing, mean gap, name), so a backbone that skipped a hard question is not
    ahead of one that answered it. The gap weighs differences by their size, where a rank counts a
    tenth of a point like fifty; both are shown.

    Args:
        results: Oldest first, as `ResultStore.all` gives them.
    """
    cells = {(one.record["backbone"], _column(one)): one for one in results}
    columns = tuple(sorted({column for _, column in cells}))
    columns, cells = _told_apart(columns, cells)
    rows = []
    for backbone in {name for name, _ in cells}:
        own = tuple(cells.get((backbone, column)) for column in columns)
        answered = [
            (one.score, [c.score for (_, at), c in cells.items() if at == column])
            for one, column in zip(own, columns, strict=True)
            if one is not None
        ]
        rows.append(
            Row(
                backbone=backbone,
                cells=own,
                mean_gap=mean([max(scores) - score for score, scores in answered]),
                mean_rank=mean([_rank(score, scores) for score, scores in answered]),
                extraction_s=_extraction_seconds(own),
                probe_s=sum(one.record["how"]["seconds"] for one in own if one is not None),
            )
        )
    rows.sort(key=lambda row: (row.cells.count(None), row.mean_gap, row.backbone))
    return Leaderboard(columns=columns, rows=tuple(rows))


def _told_apart(
    columns: tuple[Column, ...], cells: dict[tuple[str, Column], Result]
) -> tuple[tuple[Column, ...], dict[tuple[str, Column], Result]]:
    """Write the version into the dataset's name where two columns would read alike."""
    titles = [column.title for column in columns]
    named = {
        column: replace(column, dataset=f"{column.dataset}#{column.version[:6]}")
        if titles.count(column.title) > 1
        else column
        for column in columns
    }
    return tuple(named.values()), {(row, named[at]): one for (row, at), one in cells.items()}


def _default_protocol(task: str) -> str:
    from featcache.probes.tasks import TASKS

    return TASKS[task].default_protocol if task in TASKS else f"{task}@1"


def to_markdown(board: Leaderboard) -> str:
    """Render a leaderboard as a Markdown table with 95 % intervals and a caption."""
    if not board.rows:
        return "No results yet.\n"
    titles = [_escape(column.title) for column in board.columns]
    head = ["backbone", *titles, *SUMMARY]
    lines = [_line(head), _line([":--", *("--:" for _ in head[1:])])]
    for row in board.rows:
        lines.append(
            _line(
                [
                    _escape(row.backbone),
                    *(cell_text(cell) for cell in row.cells),
                    *summary_cells(row),
                ]
            )
        )
    return "\n".join([*lines, "", CAPTION, ""])


SUMMARY = ("mean gap", "mean rank", "extraction s", "probes s")
"""Headings of what is derived from a row's cells."""

CAPTION = (
    "Scores in %, with 95 % intervals over test samples. Mean gap: points behind the best of each "
    "column, averaged. Mean rank: rank in each column, averaged, ties shared. Seconds: extraction "
    "of all feature sets used, and of all probes."
)


def summary_cells(row: Row) -> list[str]:
    """Render what is derived from a row's cells, in the order of `SUMMARY`."""
    gap, rank = f"{100 * row.mean_gap:.1f}", f"{row.mean_rank:.2f}"
    return [gap, rank, f"{row.extraction_s:.1f}", f"{row.probe_s:.1f}"]


def cell_text(cell: Result | None) -> str:
    """Render a score with its interval, in percent; a dash if there is none."""
    if cell is None:
        return "–"
    text = f"{100 * cell.score:.1f}"
    interval = cell.record["intervals"].get(cell.record["primary"])
    return f"{text} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else text


def _column(result: Result) -> Column:
    record = result.record
    others = tuple(sorted(record["inputs"].get("ood", {})))
    scored = record["inputs"].get("test", {})
    return Column(
        dataset=record["dataset"],
        task=record["task"],
        protocol=record["protocol"],
        metric=record["primary"],
        others=others,
        split=scored.get("split", "test"),
        version=scored.get("fingerprint", ""),
        seed=record["seed"],
    )


def _rank(score: float, scores: list[float]) -> float:
    better = sum(other > score for other in scores)
    equal = sum(other == score for other in scores)
    return better + (equal + 1) / 2


def _extraction_seconds(cells: Sequence[Result | None]) -> float:
    """Add up each feature set once, however many probes read it."""
    seconds: dict[str, float] = {}
    for cell in cells:
        if cell is not None:
            seconds |= cell.record["how"]["extraction_seconds"]
    return sum(seconds.values())


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escape(text: str) -> str:
    return text.replace("|", "\\|")
