"""The ridge probe: choose the strength by leave-one-out, fit all rows with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featcache.digest import Json
from featcache.probes.arrays import Features, check_features, check_labels
from featcache.probes.closed_form.options import RidgeOptions, Selection
from featcache.probes.closed_form.ridge import RidgeSystem, decompose
from featcache.probes.closed_form.targets import ClassTargets
from featcache.probes.linear.head import LinearHead
from featcache.probes.linear.selection import grid_warnings

_BIG_VISION_EPSILON = 1e-5  # big_vision evaluators/fewshot_lsr.py, added to each deviation
_BIG_VISION_BIAS = 100.0  # big_vision evaluators/fewshot_lsr.py, BIAS_CONSTANT


def fit_ridge(
    features: Features,
    labels: NDArray[np.int64],
    options: RidgeOptions,
    *,
    device: str = "cpu",
) -> LinearHead:
    """Fit a ridge regression on class targets, its strength chosen by leave-one-out.

    Args:
        features: Shape (N, D), any float dtype.
        labels: Shape (N,), class indices from 0; classes may be missing.
        options: Grid, criterion and standardisation; see `choose_strength`.
        device: Torch device of the products.

    Returns:
        The head, whose logits are predictions on the targets' scale, with `details`.

    Raises:
        ShapeError: If arrays do not fit together, are empty or not finite.

    Source: Rifkin et al. 2003 (regularised least-squares classification); checked against
        scikit-learn's RidgeClassifier and RidgeClassifierCV.
    """
    check_features("features", features)
    check_labels("labels", features, labels)
    classes, columns, counts = np.unique(labels, return_inverse=True, return_counts=True)
    weights = None
    if options.class_weight == "balanced":
        weights = (len(labels) / (len(classes) * counts))[columns]
    system = decompose(
        features,
        ClassTargets.of_columns(columns, len(classes), options.targets),
        standardise=options.standardise,
        row_weights=weights,
        device=device,
    )
    return _head(system, classes, options, is_judged=bool(counts.max() > 1))


def fit_big_vision(
    features: Features, labels: NDArray[np.int64], *, l2_reg: float, device: str = "cpu"
) -> LinearHead:
    """Fit the few-shot classifier of big_vision: ridge on ±1 targets with a fixed strength.

    Rows are standardised by (x - mean) / (deviation + 1e-5) and get a constant feature of 100,
    whose weight is penalised too. Classes without rows, which big_vision keeps as columns that
    are -1 throughout, are left out; they would never be predicted.

    Args:
        features: Shape (N, D), any float dtype.
        labels: Shape (N,), class indices from 0.
        l2_reg: The strength, positive; big_vision's configs use 2^10.
        device: Torch device of the products.

    Raises:
        ShapeError: If arrays do not fit together, are empty or not finite.
        OptionError: If `l2_reg` is not positive and finite.

    Source: big_vision `evaluators/fewshot_lsr.py`; checked against the formula with the constant
        feature written out.
    """
    check_features("features", features)
    check_labels("labels", features, labels)
    classes, columns = np.unique(labels, return_inverse=True)
    system = decompose(
        features,
        ClassTargets.of_columns(columns, len(classes)),
        standardise="zscore",
        bias_feature=_BIG_VISION_BIAS,
        epsilon=_BIG_VISION_EPSILON,
        device=device,
    )
    weights, bias = system.solve(l2_reg)
    return LinearHead(
        classes=classes,
        weights=weights,
        bias=bias,
        is_unit_norm=False,
        details={"strength": l2_reg, "classes_in_train": len(classes)},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The strength that leave-one-out chose, and what it saw."""

    strength: float
    tried: Mapping[float, tuple[float, float]]
    """Strength to (accuracy, squared error), the grid's first, then by the order of trial."""
    extended: tuple[float, ...]
    """Strengths that were tried beyond the grid."""
    is_at_edge: bool
    """Whether the choice still is the smallest or largest of those tried."""


def choose_strength(system: RidgeSystem, options: RidgeOptions) -> Choice:
    """Choose the strength with the best leave-one-out score, the stronger penalty on a tie.

    Where that is an end of the grid, a decade is added there, at the grid's own spacing, and
    again while it brings a strictly better score, up to `extend_decades`. Strengths beyond the
    grid that only equal the best are not taken: a plateau would lead on for ever.

    Raises:
        ShapeError: If there is one row.
    """
    tried: dict[float, tuple[float, float]] = {}

    def attempt(strengths: tuple[float, ...]) -> None:
        found = system.leave_one_out(strengths)
        scores = zip(found.accuracy.tolist(), found.squared_error.tolist(), strict=True)
        tried.update(zip(strengths, scores, strict=True))

    grid = options.strengths
    attempt(grid)
    best = _best(tried, options.selection)
    for edge, sign in ((grid[0], -1), (grid[-1], 1)):
        for _ in range(options.extend_decades if len(grid) > 1 else 0):
            if best != edge:
                break
            beyond = _decade(grid, edge, sign)
            attempt(beyond)
            further = _best({one: tried[one] for one in beyond}, options.selection)
            if _score(tried[further], options.selection) > _score(tried[best], options.selection):
                best = further
            edge = beyond[-1]
    return Choice(
        strength=best,
        tried=tried,
        extended=tuple(sorted(tried.keys() - set(grid))),
        is_at_edge=len(grid) > 1 and best in (min(tried), max(tried)),
    )


def _head(
    system: RidgeSystem, classes: NDArray[np.int64], options: RidgeOptions, *, is_judged: bool
) -> LinearHead:
    """Choose a strength, or take the middle of the grid where no row could be judged."""
    choice = None
    if is_judged and len(options.strengths) > 1:
        choice = choose_strength(system, options)
    middle = options.strengths[len(options.strengths) // 2]
    strength = choice.strength if choice else middle
    weights, bias = system.solve(strength)
    tried = sorted(choice.tried.items()) if choice else []
    details: dict[str, Json] = {
        "strength": strength,
        "selection": options.selection,
        "leave_one_out_accuracy": [[one, scores[0]] for one, scores in tried],
        "leave_one_out_squared_error": [[one, scores[1]] for one, scores in tried],
        "at_grid_edge": choice.is_at_edge if choice else False,
        "strengths_beyond_grid": list(choice.extended) if choice else [],
        "standardise": options.standardise,
        "targets": options.targets,
        "class_weight": options.class_weight,
        "classes_in_train": len(classes),
        "warnings": []
        if choice is None
        else [*grid_warnings(strength, list(choice.tried), is_extended=bool(choice.extended))],
    }
    return LinearHead(
        classes=classes,
        weights=weights,
        bias=bias,
        is_unit_norm=system.design.scaling.is_unit_norm,
        details=details,
    )


def _score(scores: tuple[float, float], selection: Selection) -> float:
    return scores[0] if selection == "accuracy" else -scores[1]


def _best(tried: Mapping[float, tuple[float, float]], selection: Selection) -> float:
    """Return the strength of the best score, the larger one on a tie."""
    return max(tried, key=lambda strength: (_score(tried[strength], selection), strength))


def _decade(grid: tuple[float, ...], edge: float, sign: int) -> tuple[float, ...]:
    """Return the strengths of one decade beyond `edge`, at most the grid's spacing apart."""
    pair = grid[:2] if sign < 0 else grid[-2:]
    steps = max(1, round(1 / np.log10(pair[1] / pair[0])))
    return tuple(float(edge * 10 ** (sign * one / steps)) for one in range(1, steps + 1))
