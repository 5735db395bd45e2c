"""Which rows are the shots: seeded, nested, and the same for every backbone and cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featcache.digest import sha256_json
from featcache.errors import ShapeError


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """One draw of shots."""

    rows: dict[int, NDArray[np.intp]]
    """For each number of shots the rows, sorted; a larger number's rows hold a smaller one's."""
    digests: dict[int, str]
    """For each number of shots 16 hex digits of the SHA-256 of the rows' ids."""


def draw_shots(
    labels: NDArray[np.int64],
    ids: NDArray[np.str_],
    class_names: Sequence[str],
    shots: Sequence[int],
    *,
    n_draws: int,
    seed: int,
    allow_fewer: bool = False,
) -> list[Draw]:
    """Draw shots of each class, several times.

    A class's rows are shuffled in the order of their ids, by a generator of the seed, the number
    of the draw and the class's name; the first n are its n shots. So the draw depends neither on
    the order of the rows nor on other classes.

    Args:
        labels: Shape (N,), indices into `class_names`.
        ids: Shape (N,), unique.
        class_names: Of all classes; those without a row have no shots.
        shots: Numbers of rows per class, each at least 1.
        n_draws: How many times.
        seed: Of the draws.
        allow_fewer: Whether a class with fewer rows than asked for gives what it has.

    Raises:
        ShapeError: If a class has fewer rows than asked for.
    """
    by_id = np.argsort(ids, kind="stable")
    rows_of = {int(label): by_id[labels[by_id] == label] for label in np.unique(labels)}
    most = max(shots)
    short = {label: len(rows) for label, rows in rows_of.items() if len(rows) < most}
    if short and not allow_fewer:
        label, count = min(short.items(), key=lambda item: (item[1], item[0]))
        raise ShapeError(
            f"Each class must have {most} train rows for {most} shots; {class_names[label]!r} has "
            f"{count}, and {len(short) - 1} other classes have too few. Lower `shots`, or set "
            "`short_classes: all`."
        )
    return [_one_draw(rows_of, ids, class_names, shots, (seed, draw)) for draw in range(n_draws)]


def _one_draw(
    rows_of: dict[int, NDArray[np.intp]],
    ids: NDArray[np.str_],
    class_names: Sequence[str],
    shots: Sequence[int],
    stream: tuple[int, int],
) -> Draw:
    shuffled = []
    for label, own in rows_of.items():
        name = int(sha256_json(class_names[label])[:16], 16)
        shuffled.append(np.random.default_rng((*stream, name)).permutation(own))
    rows = {n: np.sort(np.concatenate([each[:n] for each in shuffled])) for n in shots}
    digests = {n: sha256_json(sorted(ids[chosen].tolist()))[:16] for n, chosen in rows.items()}
    return Draw(rows=rows, digests=digests)
