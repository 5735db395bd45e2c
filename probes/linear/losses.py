"""The two losses of a linear classifier: softmax cross-entropy, and one logistic loss per class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch


class Loss(Protocol):
    """What the solver asks of a loss."""

    n_columns: int
    """C, the logits of a row."""
    penalty: float
    """Multiplies the solver's penalty on ‖W‖²."""

    def start(self) -> NDArray[np.float64]:
        """Return the biases that are best without weights, shape (C,)."""

    def evaluate(
        self, rows: slice, logits: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return loss sums, residuals and curvature sums of a block of rows.

        Args:
            rows: Which rows.
            logits: Shape (B, A, C) of A problems; overwritten.

        Returns:
            Loss summed over the rows, shape (A,), float64; its derivative by the logits, shape
            (B, A, C); the diagonal of its second derivative, summed over the rows, shape (A, C).
        """


class CrossEntropy:
    """Softmax cross-entropy of one class per row."""

    def __init__(
        self,
        codes: NDArray[np.intp],
        n_classes: int,
        device: str,
        row_weights: NDArray[np.float64] | None = None,
        *,
        penalty: float = 1.0,
    ) -> None:
        """Take the rows' classes, shape (N,), in 0 .. C - 1, each of which occurs."""
        import torch

        self.penalty = penalty
        self._torch, self.n_columns = torch, n_classes
        self._codes = torch.as_tensor(codes, device=device)
        self._weights = None if row_weights is None else torch.as_tensor(row_weights, device=device)
        counts = np.bincount(codes, weights=row_weights, minlength=n_classes)
        self._log_prior = np.log(counts / counts.sum())

    def start(self) -> NDArray[np.float64]:
        """Return the log priors, centred."""
        return np.asarray(self._log_prior - self._log_prior.mean())

    def evaluate(
        self, rows: slice, logits: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """See `Loss.evaluate`."""
        torch = self._torch
        target = self._codes[rows, None, None].expand(-1, logits.shape[1], 1)
        log_probs = torch.log_softmax(logits, dim=2)
        losses = -log_probs.gather(2, target).squeeze(2)  # (B, A)
        probs = torch.exp(log_probs, out=log_probs)
        if self._weights is None:
            bend = probs.sum(dim=0) - torch.linalg.vector_norm(probs, dim=0).square()
            probs.scatter_add_(2, target, probs.new_full((1, 1, 1), -1).expand_as(target))
            return losses.sum(dim=0, dtype=torch.float64), probs, bend
        weights = self._weights[rows]
        scaled = weights.to(probs.dtype)[:, None, None]
        bend = ((probs - probs.square()) * scaled).sum(dim=0)
        probs.scatter_add_(2, target, probs.new_full((1, 1, 1), -1).expand_as(target))
        return (losses * weights[:, None]).sum(dim=0, dtype=torch.float64), probs * scaled, bend


class OneVsRest:
    """One logistic loss per class, summed: a row may have several classes, or none."""

    penalty = 1.0

    def __init__(self, targets: NDArray[np.bool_], device: str) -> None:
        """Take the rows' classes, shape (N, C); each column has rows of both kinds."""
        import torch

        self._torch, self.n_columns = torch, targets.shape[1]
        self._targets = torch.as_tensor(targets, device=device)
        share = targets.mean(axis=0)
        self._log_odds = np.log(share / (1 - share))

    def start(self) -> NDArray[np.float64]:
        """Return the log odds of each class."""
        return np.asarray(self._log_odds)

    def evaluate(
        self, rows: slice, logits: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """See `Loss.evaluate`."""
        torch = self._torch
        target = self._targets[rows, None].to(logits.dtype)  # (B, 1, C)
        losses = torch.nn.functional.softplus(logits) - target * logits
        probs = torch.sigmoid(logits)
        bend = (probs - probs.square()).sum(dim=0)
        return losses.sum(dim=(0, 2), dtype=torch.float64), probs - target, bend
