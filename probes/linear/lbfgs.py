"""L-BFGS on many problems that are evaluated together, each with its own pairs and step."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

_MEMORY = 20  # curvature pairs; 10 takes a tenth more passes, 50 saves nothing more
_ARMIJO = 1e-4  # sufficient decrease: Nocedal & Wright, eq. 3.4
_PATIENCE = 20  # passes without a lower loss after which rounding has stopped a problem

_FIRST_RENEWAL = 20
"""Accepted steps after which a preconditioner is renewed; then after twice as many each time."""

Evaluate = Callable[
    ["torch.Tensor", "torch.Tensor"], tuple["torch.Tensor", "torch.Tensor", "torch.Tensor"]
]
Precondition = Callable[[float], "torch.Tensor"]
"""From a problem's curvature to the inverse root of the curvature along each coordinate."""


def descend(
    evaluate: Evaluate,
    problems: Sequence[Problem],
    penalties: Sequence[float],
    *,
    tol: float,
    max_iter: int,
) -> None:
    """Run all problems to their optimum; one pass evaluates every problem still active.

    A problem leaves when ‖gradient‖₂ <= tol · min(1, loss), after `max_iter` accepted steps,
    or when rounding has stopped it. The problems are changed in place.

    Args:
        evaluate: From points (A, *shape) and penalties (A,), float64, to the losses (A,),
            float64, the gradients (A, *shape) and the curvatures (A,). Convex.
        problems: All of one shape, dtype and device.
        penalties: One per problem, passed on to `evaluate`.
        tol: Relative to the loss where that is below 1.
        max_iter: Accepted steps per problem.

    Source: Liu & Nocedal 1989; Nocedal & Wright 2006, algorithms 3.1 and 7.4.
    """
    import torch

    active = list(zip(problems, penalties, strict=True))
    like = problems[0].theta
    noise = 8 * torch.finfo(like.dtype).eps
    while active:
        numbers = [penalty for _, penalty in active]
        weights = torch.tensor(numbers, dtype=torch.float64, device=like.device)
        trials = torch.stack([problem.trial() for problem, _ in active])
        losses, grads, bends = evaluate(trials, weights)
        sizes = grads.flatten(1).norm(dim=1).tolist()
        seen = zip(active, losses.tolist(), sizes, bends.tolist(), grads, strict=True)
        for (problem, _), loss, size, bend, grad in seen:
            problem.learn(loss, grad, size, bend, noise)
        active = [
            (item, penalty)
            for item, penalty in active
            if item.size > tol * min(1.0, item.loss)
            and item.iterations < max_iter
            and item.idle < _PATIENCE
        ]


class Problem:
    """One problem's iterate, preconditioner and line search."""

    def __init__(self, theta: torch.Tensor, precondition: Precondition) -> None:
        """Start at `theta`, any shape; descend on θ / scale, which broadcasts to that shape.

        The scale is what `precondition` makes of the curvature at the first point, and later at
        others: it falls by orders of magnitude where classes separate.
        """
        self.theta = theta
        self.loss = self.size = float("inf")
        """Loss and ‖gradient‖₂ at `theta`."""
        self.iterations = 0
        self.idle = 0
        """Passes since the loss last fell by more than rounding."""
        self._best = float("inf")
        self._precondition = precondition
        self._scale = theta
        self._renewal = _FIRST_RENEWAL
        self._step = 1.0
        self._slope = 0.0
        self._grad = self._direction = theta.new_zeros(theta.numel())
        self._pairs = _Pairs(self._grad)

    def trial(self) -> torch.Tensor:
        """Return the point to evaluate in the next pass."""
        return self._moved(self._step * self._direction)

    def _moved(self, move: torch.Tensor) -> torch.Tensor:
        return self.theta + self._scale * move.view(self.theta.shape)

    def learn(
        self, loss: float, grad: torch.Tensor, size: float, bend: float, noise: float
    ) -> None:
        """Take the step if the loss fell enough, else shorten it for the next pass."""
        if np.isinf(self.loss):
            self._scale = self._precondition(bend)
        raw, grad = grad, (self._scale * grad).flatten()
        self.idle = 0 if loss < self._best * (1 - noise) else self.idle + 1
        self._best = min(self._best, loss)
        if np.isinf(self.loss):  # the first pass, at `theta` itself
            self.loss, self._grad, self.size = loss, grad, size
        elif loss <= self.loss + _ARMIJO * self._step * self._slope + noise * abs(self.loss):
            move = self._step * self._direction
            self._pairs.add(move, grad - self._grad)
            self.theta = self._moved(move)
            self.loss, self._grad, self.size, self._step = loss, grad, size, 1.0
            self.iterations += 1
            if self.iterations == self._renewal:
                self._renewal *= 2
                self._scale = self._precondition(bend)
                self._grad = grad = (self._scale * raw).flatten()
                self._pairs.slots.clear()
        else:
            # the parabola through loss, slope and the trial's loss, kept within [0.1, 0.5]
            rise = loss - self.loss - self._step * self._slope
            ratio = -self._slope * self._step / (2 * rise) if np.isfinite(rise) else 0.1
            self._step *= min(max(ratio, 0.1), 0.5)
            return
        self._direction = self._pairs.descent(grad)
        self._slope = float(self._direction.dot(grad))
        if self._slope >= 0:  # rounding spoilt the pairs: start again from steepest descent
            self._pairs.slots.clear()
            self._direction, self._slope = -grad, -float(grad.dot(grad))


