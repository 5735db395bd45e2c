"""SGD, LARS and AdamW on many heads that lie side by side in one matrix.

A matrix of parameters has shape (D + 1, H·C): column h·C + c is class c of head h, the last row is
the bias. Each head has its own learning rate and weight decay; no step of one head depends on
another head, so that training them together changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from featcache.probes.gradient.options import GradientOptions, Optimiser

if TYPE_CHECKING:
    import torch

_SECOND_BETA = 0.999  # torch.optim.AdamW's default, as in CLIP_benchmark linear_probe.py
_EPSILON = 1e-8  # the same


class JointOptimiser(Protocol):
    """Something that moves all heads by one step."""

    def step(self, grad: torch.Tensor, factor: float) -> None:
        """Move the parameters by `grad` (spoilt), at `factor` times their learning rates."""


class JointSgd:
    """Momentum v ← m·v + g + λ·p, then p ← p - lr·v.

    Source: Sutskever et al. 2013; checked against `torch.optim.SGD`.
    """

    def __init__(
        self,
        parameters: torch.Tensor,
        rates: torch.Tensor,
        decays: torch.Tensor,
        options: GradientOptions,
    ) -> None:
        """Take the parameters (D + 1, H·C), changed in place, and one rate and decay per head."""
        import torch

        self._parameters, self._momentum = parameters, options.momentum
        self._n_classes = parameters.shape[1] // len(rates)
        self._rates = rates.repeat_interleave(self._n_classes)  # (H·C,)
        self._decays = decays.repeat_interleave(self._n_classes)
        self._decays_any = bool(decays.any())
        self._velocity = torch.zeros_like(parameters)

    def step(self, grad: torch.Tensor, factor: float) -> None:
        """See `JointOptimiser.step`."""
        if self._decays_any:
            grad.addcmul_(self._parameters, self._decays)
        self._move(grad, factor)

    def _move(self, grad: torch.Tensor, factor: float) -> None:
        self._velocity.mul_(self._momentum).add_(grad)
        self._parameters.addcmul_(self._velocity, self._rates, value=-factor)


class JointLars(JointSgd):
    """SGD whose gradient of the weights is first scaled to η‖p‖ / ‖g + λ·p‖ times itself.

    The bias is neither scaled nor decayed. Where a norm is zero nothing is scaled.

    Source: You et al. 2017, arXiv:1708.03888, in the form of mae `util/lars.py`.
    """

    def __init__(
        self,
        parameters: torch.Tensor,
        rates: torch.Tensor,
        decays: torch.Tensor,
        options: GradientOptions,
    ) -> None:
        """Take the parameters as `JointSgd` does."""
        super().__init__(parameters, rates, decays, options)
        self._trust = options.trust_coefficient

    def step(self, grad: torch.Tensor, factor: float) -> None:
        """See `JointOptimiser.step`."""
        weights, slope = self._parameters[:-1], grad[:-1]
        if self._decays_any:
            slope.addcmul_(weights, self._decays)
        size, steepness = self._norms(weights), self._norms(slope)
        ratio = self._trust * size / steepness
        ratio[(size == 0) | (steepness == 0)] = 1
        slope *= ratio.repeat_interleave(self._n_classes)
        self._move(grad, factor)

    def _norms(self, matrix: torch.Tensor) -> torch.Tensor:
        import torch

        heads = matrix.view(len(matrix), -1, self._n_classes)  # (D, H, C)
        norms: torch.Tensor = torch.linalg.vector_norm(heads, dim=(0, 2), dtype=torch.float64)
        return norms.float()


class JointAdamW:
    """Adam on the gradient, and p ← (1 - lr·λ)·p apart from it, on weights and bias alike.

    Source: Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2 with λ multiplied by the
    learning rate; checked against `torch.optim.AdamW`.
    """

    def __init__(
        self,
        parameters: torch.Tensor,
        rates: torch.Tensor,
        decays: torch.Tensor,
        options: GradientOptions,
    ) -> None:
        """Take the parameters as `JointSgd` does; `momentum` is the first beta."""
        import torch

        n_classes = parameters.shape[1] // len(rates)
        self._parameters, self._beta, self._steps = parameters, options.momentum, 0
        self._rates = rates.repeat_interleave(n_classes)  # (H·C,)
        self._shrink = (rates.double() * decays.double()).repeat_interleave(n_classes)
        self._mean, self._square = torch.zeros_like(parameters), torch.zeros_like(parameters)

    def step(self, grad: torch.Tensor, factor: float) -> None:
        """See `JointOptimiser.step`."""
        self._steps += 1
        self._parameters *= (1 - factor * self._shrink).to(grad.dtype)
        self._mean.lerp_(grad, 1 - self._beta)
        self._square.mul_(_SECOND_BETA).addcmul_(grad, grad, value=1 - _SECOND_BETA)
        spread = (self._square / (1 - _SECOND_BETA**self._steps)).sqrt_().add_(_EPSILON)
        move = self._mean / spread
        self._parameters.addcmul_(move, self._rates, value=-factor / (1 - self._beta**self._steps))


_Factory = Callable[
    ["torch.Tensor", "torch.Tensor", "torch.Tensor", GradientOptions], JointOptimiser
]
_KINDS: dict[Optimiser, _Factory] = {"sgd": JointSgd, "lars": JointLars, "adamw": JointAdamW}


def make_optimiser(
    parameters: torch.Tensor,
    rates: Sequence[float],
    decays: Sequence[float],
    options: GradientOptions,
) -> JointOptimiser:
    """Return the optimiser that `options` name.

    Args:
        parameters: Shape (D + 1, H·C), changed in place by each step.
        rates: The learning rate of each of the H heads, at its highest.
        decays: Their weight decays.
        options: Which optimiser, and its momentum and trust coefficient.
    """
    columns = parameters.new_tensor(rates), parameters.new_tensor(decays)
    return _KINDS[options.optimiser](parameters, *columns, options)
