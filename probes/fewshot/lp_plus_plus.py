"""LP++: a linear probe that blends in a text classifier, class by class.

logits_c = x·w_c + b_c + α_c (x·t_c). Gradient descent with momentum takes steps of the size that
the curvature of each block allows, so there is no learning rate to search.

Three things are our choice. Biases start at zero (the authors' code: at random). A step of the
blend takes the gradient of that step alone (there: the sum of all gradients so far). The earliest
of equally good epochs is kept, and the start is one of them (there: the latest, never the start).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

_START = 250.0  # of the blend, times the mean over classes of the shots' cosine to their text


@dataclass(frozen=True, slots=True, kw_only=True)
class LpPlusPlus:
    """A fitted blend."""

    weights: NDArray[np.float64]
    """Shape (D, C); the text classifier times its blend is folded in."""
    bias: NDArray[np.float64]
    """Shape (C,)."""
    blend: NDArray[np.float64]
    """Shape (C,), α."""
    epoch: int
    """At which held-out accuracy was best; 0 is the start."""
    held_out: float
    """That accuracy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Iterate:
    """Where the descent is after some epochs."""

    weights: torch.Tensor
    """Shape (D, C), without the text classifier."""
    bias: torch.Tensor
    """Shape (C,)."""
    blend: torch.Tensor
    """Shape (C,)."""


def descend(
    rows: torch.Tensor,
    labels: torch.Tensor,
    text: torch.Tensor,
    *,
    epochs: int,
    alpha_every: int,
    momentum: float,
) -> Iterator[Iterate]:
    """Yield the start and the iterate after each epoch, a step on all shots: `epochs` + 1 in all.

    Weights start at the sums of each class's shots, biases at zero, the blend of every class at 250
    times the mean over classes of the mean cosine of a shot to its own class's text. The step of
    weights and biases is 4 N / λ, λ the largest eigenvalue of XᵀX; that of the blend is
    N / (4 max_c ‖X t_c‖²), without momentum, every `alpha_every` epochs.

    Args:
        rows: Shots, unit rows, shape (N, D).
        labels: Shape (N,), columns of `text`; classes may be missing.
        text: Unit class vectors, shape (D, C).
        epochs: Steps.
        alpha_every: Epochs between two steps of the blend.
        momentum: Of the steps of weights and biases.
    """
    import torch

    own = torch.nn.functional.one_hot(labels, text.shape[1]).to(rows.dtype)  # (N, C)
    by_text, counts = rows @ text, own.sum(dim=0)
    cosines = (by_text * own).sum(dim=0)[counts > 0] / counts[counts > 0]
    weights, bias = rows.T @ own, rows.new_zeros(text.shape[1])
    blend = torch.full_like(bias, _START * float(cosines.mean()))
    step_w = 4 * len(rows) / float(torch.linalg.matrix_norm(rows, 2) ** 2)
    step_a = len(rows) / (4 * float(by_text.square().sum(dim=0).max()))
    pace_w, pace_b = torch.zeros_like(weights), torch.zeros_like(bias)
    yield Iterate(weights=weights, bias=bias, blend=blend)
    for epoch in range(1, epochs + 1):
        residual = torch.softmax(rows @ weights + bias + blend * by_text, dim=1) - own
        pace_w = momentum * pace_w + rows.T @ residual / len(rows)
        pace_b = momentum * pace_b + residual.mean(dim=0)
        weights, bias = weights - step_w * pace_w, bias - step_w * pace_b
        if epoch % alpha_every == 0:
            blend = blend - step_a * (residual * by_text).mean(dim=0)
        yield Iterate(weights=weights, bias=bias, blend=blend)


def fit_lp_plus_plus(
    rows: NDArray[np.float64],
    labels: NDArray[np.int64],
    text: NDArray[np.float64],
    held: tuple[NDArray[np.float64], NDArray[np.int64]],
    *,
    epochs: int,
    alpha_every: int,
    momentum: float,
    device: str = "cpu",
) -> LpPlusPlus:
    """Fit class weights, biases and the blend with text by `descend`, with the same arguments.

    The epoch of the best held-out accuracy is kept, the earliest on a tie; 0 is the start.

    Args:
        rows: Shots, unit rows, shape (N, D).
        labels: Shape (N,), columns of `text`.
        text: Unit class vectors, shape (D, C).
        held: Unit rows (H, D), H >= 1, and their labels, on which the epoch is chosen.
        epochs: Steps.
        alpha_every: Epochs between two steps of the blend.
        momentum: Of the steps of weights and biases.
        device: Torch device.

    Source: Huang et al. 2024, arXiv:2404.02285, and its code for the start and the bias.
    """
    import torch

    shots, heading = torch.as_tensor(rows, device=device), torch.as_tensor(text, device=device)
    others, theirs = (torch.as_tensor(part, device=device) for part in held)
    held_text = others @ heading
    path = descend(
        shots,
        torch.as_tensor(labels, device=device),
        heading,
        epochs=epochs,
        alpha_every=alpha_every,
        momentum=momentum,
    )

    def share_right(one: Iterate) -> float:
        logits = others @ one.weights + one.bias + one.blend * held_text
        return float((logits.argmax(dim=1) == theirs).double().mean())

    epoch, kept = max(enumerate(path), key=lambda pair: share_right(pair[1]))  # the first on a tie
    return LpPlusPlus(
        weights=(kept.weights + kept.blend * heading).cpu().numpy(),
        bias=kept.bias.cpu().numpy(),
        blend=kept.blend.cpu().numpy(),
        epoch=epoch,
        held_out=share_right(kept),
    )
