"""All pairs of several sets of the same rows: one matrix for each measure of likeness."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from featcache.digest import Json
from featcache.errors import ShapeError
from featcache.probes.analysis.cka import linear_cka, minibatch_cka
from featcache.probes.analysis.dissimilarity import correlation_distances, rank_pairs
from featcache.probes.analysis.measures import Measure, measure
from featcache.probes.analysis.mutual import mutual_neighbours, neighbour_lists
from featcache.probes.analysis.options import AnalysisOptions
from featcache.probes.analysis.procrustes import procrustes_similarity
from featcache.probes.analysis.sampling import subsample
from featcache.probes.arrays import Features

T = TypeVar("T", bound=np.generic)

LIKENESSES = (
    *("cka", "cka_minibatch", "rsa", "mutual_neighbours", "mutual_neighbours_corrected"),
    "procrustes",
)
"""Names of what `compare` measures; 1 for a set and itself in each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Likeness of all pairs of sets."""

    names: tuple[str, ...]
    matrices: Mapping[str, list[list[float | None]]]
    """For each of `LIKENESSES` a symmetric matrix in the order of `names`; None where undefined."""
    skipped: Mapping[str, str]
    """`measure: first, second` to the reason."""
    notes: Mapping[str, Json]
    """Rows and batches, and the chance level of mutual neighbours."""

    def to_json(self) -> dict[str, Json]:
        """Return the fields as plain JSON."""
        return {
            "names": list(self.names),
            "matrices": dict(self.matrices),
            "skipped": dict(self.skipped),
            "notes": dict(self.notes),
        }


def compare(
    sets: Mapping[str, Features],
    options: AnalysisOptions,
    rng: np.random.Generator,
    *,
    device: str = "cpu",
) -> Compared:
    """Compare each pair of sets, row i of one with row i of the other.

    Args:
        sets: Name to features, shape (N, D_i), any float dtype; two at least.
        options: Parameters.
        rng: Draws the rows of RSA and the batches, which are the same for all pairs.
        device: Where FAISS searches.

    Raises:
        ShapeError: If there is one set, or if their rows differ in number.
    """
    lengths = {name: len(rows) for name, rows in sets.items()}
    if len(lengths) < 2 or len(set(lengths.values())) > 1:
        raise ShapeError(
            f"Two or more sets of the same rows can be compared; got {lengths}. Match them by id."
        )
    pair_rng, batch_rng = rng.spawn(2)
    n_rows = next(iter(lengths.values()))
    chosen = subsample(n_rows, options.pair_sample, pair_rng)
    seed = int(batch_rng.integers(2**63))
    ranks = _each(sets, lambda rows: rank_pairs(correlation_distances(rows[chosen])))
    lists = _each(sets, lambda rows: neighbour_lists(rows, k=options.neighbours, device=device))

    def measures(one: str, other: str) -> dict[str, Measure]:
        first, second = sets[one], sets[other]
        batches = np.random.default_rng(seed)
        return {
            "cka": lambda: linear_cka(first, second),
            "cka_minibatch": lambda: minibatch_cka(
                first, second, batches, batch_rows=options.batch_rows
            )[0],
            "rsa": lambda: float(_present(ranks[one]) @ _present(ranks[other])),
            "mutual_neighbours": lambda: (
                mutual_neighbours(_present(lists[one]), _present(lists[other])).share
            ),
            "mutual_neighbours_corrected": lambda: (
                mutual_neighbours(_present(lists[one]), _present(lists[other])).corrected
            ),
            "procrustes": lambda: procrustes_similarity(first, second),
        }

    batch = min(options.batch_rows, n_rows)
    notes: dict[str, Json] = {
        "rsa_rows": len(chosen),
        "cka_batches": n_rows // batch,
        "cka_batch_rows": batch,
        "mutual_neighbours_k": options.neighbours,
        "mutual_neighbours_chance": options.neighbours / (n_rows - 1) if n_rows > 1 else None,
    }
    matrices, skipped = _filled(list(sets), measures)
    return Compared(names=tuple(sets), matrices=matrices, skipped=skipped, notes=notes)


def _filled(
    names: Sequence[str], measures: Callable[[str, str], dict[str, Measure]]
) -> tuple[dict[str, list[list[float | None]]], dict[str, str]]:
    """Take the measures of each pair, and write them on both sides of the diagonal."""
    size = len(names)
    matrices: dict[str, list[list[float | None]]] = {
        name: [[1.0 if i == j else None for j in range(size)] for i in range(size)]
        for name in LIKENESSES
    }
    skipped: dict[str, str] = {}
    for (i, one), (j, other) in itertools.combinations(enumerate(names), 2):
        found = measure(measures(one, other))
        for name, value in found.values.items():
            matrices[name][i][j] = matrices[name][j][i] = value
        skipped |= {f"{name}: {one}, {other}": reason for name, reason in found.skipped.items()}
    return matrices, skipped


def _each(
    sets: Mapping[str, Features], prepare: Callable[[Features], NDArray[T]]
) -> dict[str, NDArray[T] | ShapeError]:
    """Prepare each set once; one that cannot be prepared keeps its error for the pairs it is in."""
    found: dict[str, NDArray[T] | ShapeError] = {}
    for name, rows in sets.items():
        try:
            found[name] = prepare(rows)
        except ShapeError as error:
            found[name] = error
    return found


def _present(prepared: NDArray[T] | ShapeError) -> NDArray[T]:
    if isinstance(prepared, ShapeError):
        raise prepared
    return prepared
