"""Many linear heads side by side: what they read, their gradient, and what they predict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ShapeError
from featcache.probes.arrays import row_blocks
from featcache.probes.gradient.optimisers import make_optimiser
from featcache.probes.gradient.options import GradientOptions, HeadInput, Start

if TYPE_CHECKING:
    import torch

_N_PARTS = 5  # of the tap `cls4_mean`: four class tokens, oldest first, and the mean patch token
_PARTS: dict[HeadInput, tuple[int, int]] = {
    "cls1": (3, 4),
    "cls1+mean": (3, 5),
    "cls4": (0, 4),
    "cls4+mean": (0, 5),
}
_DEVIATION = 0.01  # of the starting weights: dinov2 eval/linear.py, mae main_linprobe.py
_BLOCK_BYTES = 1 << 28  # 256 MiB of logits at a time, in training


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What one head of many reads, and how it is trained."""

    input: HeadInput
    learning_rate: float
    """As in the options; `GradientOptions.rate_factor` multiplies it."""
    weight_decay: float


def columns_of(name: HeadInput, dim: int) -> slice:
    """Return the columns that a head's input takes of features of `dim` dimensions.

    Raises:
        ShapeError: If a part of `cls4_mean` is asked for, and `dim` is no multiple of five.
    """
    if name == "all":
        return slice(0, dim)
    if dim % _N_PARTS:
        raise ShapeError(
            f"Features of tap `cls4_mean` must have a multiple of {_N_PARTS} dimensions; got "
            f"{dim}. Extract with --tap cls4_mean, or use the input 'all'."
        )
    first, last = _PARTS[name]
    return slice(first * dim // _N_PARTS, last * dim // _N_PARTS)


class HeadGroup:
    """Heads that read the same columns: one matrix product serves them all."""

    def __init__(
        self,
        heads: Sequence[Head],
        dim: int,
        n_classes: int,
        options: GradientOptions,
        seed: int,
        device: str,
    ) -> None:
        """Start the heads, all at the same weights; `heads` share one input, `dim` is its width."""
        import torch

        self._torch, self.heads, self._n_classes = torch, list(heads), n_classes
        start = _start(dim, n_classes, options.start, seed)
        self.parameters = start.repeat(1, len(heads)).to(device)
        """Shape (D + 1, H·C); the last row is the bias."""
        self._grad = torch.empty_like(self.parameters)
        self._optimiser = make_optimiser(
            self.parameters,
            [options.rate_factor * head.learning_rate for head in heads],
            [head.weight_decay for head in heads],
            options,
        )

    def step(self, rows: torch.Tensor, codes: torch.Tensor, factor: float) -> torch.Tensor:
        """Move all heads along the mean gradient of a batch.

        Args:
            rows: Shape (B, D), float32.
            codes: Shape (B,), classes from 0.
            factor: Multiplies every learning rate.

        Returns:
            The mean cross-entropy of each head before the step, shape (H,).
        """
        losses = self.parameters.new_zeros(len(self.heads))
        for part in row_blocks(len(rows), 16 * self.parameters.shape[1], _BLOCK_BYTES):
            losses += self._add_gradient(rows[part], codes[part], len(rows), part.start == 0)
        self._optimiser.step(self._grad, factor)
        return losses

    def _add_gradient(
        self, rows: torch.Tensor, codes: torch.Tensor, n_rows: int, is_first: bool
    ) -> torch.Tensor:
        logits = self._logits(rows)
        target = codes[:, None, None].expand(-1, logits.shape[1], 1)  # (B, H, 1)
        log_probs = self._torch.log_softmax(logits, dim=2)
        losses = log_probs.gather(2, target).sum(dim=(0, 2)) / -n_rows
        slope = log_probs.exp_()
        slope.scatter_add_(2, target, slope.new_full((1, 1, 1), -1).expand_as(target))
        slope = slope.flatten(1).div_(n_rows)  # (B, H·C)
        beta = 0 if is_first else 1
        self._grad[:-1].addmm_(rows.T, slope, beta=beta)  # with beta 0 nothing old is read
        if is_first:
            self._torch.sum(slope, dim=0, out=self._grad[-1])
        else:
            self._grad[-1] += slope.sum(dim=0)
        return losses

    def hits(self, rows: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Count the rows that each head predicts right, shape (H,); a code of -1 never is."""
        return (self._logits(rows).argmax(dim=2) == codes[:, None]).sum(dim=0)

    def is_finite(self) -> NDArray[np.bool_]:
        """Tell of each head whether all its parameters are finite, shape (H,)."""
        finite = self._torch.isfinite(self.parameters).all(dim=0)
        found: NDArray[np.bool_] = finite.view(-1, self._n_classes).all(dim=1).cpu().numpy()
        return found

    def head(self, number: int) -> NDArray[np.float64]:
        """Return weights and bias of one head, shape (D + 1, C)."""
        columns = slice(number * self._n_classes, (number + 1) * self._n_classes)
        found: NDArray[np.float64] = self.parameters[:, columns].double().cpu().numpy()
        return found

    def _logits(self, rows: torch.Tensor) -> torch.Tensor:
        flat = self._torch.addmm(self.parameters[-1], rows, self.parameters[:-1])
        return flat.view(len(rows), len(self.heads), self._n_classes)


def _start(dim: int, n_classes: int, kind: Start, seed: int) -> torch.Tensor:
    """Draw the parameters of one head, shape (D + 1, C), on the CPU whatever the device."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    if kind == "uniform":
        bound = dim**-0.5
        return torch.empty(dim + 1, n_classes).uniform_(-bound, bound, generator=generator)
    weights = torch.empty(dim, n_classes).normal_(0, _DEVIATION, generator=generator)
    return torch.cat([weights, torch.zeros(1, n_classes)])
