"""The solver of logistic regression for a whole path of L2 strengths.

- Objective, for each strength C: (1/n) Σ w_i loss_i + (p / (2 C n)) ‖W‖², bias unpenalised; the
  loss is softmax cross-entropy, or one logistic loss per class, summed. With p = 1 and three or
  more classes the first is scikit-learn's `LogisticRegression(C=C)`. With two classes scikit-learn
  solves the one-column form, which is p = 2.
- Strengths go from the strongest penalty to the weakest, in groups that share each pass over the
  features: one product with [W_1 … W_A]. Each has its own L-BFGS pairs and its own step, and leaves
  when it has converged. A group starts where a parabola through the solutions before it points to.
- Along the principal axes of the features the variance, times the mean p (1 - p) of a class, plus
  the penalty is nearly the curvature: a preconditioner that costs nothing and is renewed each step.
- With fewer rows than dimensions the problem is reduced to the space of the rows.
- Passes are float32 until rounding stops a problem; float64 then finishes it, and measures every
  optimum once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featcache.errors import OptionError
from featcache.probes.linear.design import Design
from featcache.probes.linear.lbfgs import FEWEST_PAIRS, MOST_PAIRS, Problem, descend
from featcache.probes.linear.losses import Loss
from featcache.probes.linear.row_space import row_space
from featcache.probes.linear.scaling import Rows

if TYPE_CHECKING:
    import torch

_LEAST_SPREAD = 1e-12  # of p (1 - p): a preconditioner must stay finite
_COLUMNS = {"cpu": 16, "cuda": 4096}  # of a product that is worth more than a nearer start
_GROUP_SHARE = 0.5  # of the features' float32 bytes may go to a group's pairs
_GROUP_BYTES = 1 << 26  # but 64 MiB always may
_KEPT_SHARE = 0.1  # of the features' float32 bytes may go to a problem's pairs, or to solutions
_CURVE = 3  # solutions through which the next start is drawn: a parabola
_STRIDE = np.log(10.0) + 1e-9  # in log C; solutions further apart are on no curve


@dataclass(frozen=True, slots=True, kw_only=True)
class LogisticPath:
    """One fitted classifier for each of K strengths, in the units of the raw features."""

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
    passes: NDArray[np.int64]
    """Shape (K,), evaluations of loss and gradient."""
    converged: NDArray[np.bool_]
    """Shape (K,), whether `grad_norm` reached the tolerance."""


class PathSolver:
    """Solves one problem at any strengths, each from what is solved already."""

    def __init__(
        self,
        features: Rows,
        loss: Loss,
        classes: NDArray[np.int64],
        *,
        tol: float = 1e-6,
        max_iter: int = 1000,
        device: str = "cpu",
    ) -> None:
        """Take the features, shape (N, D), the loss of their rows and what its columns stand for.

        Raises:
            ShapeError: If a value is not finite.
        """
        import torch

        self._torch, self._loss, self.classes = torch, loss, classes
        self._tol, self._max_iter = tol, max_iter
        self._basis: NDArray[np.float64] | None = None
        self._basis_mean = np.zeros(features.shape[1])
        if features.shape[0] < features.shape[1]:
            rotated, self._basis, self._basis_mean = row_space(features)
            features = Rows(rotated)
        self._design = Design(features, device)
        self._solved: dict[float, torch.Tensor] = {}

    def solve(self, strengths: Sequence[float]) -> LogisticPath:
        """Fit one classifier per strength.

        Raises:
            OptionError: If a strength is not positive and finite, or if there is none.
        """
        if len(strengths) == 0 or not all(np.isfinite(c) and c > 0 for c in strengths):
            raise OptionError(
                f"`strengths` must be positive finite numbers, at least one; got "
                f"{list(strengths)!r}."
            )
        pending, size = sorted(set(strengths)), self._group_size()
        path = self._empty(strengths)
        for first in range(0, len(pending), size):
            group = pending[first : first + size]
            for strength, problem in zip(group, self._solve_group(group), strict=True):
                for place in np.flatnonzero(np.equal(strengths, strength)).tolist():
                    self._measure(problem, path, place)
        return path

    def start_near(
        self, strength: float, weights: NDArray[np.float64], bias: NDArray[np.float64]
    ) -> None:
        """Take a solution for similar rows as a place to start from.

        Args:
            strength: Which it was solved for.
            weights: Shape (D, C), of the classes of this solver, in the units of its features.
            bias: Shape (C,).
        """
        torch, design = self._torch, self._design
        bias = bias + self._basis_mean @ weights
        if self._basis is not None:
            weights = self._basis.T @ weights
        kept = torch.as_tensor(weights, dtype=torch.float64, device=design.device)
        last = torch.as_tensor(bias, device=design.device) + design.mean @ kept
        theta = torch.cat([kept * design.square**0.5, last[None]])
        self._solved[strength] = theta.to(design.dtype)

    def _empty(self, strengths: Sequence[float]) -> LogisticPath:
        count, width = len(strengths), self._loss.n_columns
        return LogisticPath(
            strengths=tuple(float(c) for c in strengths),
            classes=self.classes,
            weights=np.empty((count, len(self._basis_mean), width)),
            biases=np.empty((count, width)),
            objective=np.empty(count),
            grad_norm=np.empty(count),
            iterations=np.empty(count, dtype=np.int64),
            passes=np.empty(count, dtype=np.int64),
            converged=np.empty(count, dtype=np.bool_),
        )

    def _solve_group(self, strengths: Sequence[float]) -> list[Problem]:
        torch, design = self._torch, self._design
        n_pairs = self._n_pairs()
        problems = [
            Problem(
                self._start(c),
                self._loss.penalty / (c * self._n_rows),
                self._precondition,
                n_pairs,
            )
            for c in strengths
        ]
        tol = self._tol
        descend(self._evaluate, problems, tol=tol, max_iter=self._max_iter)
        short = [item for item in problems if not item.is_solved(tol)]
        short = [item for item in short if item.iterations < self._max_iter]
        if design.dtype != torch.float64 and short:
            for item in short:
                item.promote(torch.float64)
            descend(self._evaluate, short, tol=tol, max_iter=self._max_iter)
        for c, item in zip(strengths, problems, strict=True):
            self._solved[c] = item.theta.to(design.dtype)
        self._forget(float(np.log(strengths[-1])))
        return problems

    def _forget(self, at: float) -> None:
        """Keep the solutions nearest to the last one, as many as there is room for."""
        room = _KEPT_SHARE * self._feature_bytes // self._theta_bytes
        far = sorted(self._solved, key=lambda c: abs(np.log(c) - at))
        for c in far[max(_CURVE, int(room)) :]:
            del self._solved[c]

    @property
    def _n_rows(self) -> float:
        """N, times the mean square norm of the rows: weights are measured in units of its root."""
        return self._design.n_rows * self._design.square

    @property
    def _feature_bytes(self) -> int:
        """In float32."""
        return int(4 * self._design.n_rows * self._design.dim)

    @property
    def _theta_bytes(self) -> int:
        return int(self._design.dtype.itemsize * (self._design.dim + 1) * self._loss.n_columns)

    def _n_pairs(self) -> int:
        """Return how many pairs a problem keeps: more where they are small beside the features."""
        room = _KEPT_SHARE * self._feature_bytes // (2 * self._theta_bytes)
        return int(min(max(room, FEWEST_PAIRS), MOST_PAIRS))

    def _group_size(self) -> int:
        """Return how many strengths share a pass: all that fit if features must be read for it."""
        design, width = self._design, self._loss.n_columns
        one = (2 * self._n_pairs() + 8) * self._theta_bytes
        room = max(_GROUP_BYTES, _GROUP_SHARE * self._feature_bytes) // one
        if design.is_resident:
            room = min(room, -(-_COLUMNS[design.device.partition(":")[0]] // width))
        return max(1, int(room))

    def _start(self, strength: float) -> torch.Tensor:
        """Return the first iterate: where a parabola through the nearest solutions points to."""
        at, design = np.log(strength), self._design
        near = sorted(self._solved, key=lambda c: (abs(np.log(c) - at), c))[:_CURVE]
        if not near:
            shape = (design.dim + 1, self._loss.n_columns)
            theta = self._torch.zeros(shape, dtype=design.dtype, device=design.device)
            theta[-1] = self._torch.as_tensor(self._loss.start())
            return theta
        logs = np.log(near)
        logs = logs[: next((i for i in range(1, len(logs)) if _gap(logs, i) > _STRIDE), len(logs))]
        if len(logs) > 1:  # no further out than the nearest two are apart
            reach = abs(logs[0] - logs[1])
            at = np.clip(at, logs[0] - reach, logs[0] + reach)
        theta = self._torch.zeros_like(self._solved[near[0]])
        for i, log in enumerate(logs):
            others = np.delete(logs, i)  # Lagrange's weights
            share = float(np.prod((at - others) / (log - others)))
            theta += share * self._solved[near[i]]
        return theta

    def _precondition(
        self, vector: torch.Tensor, bend: torch.Tensor, penalty: float
    ) -> torch.Tensor:
        """Return H⁻¹ vector, shape (D + 1, C), for the Hessian of independent axes and classes."""
        dtype, square = vector.dtype, self._design.square
        axes = self._design.axes.to(dtype)
        spread = bend.to(dtype).clamp_min(_LEAST_SPREAD)  # (C,), mean p (1 - p)
        curvature = self._design.variances.to(dtype)[:, None] * (spread / square) + penalty
        found = self._torch.empty_like(vector)
        found[:-1] = axes @ ((axes.T @ vector[:-1]) / curvature)
        found[-1] = vector[-1] / spread
        return found

    def _evaluate(
        self, theta: torch.Tensor, penalties: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return objectives (A,), float64, gradients (A, D + 1, C) and mean p (1 - p), (A, C)."""
        torch, design, (count, _, width) = self._torch, self._design, theta.shape
        dtype, dim, root = theta.dtype, design.dim, design.square**0.5
        weights = theta[:, :-1].transpose(0, 1).reshape(dim, count * width) / root  # (D, A C)
        bias = theta[:, -1].reshape(-1)  # (A C,)
        if pad := _padding(count * width):
            weights = torch.nn.functional.pad(weights, (0, pad))
            bias = torch.nn.functional.pad(bias, (0, pad))
        loss = torch.zeros(count, dtype=torch.float64, device=design.device)
        bend = torch.zeros(count, width, dtype=dtype, device=design.device)
        grad = torch.zeros(count * width, dim, dtype=dtype, device=design.device)
        grad_bias = torch.zeros(count, width, dtype=dtype, device=design.device)
        for rows, x in design.blocks(count * width, dtype):
            logits = torch.addmm(bias, x, weights)[:, : count * width]
            logits = logits.reshape(-1, count, width)  # (B, A, C)
            losses, residuals, bends = self._loss.evaluate(rows, logits)
            loss, bend = loss + losses, bend + bends
            grad.addmm_(residuals.view(-1, count * width).T, x)  # twice as fast as its transpose
            grad_bias += residuals.sum(dim=0)
        grad = grad.view(count, width, dim).transpose(1, 2) / root
        full = torch.cat([grad, grad_bias[:, None]], dim=1) / design.n_rows
        full[:, :-1] += penalties.to(dtype)[:, None, None] * theta[:, :-1]
        square = theta[:, :-1].to(torch.float64).square().sum(dim=(1, 2))
        return loss / design.n_rows + 0.5 * penalties * square, full, bend / design.n_rows

    def _measure(self, problem: Problem, path: LogisticPath, place: int) -> None:
        """Measure an optimum in float64, undo what was done to the features, and write it down."""
        torch, design = self._torch, self._design
        theta = problem.theta.to(torch.float64)
        penalty = torch.tensor([problem.penalty], dtype=torch.float64, device=design.device)
        value, grad, _ = self._evaluate(theta[None], penalty)
        kept = theta[:-1].masked_fill(design.is_constant[:, None], 0) / design.square**0.5
        weights = kept.cpu().numpy()
        bias = (theta[-1] - design.mean @ kept).cpu().numpy()
        if self._basis is not None:
            weights = self._basis @ weights
        path.weights[place] = weights
        path.biases[place] = bias - self._basis_mean @ weights
        path.objective[place], path.grad_norm[place] = float(value), float(grad.norm())
        path.iterations[place], path.passes[place] = problem.iterations, problem.passes
        goal = 1.02 * self._tol * min(1, float(value))  # 1.02: float32 saw it a little otherwise
        path.converged[place] = path.grad_norm[place] <= goal


def _padding(width: int) -> int:
    """Return the columns to add to a thin product: multiples of 16 take a third of the time."""
    return -width % 16 if width < 64 else 0


def _gap(logs: NDArray[np.float64], i: int) -> float:
    """Return how far a solution is from the nearest one before it in the list."""
    return float(np.abs(logs[:i] - logs[i]).min())
