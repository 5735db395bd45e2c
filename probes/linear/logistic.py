"""Logistic regression on cached features: one class per row, or several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from featcache.errors import OptionError, ShapeError
from featcache.probes.arrays import Features, check_labels
from featcache.probes.linear.losses import CrossEntropy, OneVsRest
from featcache.probes.linear.options import Binary
from featcache.probes.linear.scaling import Rows
from featcache.probes.linear.solver import LogisticPath, PathSolver


def fit_path(
    features: Features | Rows,
    labels: NDArray[np.int64],
    strengths: Sequence[float],
    *,
    class_weights: Mapping[int, float] | None = None,
    binary: Binary = "softmax",
    tol: float = 1e-6,
    max_iter: int = 1000,
    device: str = "cpu",
) -> LogisticPath:
    """Fit one multinomial logistic regression per strength.

    Classes are those that occur in `labels`; with a single one the classifier is constant. A
    constant dimension gets weight zero. Problems that stop short of `tol` (out of iterations, or
    of float64 digits) are returned as they are, with `converged` false.

    Args:
        features: Shape (N, D), any float dtype; N < D is fine; a memory map is read by blocks.
        labels: Shape (N,), class indices from 0, in any subset.
        strengths: The K values of C, each positive; larger is a weaker penalty.
        class_weights: Multiplies the loss of a class's rows; 1 where a class is left out.
        binary: What is penalised where there are two classes: both weight vectors (`softmax`), or
            their difference, as scikit-learn does (`sigmoid`). Either way there are two columns;
            a sigmoid's w stands in them as -w/2 and w/2.
        tol: Converged when ‖gradient‖₂ <= tol · min(1, objective), for features centred and
            scaled to unit mean square norm.
        max_iter: Accepted steps per strength.
        device: Torch device that does the passes.

    Returns:
        The fitted path, in the units of the raw features.

    Raises:
        ShapeError: If arrays do not fit together, are empty or not finite.
        OptionError: If a strength or weight is not positive and finite, or if there is none.

    Source: Liu & Nocedal 1989 (L-BFGS); checked against scikit-learn's LogisticRegression.
    """
    solver = softmax_solver(
        features,
        labels,
        class_weights=class_weights,
        binary=binary,
        tol=tol,
        max_iter=max_iter,
        device=device,
    )
    return solver.solve(strengths)


def softmax_solver(
    features: Features | Rows,
    labels: NDArray[np.int64],
    *,
    class_weights: Mapping[int, float] | None = None,
    binary: Binary = "softmax",
    tol: float = 1e-6,
    max_iter: int = 1000,
    device: str = "cpu",
) -> PathSolver:
    """Return what solves a multinomial logistic regression at strengths that come one by one.

    Arguments and errors are those of `fit_path`.
    """
    rows = features if isinstance(features, Rows) else Rows(features)
    check_labels("labels", rows, labels)
    classes, codes = np.unique(labels, return_inverse=True)
    weights = None
    if class_weights is not None:
        each = np.array([class_weights.get(int(label), 1.0) for label in classes])
        if not (np.isfinite(each).all() and (each > 0).all()):
            raise OptionError(
                f"`class_weights` must be positive finite numbers; got {float(each.min())!r}. "
                "Leave a class out of the subset instead of giving it no weight."
            )
        weights = each[codes]
    is_one_vector = binary == "sigmoid" and len(classes) == 2
    # ‖-w/2‖² + ‖w/2‖² is half of ‖w‖²
    penalty = 2.0 if is_one_vector else 1.0
    loss = CrossEntropy(codes, len(classes), device, weights, penalty=penalty)
    return PathSolver(rows, loss, classes, tol=tol, max_iter=max_iter, device=device)


def one_vs_rest_solver(
    features: Features | Rows,
    targets: NDArray[np.bool_],
    *,
    tol: float = 1e-6,
    max_iter: int = 1000,
    device: str = "cpu",
) -> PathSolver:
    """Return what solves one binary logistic regression per class, for rows of several classes.

    The classes of its paths are the columns of `targets` that have rows of both kinds; the others
    have nothing to learn from. The tolerance is for the gradient of all classes together.

    Args:
        features: Shape (N, D).
        targets: Shape (N, C), whether a row belongs to a class.
        tol: As in `fit_path`.
        max_iter: As in `fit_path`.
        device: As in `fit_path`.

    Raises:
        ShapeError: If `targets` has another length, or no column with rows of both kinds.

    Source: Checked against scikit-learn's OneVsRestClassifier of LogisticRegression.
    """
    rows = features if isinstance(features, Rows) else Rows(features)
    if targets.ndim != 2 or len(targets) != len(rows):
        raise ShapeError(
            f"`targets` must have a row per row of features, {len(rows)}; got shape "
            f"{targets.shape}. Pass one column per class."
        )
    counts = targets.sum(axis=0)
    classes = np.flatnonzero((counts > 0) & (counts < len(targets))).astype(np.int64)
    if not len(classes):
        raise ShapeError(
            "`targets` must have a class with rows in it and rows outside; got none. "
            "Extract more images."
        )
    loss = OneVsRest(targets[:, classes], device)
    return PathSolver(rows, loss, classes, tol=tol, max_iter=max_iter, device=device)
