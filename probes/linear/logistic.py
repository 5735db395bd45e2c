"""Multinomial logistic regression for a whole path of L2 strengths at once.

- Objective, for each strength C: (1/n) Σ cross-entropy + (1 / (2 C n)) ‖W‖², bias unpenalised.
  With three classes or more this is scikit-learn's `LogisticRegression(C=C)`. With two classes
  scikit-learn solves the one-column form, whose strength 2C is our strength C.
- All strengths share each pass over the features: one product with [W_1 … W_K].
- Each strength has its own L-BFGS pairs and its own step, and leaves when it has converged.
- With fewer rows than dimensions the problem is reduced to the space of the rows.
- Features are centred, which moves only the bias, divided by one number, which only rescales
  W and the penalty, and rotated to their principal axes, which keeps ‖W‖: the optimum is that
  of the raw features.
- Along principal axes the variance, times the mean p (1 - p) of the predictions, plus the penalty
  is a diagonal preconditioner. It is renewed as the predictions grow sure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featcache.errors import OptionError
from featcache.probes.arrays import (
    Features,
    check_features,
    check_labels,
    row_blocks,
    to_float64,
)
from featcache.probes.linear.lbfgs import Precondition, Problem, descend

if TYPE_CHECKING:
    import torch

_FLOAT64_VALUES = 1 << 24  # up to 128 MiB of features is solved in float64, more in float32
_FLOAT32_TOL = 1e-5  # what float32 gradients can still resolve
_LEAST_SPREAD = 1e-12  # of p (1 - p): a preconditioner must stay finite
_PASS_BYTES = 1 << 25  # 32 MiB of features or logits at a time: larger temporaries leave the caches


@dataclass(frozen=True, slots=True, kw_only=True)
class LogisticPath:
    """One fitted classifier for each of K strengths."""

    strengths: tuple[float, ...]
    classes: NDArray[np.int64]
    """Shape (C,), the labels that occur in the training rows, sorted: columns of `weights`."""
    weights: NDArray[np.float64]
    """Shape (K, D, C)."""
    biases: NDArray[np.float64]
    """Shape (K, C)."""
    objective: NDArray[np.float64]
    """Shape (K,), at the optimum, in float64."""
    grad_norm: NDArray[np.float64]
    """Shape (K,), ‖gradient‖₂ for centred features of unit mean square norm, in float64."""
    iterations: NDArray[np.int64]
    """Shape (K,), accepted steps."""
    converged: NDArray[np.bool_]
    """Shape (K,), whether `grad_norm` reached the tolerance."""


def fit_path(
    features: Features,
    labels: NDArray[np.int64],
    strengths: Sequence[float],
    *,
    tol: float = 1e-6,
    max_iter: int = 1000,
    device: str = "cpu",
) -> LogisticPath:
    """Fit one multinomial logistic regression per strength.

    Classes are those that occur in `labels`; with a single one the classifier is constant. A
    constant dimension gets weight zero. Problems that stop short of `tol` (out of iterations,
    or of float32 digits in large sets) are returned as they are, with `converged` false.

    Args:
        features: Shape (N, D), any float dtype; N < D is fine.
        labels: Shape (N,), class indices from 0, in any subset.
        strengths: The K values of C, each positive; larger is a weaker penalty.
        tol: Converged when ‖gradient‖₂ <= tol · min(1, objective), for features centred and
            scaled to unit mean square norm. Sets too large for float64 use 1e-5 at least.
        max_iter: Accepted steps per strength.
        device: Torch device that holds the features and does the passes.

    Returns:
        The fitted path, in the units of the raw features.

    Raises:
        ShapeError: If arrays do not fit together, are empty or not finite.
        OptionError: If a strength is not positive and finite, or if there is none.

    Source: Liu & Nocedal 1989 (L-BFGS); checked against scikit-learn's LogisticRegression.
    """
    check_features("features", features)
    check_labels("labels", features, labels)
    if len(strengths) == 0 or not all(np.isfinite(c) and c > 0 for c in strengths):
        raise OptionError(
            f"`strengths` must be positive finite numbers, at least one; got {list(strengths)!r}."
        )
    if features.shape[0] < features.shape[1]:
        reduced, basis, mean = _row_space(features)
        path = fit_path(reduced, labels, strengths, tol=tol, max_iter=max_iter, device=device)
        weights = basis @ path.weights  # (K, D, C)
        return replace(path, weights=weights, biases=path.biases - mean @ weights)
    classes, codes = np.unique(labels, return_inverse=True)
    data = _Design(features, codes, len(classes), device)
    penalties = [1 / (c * len(features) * data.scale**2) for c in strengths]
    problems = [Problem(data.start(), data.preconditioner(penalty)) for penalty in penalties]
    tol = tol if data.dtype == data.exact else max(tol, _FLOAT32_TOL)
    descend(data.value_and_grad, problems, penalties, tol=tol, max_iter=max_iter)
    return _collect(data, problems, penalties, strengths, classes, tol)


def _row_space(
    features: Features,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Rotate centred features of N < D rows into the space they span.

    The optimum lies in that space, because the penalty forbids weight outside it, and a rotation
    keeps ‖W‖: the problem is the same with N instead of D dimensions.

    Returns:
        The features there, shape (N, N); the basis, shape (D, N); the mean, shape (D,).
    """
    values = to_float64("features", features)
    mean = values.mean(axis=0)
    basis, triangle = np.linalg.qr((values - mean).T)  # (D, N), (N, N)
    return np.ascontiguousarray(triangle.T), basis, mean


