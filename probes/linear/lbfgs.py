"""L-BFGS on many problems that are evaluated together, each with its own pairs and step."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

FEWEST_PAIRS, MOST_PAIRS = 10, 30
"""Curvature pairs per problem; 30 save a quarter of the passes on features of a steep spectrum."""

_ARMIJO = 1e-4  # sufficient decrease: Nocedal & Wright, eq. 3.4
_FLATTER = 0.9  # share of the slope that must be gone where rounding hides a decrease
_NOISE = 8  # units of rounding within which two losses are equal
_PROGRESS = 0.9  # a gradient this much smaller than the smallest before is progress
_PATIENCE = 100  # passes without progress after which the digits are used up: a float64 pass
# costs as much as six, and a step may lower the loss by less than float32 shows

Evaluate = Callable[
    ["torch.Tensor", "torch.Tensor"], tuple["torch.Tensor", "torch.Tensor", "torch.Tensor"]
]
"""From points (A, *shape) and penalties (A,), float64, to the losses (A,), float64, the gradients
(A, *shape) and whatever the preconditioner takes, one per problem."""

Precondition = Callable[["torch.Tensor", "torch.Tensor", float], "torch.Tensor"]
"""From (vector, what `Evaluate` gave of the curvature, penalty) to an approximate H⁻¹ vector."""


def descend(evaluate: Evaluate, problems: Sequence[Problem], *, tol: float, max_iter: int) -> None:
    """Run all problems to their optimum; one pass evaluates every problem still active.

    A problem leaves when ‖gradient‖₂ <= tol · min(1, loss), after `max_iter` accepted steps, or
    when its number format has no digits left to go further. The problems are changed in place.

    Args:
        evaluate: Loss and gradient of several points at once; convex.
        problems: All of one shape, dtype and device.
        tol: Relative to the loss where that is below 1.
        max_iter: Accepted steps per problem.

    Source: Liu & Nocedal 1989; Nocedal & Wright 2006, algorithms 3.1 and 7.4; where two losses are
    equal but for rounding, the slope decides, as in Hager & Zhang 2005.
    """
    import torch

    active = list(problems)
    while active:
        penalties = torch.tensor(
            [item.penalty for item in active], dtype=torch.float64, device=active[0].theta.device
        )
        losses, grads, bends = evaluate(torch.stack([item.trial() for item in active]), penalties)
        sizes = grads.flatten(1).norm(dim=1).tolist()
        for item, loss, size, grad, bend in zip(
            active, losses.tolist(), sizes, grads, bends, strict=True
        ):
            item.learn(loss, grad, size, bend)
        active = [
            item
            for item in active
            if not item.is_solved(tol) and item.iterations < max_iter and item.idle < _PATIENCE
        ]


class Problem:
    """One problem's iterate, curvature pairs and line search."""

    def __init__(
        self, theta: torch.Tensor, penalty: float, precondition: Precondition, n_pairs: int
    ) -> None:
        """Start at `theta`, any shape, and remember the last `n_pairs` changes of the gradient."""
        self.theta, self.penalty = theta, penalty
        self.loss = self.size = float("inf")
        """Loss and ‖gradient‖₂ at `theta`."""
        self.iterations = self.passes = 0
        self.idle = 0
        """Passes without a lower loss or a smaller gradient, beyond rounding."""
        self._precondition = precondition
        self._least_loss = self._least_size = float("inf")
        self._step, self._slope = 1.0, 0.0
        self._grad = self._bend = self._direction = theta.new_zeros(theta.shape)
        self._pairs = _Pairs(theta, n_pairs)

    def is_solved(self, tol: float) -> bool:
        """Tell whether the gradient at `theta` is small enough."""
        return self.size <= tol * min(1.0, self.loss)

    def promote(self, dtype: torch.dtype) -> None:
        """Go on in a wider number format; the next pass measures `theta` anew."""
        self.theta = self.theta.to(dtype)
        self._pairs.promote(dtype)
        self._direction = self.theta.new_zeros(self.theta.shape)
        self.loss = self.size = self._least_loss = self._least_size = float("inf")
        self._step, self.idle = 1.0, 0

    def trial(self) -> torch.Tensor:
        """Return the point to evaluate in the next pass."""
        return self.theta + self._step * self._direction

    def learn(self, loss: float, grad: torch.Tensor, size: float, bend: torch.Tensor) -> None:
        """Take the step if the loss fell enough, else shorten it for the next pass."""
        import torch

        self.passes += 1
        noise = _NOISE * torch.finfo(grad.dtype).eps
        self._watch(loss, size, noise)
        if np.isinf(self.loss):  # the first pass, at `theta` itself
            self.loss, self.size, self._grad, self._bend = loss, size, grad, bend
        elif self._is_enough(loss, grad, noise):
            move = self._step * self._direction
            self._pairs.add(move, grad - self._grad)
            self.theta = self.theta + move
            self.loss, self.size, self._grad, self._bend = loss, size, grad, bend
            self._step = 1.0
            self.iterations += 1
        else:
            # the parabola through loss, slope and the trial's loss, kept within [0.1, 0.5]
            rise = loss - self.loss - self._step * self._slope
            ratio = -self._slope * self._step / (2 * rise) if 0 < rise < np.inf else 0.1
            self._step *= min(max(ratio, 0.1), 0.5)
            return
        self._aim()

    def _watch(self, loss: float, size: float, noise: float) -> None:
        fell = loss < self._least_loss - noise * abs(loss)
        self.idle = 0 if fell or size < _PROGRESS * self._least_size else self.idle + 1
        self._least_loss = min(self._least_loss, loss)
        self._least_size = min(self._least_size, size)

    def _is_enough(self, loss: float, grad: torch.Tensor, noise: float) -> bool:
        if loss <= self.loss + _ARMIJO * self._step * self._slope:
            return True
        is_equal = loss <= self.loss + noise * abs(self.loss)
        return is_equal and abs(float((grad * self._direction).sum())) <= _FLATTER * -self._slope

    def _aim(self) -> None:
        """Set the direction -H∇ by the two-loop recursion."""
        self._direction = -self._inverse_hessian(self._grad)
        self._slope = float((self._grad * self._direction).sum())
        if self._slope >= 0:  # rounding spoilt the pairs
            self._pairs.clear()
            self._direction = -self._precondition(self._grad, self._bend, self.penalty)
            self._slope = float((self._grad * self._direction).sum())

    def _inverse_hessian(self, grad: torch.Tensor) -> torch.Tensor:
        pairs, rest, taken = list(self._pairs), grad, []
        for move, turn, along in reversed(pairs):
            taken.append(float((move * rest).sum()) / along)
            rest = rest - taken[-1] * turn
        found = self._precondition(rest, self._bend, self.penalty)
        if pairs:
            _, turn, along = pairs[-1]
            found *= along / float(
                (turn * self._precondition(turn, self._bend, self.penalty)).sum()
            )
        for (move, turn, along), share in zip(pairs, reversed(taken), strict=True):
            found += (share - float((turn * found).sum()) / along) * move
        return found


class _Pairs:
    """The last pairs of steps and what they changed in the gradient, in one block.

    Single tensors that outlive many others would tear holes into the heap.
    """

    def __init__(self, like: torch.Tensor, most: int) -> None:
        """Make room for `most` pairs of the shape and dtype of `like`."""
        self._room = like.new_empty((most, 2, *like.shape))
        self._along: deque[float] = deque(maxlen=most)
        self._added = 0

    def add(self, move: torch.Tensor, turn: torch.Tensor) -> None:
        """Keep a pair, unless rounding hides that the loss is convex: s·y > 0."""
        along = float((move * turn).sum())
        if along > 0:
            place = self._room[self._added % len(self._room)]
            place[0], place[1] = move, turn
            self._along.append(along)
            self._added += 1

    def promote(self, dtype: torch.dtype) -> None:
        """Go on in a wider number format with the same pairs: they know the curvature still."""
        self._room = self._room.to(dtype)

    def clear(self) -> None:
        """Forget all pairs."""
        self._along.clear()

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, float]]:
        """Yield (s, y, s·y), the oldest first."""
        first = self._added - len(self._along)
        for offset, along in enumerate(self._along):
            move, turn = self._room[(first + offset) % len(self._room)]
            yield move, turn, along