class _Pairs:
    """The last L-BFGS pairs of one problem: steps s and gradient changes y, as rows.

    The two-loop recursion only needs the products between these rows and the gradient, so it
    runs on a small matrix: two passes over the rows instead of four times their number.
    """

    def __init__(self, like: torch.Tensor) -> None:
        self.rows = like.new_zeros(2 * _MEMORY, len(like))  # s in the first half, y in the second
        self.products = np.zeros((2 * _MEMORY, 2 * _MEMORY))
        self.slots: deque[int] = deque(maxlen=_MEMORY)  # oldest first

    def add(self, move: torch.Tensor, bend: torch.Tensor) -> None:
        """Keep one more pair, in place of the oldest if there is no room."""
        slot = self.slots[0] if len(self.slots) == _MEMORY else len(self.slots)
        self.slots.append(slot)
        self.rows[slot], self.rows[_MEMORY + slot] = move, bend

    def descent(self, grad: torch.Tensor) -> torch.Tensor:
        """Return -H∇ by the two-loop recursion; -∇ while there is no pair."""
        if not self.slots:
            return -grad
        new = self.slots[-1]
        fresh = grad.new_empty(3, len(grad))
        fresh[0], fresh[1], fresh[2] = self.rows[new], self.rows[_MEMORY + new], grad
        found = (self.rows @ fresh.T).double().cpu().numpy()  # (2m, 3)
        for place, column in ((new, 0), (_MEMORY + new, 1)):
            self.products[place] = self.products[:, place] = found[:, column]
        if self.products[new, _MEMORY + new] <= 0:  # rounding: a convex loss has s·y > 0
            self.slots.clear()
            return -grad
        weights, of_grad = self._recursion(found[:, 2])
        return grad.new_tensor(weights) @ self.rows + of_grad * grad

    def _recursion(self, with_grad: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
        """Return the weights of the rows and of ∇ in -H∇, given the rows' products with ∇."""
        weights, of_grad = np.zeros(2 * _MEMORY), -1.0
        taken = {}
        for slot in reversed(self.slots):
            bend = _MEMORY + slot
            inner = weights @ self.products[:, slot] + of_grad * with_grad[slot]
            taken[slot] = inner / self.products[slot, bend]
            weights[bend] -= taken[slot]
        new, bend = self.slots[-1], _MEMORY + self.slots[-1]
        scale = self.products[new, bend] / self.products[bend, bend]
        weights, of_grad = weights * scale, of_grad * scale
        for slot in self.slots:
            bend = _MEMORY + slot
            inner = weights @ self.products[:, bend] + of_grad * with_grad[bend]
            weights[slot] += taken[slot] - inner / self.products[slot, bend]
        return weights, of_grad
