"""The linear probe: choose the L2 strength on a held-out part of train, refit on all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featcache.digest import Json
from featcache.probes.arrays import (
    Features,
    check_features,
    check_labels,
    row_blocks,
    to_float64,
    unit_rows,
)
from featcache.probes.linear.head import LinearHead
from featcache.probes.linear.logistic import LogisticPath, fit_path
from featcache.probes.linear.options import LinearOptions, Standardise
from featcache.probes.metrics import top1
from featcache.probes.splits import stratified_split

_SHARED = 4
"""Strengths that share their passes before the search looks whether to go on."""


def fit_linear(
    features: Features,
    labels: NDArray[np.int64],
    options: LinearOptions,
    rng: np.random.Generator,
    *,
    device: str = "cpu",
) -> LinearHead:
    """Fit a multinomial logistic regression whose strength is chosen on held-out train rows.

    The strength with the best held-out top-1 accuracy wins, the stronger penalty (smaller C)
    on a tie; then all rows are fitted with it. Where no row can be held out (each class has a
    single one) the middle of the grid is taken, and the details say so. The test set has no
    part in this.

    Args:
        features: Shape (N, D), any float dtype.
        labels: Shape (N,), class indices from 0; classes may be missing.
        options: Grid, search, held-out share and standardisation.
        rng: Draws the held-out rows.
        device: Torch device of the solver.

    Returns:
        The head, with `details` for the record.

    Raises:
        ShapeError: If arrays do not fit together, are empty or not finite.

    Source: Radford et al. 2021, arXiv:2103.00020, App. A.3; dinov2 `eval/log_regression.py`.
    """
    check_features("features", features)
    check_labels("labels", features, labels)
    rest, held = stratified_split(labels, options.held_out, rng)
    tried: dict[float, float] = {}
    if len(held) and len(options.strengths) > 1:
        tried = _search(features, labels, rest, held, options, device)
        best = _peak(tried)
    else:
        best = options.strengths[len(options.strengths) // 2]
    scaling = _Scaling.of(features, options.standardise)
    path = _fit(scaling.apply(features), labels, [best], options, device)
    weights = path.weights[0] / scaling.scale[:, None]
    details: dict[str, Json] = {
        "strength": best,
        "at_grid_edge": bool(tried) and best in (options.strengths[0], options.strengths[-1]),
        "held_out_fraction": options.held_out,
        "held_out_rows": len(held),
        "held_out_top1": [[c, tried[c]] for c in sorted(tried)],
        "standardise": options.standardise,
        "classes_in_train": len(path.classes),
        "solver": {
            "objective": float(path.objective[0]),
            "grad_norm": float(path.grad_norm[0]),
            "iterations": int(path.iterations[0]),
            "converged": bool(path.converged[0]),
        },
    }
    return LinearHead(
        classes=path.classes,
        weights=weights,
        bias=path.biases[0] - scaling.shift @ weights,
        is_unit_norm=scaling.is_unit_norm,
        details=details,
    )


@dataclass(frozen=True, slots=True)
class _Scaling:
    """What is done to a row before the solver sees it: unit norm, then (x - shift) / scale."""

    is_unit_norm: bool
    shift: NDArray[np.float64]
    scale: NDArray[np.float64]

    @classmethod
    def of(cls, features: Features, standardise: Standardise) -> _Scaling:
        """Learn the z-score from `features`, shape (N, D); a constant dimension keeps scale 1."""
        check_features("features", features)
        dim = features.shape[1]
        if standardise != "zscore":
            return cls(standardise == "l2", np.zeros(dim), np.ones(dim))
        total, square = np.zeros(dim), np.zeros(dim)
        for block in row_blocks(len(features), 8 * dim):
            total += to_float64("features", features[block]).sum(axis=0)
        mean = total / len(features)
        for block in row_blocks(len(features), 8 * dim):
            square += ((features[block].astype(np.float64) - mean) ** 2).sum(axis=0)
        deviation = np.sqrt(square / len(features))
        is_constant = deviation <= 1e-12 * np.abs(mean)  # rounding of the mean alone
        return cls(False, mean, np.where(is_constant, 1.0, deviation))

    def apply(self, features: Features) -> Features:
        """Return the scaled rows, shape (N, D); float32 where anything was done."""
        if not self.is_unit_norm and not self.shift.any() and (self.scale == 1).all():
            return features
        rows = np.empty(features.shape, dtype=np.float32)
        for block in row_blocks(len(features), 8 * features.shape[1]):
            part = features[block]
            wide = unit_rows("features", part) if self.is_unit_norm else part.astype(np.float64)
            rows[block] = (wide - self.shift) / self.scale
        return rows


def _search(
    features: Features,
    labels: NDArray[np.int64],
    rest: NDArray[np.intp],
    held: NDArray[np.intp],
    options: LinearOptions,
    device: str,
) -> dict[float, float]:
    """Return the held-out accuracy of each strength that was tried."""
    scaling = _Scaling.of(features[rest], options.standardise)
    rows, held_rows = scaling.apply(features[rest]), scaling.apply(features[held])
    tried: dict[float, float] = {}

    def attempt(strengths: Sequence[float]) -> None:
        path = _fit(rows, labels[rest], strengths, options, device)
        for strength, weights, bias in zip(strengths, path.weights, path.biases, strict=True):
            predictions = (held_rows @ weights + bias).argmax(axis=1)
            tried[strength] = top1(labels[held], path.classes[predictions])

    for group in _groups(options):
        attempt(group)
        if _is_hopeless(tried, len(held), options.stop_standard_errors):
            break
    if options.search == "grid":
        return tried
    step = max(np.diff(np.log10(options.strengths)))  # decades
    while step * options.steps_per_decade > 1 + 1e-9:
        step /= 2
        peak = np.log10(_peak(tried))
        around = [float(10 ** round(peak + side, 9)) for side in (-step, step)]
        low, high = options.strengths[0], options.strengths[-1]
        attempt([c for c in around if low <= c <= high])  # never empty: step < high - low
    return tried


def _groups(options: LinearOptions) -> list[tuple[float, ...]]:
    """Return the strengths in the order of trial: all at once, or weak penalties one by one."""
    if not options.stop_standard_errors:
        return [options.strengths]
    first, rest = options.strengths[:_SHARED], options.strengths[_SHARED:]
    return [first, *((strength,) for strength in rest)]


def _is_hopeless(tried: dict[float, float], n_held: int, standard_errors: float) -> bool:
    """Tell whether the weakest penalty tried lies too far below the best accuracy to go on."""
    best, weakest = max(tried.values()), tried[max(tried)]
    error = (best * (1 - best) / n_held) ** 0.5
    return standard_errors > 0 and best - weakest > standard_errors * error


def _peak(tried: dict[float, float]) -> float:
    """Return the strength of the best accuracy, the smaller one on a tie."""
    return max(tried, key=lambda strength: (tried[strength], -strength))


def _fit(
    rows: Features,
    labels: NDArray[np.int64],
    strengths: Sequence[float],
    options: LinearOptions,
    device: str,
) -> LogisticPath:
    return fit_path(
        rows, labels, strengths, tol=options.tol, max_iter=options.max_iter, device=device
    )
