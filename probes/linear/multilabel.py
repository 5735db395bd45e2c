"""Rows of several classes: one binary classifier per class, all solved together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featcache.probes.arrays import Features, check_features
from featcache.probes.linear.head import LinearHead
from featcache.probes.linear.logistic import one_vs_rest_solver
from featcache.probes.linear.options import MultilabelOptions
from featcache.probes.linear.scaling import Rows, Scaling
from featcache.probes.linear.selection import Fold, StrengthSearch, warnings_of
from featcache.probes.linear.solver import PathSolver
from featcache.probes.metrics import average_precisions
from featcache.probes.splits import stratified_split

if TYPE_CHECKING:
    from featcache.store.table import Table


def targets_of(
    table: Table, separator: str, names: tuple[str, ...] | None = None
) -> tuple[tuple[str, ...], NDArray[np.bool_]]:
    """Split class names such as 'cat|dog' into the classes of each labelled row.

    Args:
        table: Labelled rows.
        separator: Between the names; blanks around them do not count, nor do empty ones.
        names: The classes, in the order of the columns; those of the table's list if None. Others
            are ignored.

    Returns:
        The names, and whether each row belongs to each, shape (N, C).
    """
    parts = [[part.strip() for part in name.split(separator)] for name in table.class_names]
    if names is None:
        names = tuple(sorted({part for each in parts for part in each if part}))
    column = {name: place for place, name in enumerate(names)}
    members = np.zeros((len(parts), len(names)), dtype=np.bool_)
    for row, each in enumerate(parts):
        members[row, [column[part] for part in each if part in column]] = True
    return names, members[table.labels]


def fit_multilabel(
    features: Features,
    members: NDArray[np.bool_],
    groups: NDArray[np.int64],
    options: MultilabelOptions,
    rng: np.random.Generator,
    *,
    device: str = "cpu",
) -> LinearHead:
    """Fit one logistic regression per class, all with the strength of the best held-out mean AP.

    Args:
        features: Shape (N, D).
        members: Shape (N, C), whether a row belongs to a class.
        groups: Shape (N,), by which held-out rows are stratified.
        options: Grid, what is held out, standardisation.
        rng: Draws the held-out rows.
        device: Torch device of the solver.

    Returns:
        A head whose `classes` are the columns that have rows of both kinds.

    Raises:
        ShapeError: If arrays do not fit together, or no class has rows of both kinds.
    """
    check_features("features", features)

    def solver_of(rows: Rows, truth: NDArray[np.bool_]) -> PathSolver:
        return one_vs_rest_solver(
            rows, truth, tol=options.tol, max_iter=options.max_iter, device=device
        )

    linear, search = options.as_linear(), None
    best = options.strengths[len(options.strengths) // 2]
    rest, held = stratified_split(groups, options.held_out, rng)
    if len(held) and len(options.strengths) > 1:
        part = Rows(features, rest)
        scaling = Scaling.of(part, options.standardise)
        solver = solver_of(part.scaled(scaling), members[rest])
        truth = members[held][:, solver.classes]
        fold = Fold(solver=solver, held=Rows(features, held, scaling), truth=truth)
        search = StrengthSearch(folds=[fold], options=linear, score=_mean_ap)
        best = search.run()
    scaling = Scaling.of(features, options.standardise)
    whole = solver_of(Rows(features, scaling=scaling), members)
    if search is not None:
        search.hand_on(whole)
    path = whole.solve([best])
    weights = path.weights[0] / scaling.scale[:, None]
    tried = {} if search is None else search.tried
    return LinearHead(
        classes=path.classes,
        weights=weights,
        bias=path.biases[0] - scaling.shift @ weights,
        is_unit_norm=scaling.is_unit_norm,
        details={
            "strength": best,
            "at_grid_edge": search is not None and search.at_edge,
            "grid_extended": [] if search is None else search.edges,
            "held_out_rows": len(held),
            "held_out_map": [[c, tried[c]] for c in sorted(tried)],
            "solved": [] if search is None else search.reports(),
            "converged": bool(path.converged[0]),
            "grad_norm": float(path.grad_norm[0]),
            "iterations": int(path.iterations[0]),
            "warnings": warnings_of(search, path),
        },
    )


def _mean_ap(logits: NDArray[np.float32], truth: NDArray[np.generic]) -> float:
    """Return the mean over the classes that have held-out rows; 0 if none has."""
    found = average_precisions(truth.astype(np.bool_), logits)
    return 0.0 if np.isnan(found).all() else float(np.nanmean(found))
