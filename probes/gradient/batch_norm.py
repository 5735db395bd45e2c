"""Batch normalisation without a learnt scale, in front of heads that share their features."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_EPSILON = 1e-6  # mae main_linprobe.py
_SHARE = 0.1  # torch.nn.BatchNorm1d's momentum: what a batch adds to the running values


class BatchNorm:
    """The batch's own mean and deviation in training, running ones afterwards.

    Sums are in float64, so that neither large values nor a large mean lose digits. A batch of one
    row becomes zero, where torch would raise.

    Source: Ioffe & Szegedy 2015, arXiv:1502.03167; checked against `torch.nn.BatchNorm1d`.
    """

    def __init__(self, dim: int, device: str) -> None:
        """Start with running means 0 and variances 1."""
        import torch

        self._torch = torch
        self.mean = torch.zeros(dim, dtype=torch.float64, device=device)
        """Shape (D,), the running one."""
        self.variance = torch.ones(dim, dtype=torch.float64, device=device)
        """Shape (D,), the running one; of a batch the unbiased variance goes in."""

    @property
    def scale(self) -> torch.Tensor:
        """What a feature is divided by after training, shape (D,)."""
        return (self.variance + _EPSILON).sqrt()

    def learn(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the batch (B, D) normalised by its own moments, and note them."""
        variance, mean = self._torch.var_mean(batch.double(), dim=0, correction=0)
        n = len(batch)
        self.mean.lerp_(mean, _SHARE)
        self.variance.lerp_(variance * (n / max(n - 1, 1)), _SHARE)
        return ((batch - mean) / (variance + _EPSILON).sqrt()).float()

    def apply(self, rows: torch.Tensor) -> torch.Tensor:
        """Return rows (B, D) normalised by the running moments."""
        return ((rows - self.mean) / self.scale).float()