class _Design:
    """The features as the solver sees them: centred, scaled, along their principal axes."""

    def __init__(
        self, features: Features, codes: NDArray[np.intp], n_classes: int, device: str
    ) -> None:
        import torch

        self._torch = torch
        n_rows, self.dim = features.shape
        self.n_rows, self.n_classes, self.device = n_rows, n_classes, device
        self.exact = torch.float64
        self.dtype = self.exact if features.size <= _FLOAT64_VALUES else torch.float32
        blocks = list(row_blocks(n_rows, 8 * self.dim))
        total, square = np.zeros(self.dim), np.zeros(self.dim)
        for rows in blocks:
            total += to_float64("features", features[rows]).sum(axis=0)
        self.mean = total / n_rows  # (D,)
        for rows in blocks:
            square += ((features[rows].astype(np.float64) - self.mean) ** 2).sum(axis=0)
        is_constant = np.sqrt(square / n_rows) <= 1e-12 * np.abs(self.mean)  # rounding alone
        self.scale = float(np.sqrt(square.sum() / n_rows)) or 1.0  # all rows equal: any does
        self._rows = torch.empty(features.shape, dtype=self.dtype, device=device)
        for rows in blocks:
            self._rows[rows] = torch.from_numpy((features[rows] - self.mean) / self.scale)
        self._variances, self.axes = self._rotate()
        self.axes[is_constant] = 0.0
        self._codes = torch.tensor(codes, device=device)
        counts = np.bincount(codes, minlength=n_classes)
        self._log_prior = torch.tensor(np.log(counts / n_rows), dtype=self.dtype, device=device)

    def _rotate(self) -> tuple[torch.Tensor, NDArray[np.float64]]:
        """Turn the rows to their principal axes; return the variances (D,) and axes (D, D)."""
        blocks = list(row_blocks(self.n_rows, 8 * self.dim, _PASS_BYTES))
        moments = self._torch.zeros(self.dim, self.dim, dtype=self.exact, device=self.device)
        for rows in blocks:
            moments += self._rows[rows].T @ self._rows[rows]
        variances, axes = self._torch.linalg.eigh(moments / self.n_rows)
        turn = axes.to(self.dtype)
        for rows in blocks:
            self._rows[rows] = self._rows[rows] @ turn
        return variances.clamp_min(0).to(self.dtype), axes.cpu().numpy()

    def start(self) -> torch.Tensor:
        """Return the first iterate, shape (D + 1, C): zero weights, the classes' log priors."""
        theta = self._torch.zeros(
            self.dim + 1, self.n_classes, dtype=self.dtype, device=self.device
        )
        theta[-1] = self._log_prior - self._log_prior.mean()
        return theta

    def preconditioner(self, penalty: float) -> Precondition:
        """Return what gives the inverse root of the curvature along each axis, shape (D + 1, 1).

        A logit's curvature along an axis is p (1 - p), averaged, times the variance there.
        """

        def scale(spread: float) -> torch.Tensor:
            curvature = self._torch.ones(self.dim + 1, 1, dtype=self.dtype, device=self.device)
            curvature[:-1, 0] = self._variances
            curvature *= max(spread, _LEAST_SPREAD)
            curvature[:-1] += penalty
            inverse_root: torch.Tensor = curvature.rsqrt()
            return inverse_root

        return scale

    def value_and_grad(
        self, theta: torch.Tensor, penalties: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the objectives (A,), float64, and gradients (A, D + 1, C) of A problems.

        The third is the mean of p (1 - p) over rows and classes, shape (A,).
        """
        torch, (count, _, width) = self._torch, theta.shape
        weights = theta[:, :-1].transpose(0, 1).reshape(self.dim, count * width)  # (D, A C)
        bias = theta[:, -1].reshape(-1)  # (A C,)
        loss = torch.zeros(count, dtype=torch.float64, device=self.device)
        sure = torch.zeros(count, dtype=theta.dtype, device=self.device)
        grad = torch.zeros(count * width, self.dim, dtype=theta.dtype, device=self.device)
        grad_bias = torch.zeros(count, width, dtype=theta.dtype, device=self.device)
        for rows in row_blocks(self.n_rows, 8 * max(count * width, self.dim), _PASS_BYTES):
            x = self._rows[rows].to(theta.dtype)  # (B, D)
            logits = torch.addmm(bias, x, weights).view(-1, count, width)  # (B, A, C)
            target = self._codes[rows, None, None].expand(-1, count, 1)
            logits -= logits.amax(dim=2, keepdim=True)
            own = logits.gather(2, target).squeeze(2)
            probs = logits.exp_()
            norm = probs.sum(dim=2, keepdim=True)
            loss += (norm.squeeze(2).log() - own).sum(dim=0, dtype=torch.float64)
            probs /= norm
            sure += probs.square().sum(dim=(0, 2))
            probs.scatter_add_(2, target, -torch.ones_like(target, dtype=probs.dtype))
            grad.addmm_(probs.view(-1, count * width).T, x)  # twice as fast as its transpose
            grad_bias += probs.sum(dim=0)
        full = torch.cat(
            [grad.view(count, width, self.dim).transpose(1, 2), grad_bias[:, None]], dim=1
        )
        full /= self.n_rows
        full[:, :-1] += penalties.to(theta.dtype)[:, None, None] * theta[:, :-1]
        square = theta[:, :-1].to(torch.float64).square().sum(dim=(1, 2))
        spread = (1 - sure / self.n_rows) / width
        return loss / self.n_rows + 0.5 * penalties * square, full, spread


def _collect(
    data: _Design,
    problems: list[Problem],
    penalties: list[float],
    strengths: Sequence[float],
    classes: NDArray[np.int64],
    tol: float,
) -> LogisticPath:
    """Check each optimum once more in float64, and undo what was done to the features."""
    import torch

    n = len(problems)
    weights = np.empty((n, data.dim, data.n_classes))
    biases, objective, grad_norm = np.empty((n, data.n_classes)), np.empty(n), np.empty(n)
    for row, (problem, number) in enumerate(zip(problems, penalties, strict=True)):
        theta = problem.theta.to(torch.float64)
        penalty = torch.tensor([number], dtype=torch.float64, device=data.device)
        value, grad, _ = data.value_and_grad(theta[None], penalty)
        objective[row], grad_norm[row] = float(value), float(grad.norm())
        solved = theta.cpu().numpy()
        weights[row] = data.axes @ solved[:-1] / data.scale
        biases[row] = solved[-1] - data.mean @ weights[row]
    return LogisticPath(
        strengths=tuple(float(c) for c in strengths),
        classes=classes,
        weights=weights,
        biases=biases,
        objective=objective,
        grad_norm=grad_norm,
        iterations=np.array([item.iterations for item in problems]),
        converged=grad_norm <= 1.01 * tol * np.minimum(1, objective),  # 1.01: rounding
    )
