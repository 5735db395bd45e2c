"""The linear probe: choose the L2 strength on held-out rows, then fit all of train with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featcache.digest import Json
from featcache.probes.arrays import Features, check_features, check_labels
from featcache.probes.linear.head import LinearHead
from featcache.probes.linear.logistic import softmax_solver
from featcache.probes.linear.options import LinearOptions
from featcache.probes.linear.scaling import Rows, Scaling
from featcache.probes.linear.selection import Fold, Score, StrengthSearch, warnings_of
from featcache.probes.linear.solver import LogisticPath, PathSolver
from featcache.probes.metrics import mean_per_class, top1
from featcache.probes.splits import stratified_folds, stratified_split


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearFit:
    """A fitted head, and what it said of rows it had not seen while its strength was chosen."""

    head: LinearHead
    held_logits: NDArray[np.float32]
    """Shape (H, C), of the chosen strength's classifiers on held-out rows; H may be 0."""
    held_labels: NDArray[np.int64]
    """Shape (H,), columns of `held_logits`."""


def fit_linear(
    features: Features,
    labels: NDArray[np.int64],
    options: LinearOptions,
    rng: np.random.Generator,
    *,
    device: str = "cpu",
) -> LinearHead:
    """Return the head of `fit_and_hold_out`, with the same arguments."""
    return fit_and_hold_out(features, labels, options, rng, device=device).head


def fit_and_hold_out(
    features: Features,
    labels: NDArray[np.int64],
    options: LinearOptions,
    rng: np.random.Generator,
    *,
    validation: tuple[Features, NDArray[np.int64]] | None = None,
    device: str = "cpu",
) -> LinearFit:
    """Fit a multinomial logistic regression whose strength is chosen on held-out rows.

    The strength with the best held-out score wins, the stronger penalty (smaller C) on a tie; then
    all rows are fitted with it. Where no row can be held out (each class has a single one), and
    there is no validation split, the middle of the grid is taken, and the details say so. The
    test set has no part in this.

    Args:
        features: Shape (N, D), any float dtype.
        labels: Shape (N,), class indices from 0; classes may be missing.
        options: Grid, search, what is held out, standardisation, weights.
        rng: Draws the held-out rows.
        validation: Features (V, D) and labels (V,) to choose the strength on. Rows of classes
            that train lacks are left out.
        device: Torch device of the solver.

    Raises:
        ShapeError: If arrays do not fit together, are empty or not finite.

    Source: Radford et al. 2021, arXiv:2103.00020, App. A.3; dinov2 `eval/log_regression.py`.
    """
    check_features("features", features)
    check_labels("labels", features, labels)
    search = None
    if len(options.strengths) > 1:
        folds = _folds(features, labels, options, rng, validation, device)
        if folds:
            search = StrengthSearch(folds=folds, options=options, score=_score(options))
    middle = options.strengths[len(options.strengths) // 2]
    best = middle if search is None else search.run()
    if validation is not None and options.refit == "all":
        known = np.isin(validation[1], labels)
        features = np.concatenate([features, validation[0][known]])
        labels = np.concatenate([labels, validation[1][known]])
    scaling = Scaling.of(features, options.standardise)
    solver = _solver_of(Rows(features, scaling=scaling), labels, options, device)
    if search is not None:
        search.hand_on(solver)
    path = solver.solve([best])
    details = _details(options, search, best, path) | {"rows_fitted": len(labels)}
    weights = path.weights[0] / scaling.scale[:, None]
    head = LinearHead(
        classes=path.classes,
        weights=weights,
        bias=path.biases[0] - scaling.shift @ weights,
        is_unit_norm=scaling.is_unit_norm,
        details=details,
    )
    return _with_held(head, search)


def balanced_weights(labels: NDArray[np.int64]) -> dict[int, float]:
    """Return N / (C · rows of the class) for each class in `labels`, shape (N,)."""
    classes, counts = np.unique(labels, return_counts=True)
    each = len(labels) / (len(classes) * counts)
    return dict(zip(classes.tolist(), each.tolist(), strict=True))


def _solver_of(
    rows: Rows, labels: NDArray[np.int64], options: LinearOptions, device: str
) -> PathSolver:
    weights: Mapping[int, float] | None = None
    if options.class_weight == "balanced":
        weights = balanced_weights(labels)
    return softmax_solver(
        rows,
        labels,
        class_weights=weights,
        binary=options.binary,
        tol=options.tol,
        max_iter=options.max_iter,
        device=device,
    )


def _folds(
    features: Features,
    labels: NDArray[np.int64],
    options: LinearOptions,
    rng: np.random.Generator,
    validation: tuple[Features, NDArray[np.int64]] | None,
    device: str,
) -> list[Fold]:
    """Part the rows as the options say; no fold where nothing can be held out."""
    every = np.arange(len(labels))
    if validation is not None:
        known = np.flatnonzero(np.isin(validation[1], labels))
        parts = [(every, Rows(validation[0], known), validation[1][known])]
    elif options.folds:
        cuts = stratified_folds(labels, options.folds, rng)
        parts = [(rest, Rows(features, held), labels[held]) for rest, held in cuts]
    else:
        rest, held = stratified_split(labels, options.held_out, rng)
        parts = [(rest, Rows(features, held), labels[held])]
    folds = []
    for rest, held_rows, held_labels in parts:
        if len(held_labels):
            source = Rows(features, rest)
            scaling = Scaling.of(source, options.standardise)
            solver = _solver_of(source.scaled(scaling), labels[rest], options, device)
            truth = np.searchsorted(np.unique(labels[rest]), held_labels)
            folds.append(Fold(solver=solver, held=held_rows.scaled(scaling), truth=truth))
    return folds


def _score(options: LinearOptions) -> Score:
    def score(logits: NDArray[np.float32], truth: NDArray[np.generic]) -> float:
        codes = truth.astype(np.int64)
        if options.criterion == "top1":
            return top1(codes, logits.argmax(axis=1))
        if options.criterion == "mean_per_class":
            return mean_per_class(codes, logits.argmax(axis=1))
        top = logits.max(axis=1, keepdims=True)
        norm = np.log(np.exp(logits - top).sum(axis=1, dtype=np.float64)) + top[:, 0]
        return float((logits[np.arange(len(codes)), codes] - norm).mean())

    return score


def _details(
    options: LinearOptions, search: StrengthSearch | None, best: float, path: LogisticPath
) -> dict[str, Json]:
    tried = {} if search is None else search.tried
    return {
        "strength": best,
        "at_grid_edge": search is not None and search.at_edge,
        "grid_extended": [] if search is None else search.edges,
        "held_out_rows": 0 if search is None else search.n_held,
        "folds": 0 if search is None else len(search.folds),
        f"held_out_{options.criterion}": [[c, tried[c]] for c in sorted(tried)],
        "solved": [] if search is None else search.reports(),
        "standardise": options.standardise,
        "class_weight": options.class_weight,
        "binary": options.binary,
        "classes_in_train": len(path.classes),
        "solver": {
            "objective": float(path.objective[0]),
            "grad_norm": float(path.grad_norm[0]),
            "iterations": int(path.iterations[0]),
            "passes": int(path.passes[0]),
            "converged": bool(path.converged[0]),
        },
        "warnings": warnings_of(search, path),
    }


def _with_held(head: LinearHead, search: StrengthSearch | None) -> LinearFit:
    logits, truth = [], []
    for fold in [] if search is None else search.folds:
        if fold.best is not None and fold.best[0].shape[1] == len(head.classes):
            logits.append(fold.logits(*fold.best))
            truth.append(fold.truth.astype(np.int64))
    return LinearFit(
        head=head,
        held_logits=np.concatenate([np.empty((0, len(head.classes)), np.float32), *logits]),
        held_labels=np.concatenate([np.empty(0, np.int64), *truth]),
    )
