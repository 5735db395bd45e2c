"""LP++: a linear probe that blends in a text classifier, class by class.

logits_c = x·w_c + α_c (x·t_c). Gradient descent with momentum takes steps of the size that the
curvature of each block allows, so there is no learning rate to search.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_START = 250.0  # of the blend, times the mean cosine of a shot to its own class's text


@dataclass(frozen=True, slots=True, kw_only=True)
class LpPlusPlus:
    """A fitted blend."""

    weights: NDArray[np.float64]
    """Shape (D, C); the text classifier times its blend is folded in."""
    blend: NDArray[np.float64]
    """Shape (C,), α."""
    epoch: int
    """At which held-out accuracy was best; 0 is the start."""
    held_out: float
    """That accuracy."""


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
    """Fit class weights and the blend with text by full-batch gradient descent.

    Weights start at the sums of each class's shots. Their step is 4 N / λ, λ the largest eigenvalue
    of XᵀX; that of the blend is N / (4 max_c ‖X t_c‖²), taken every `alpha_every` steps. The
    epoch of the best held-out accuracy is kept, the earliest on a tie.

    Args:
        rows: Shots, unit rows, shape (N, D).
        labels: Shape (N,), columns of `text`.
        text: Unit class vectors, shape (D, C).
        held: Unit rows (H, D), H >= 1, and their labels, on which the epoch is chosen.
        epochs: Steps.
        alpha_every: Steps between two of the blend.
        momentum: Of the weights' steps.
        device: Torch device.

    Source: Huang et al. 2024, arXiv:2404.02285.
    """
    import torch

    x, truth = torch.as_tensor(rows, device=device), torch.as_tensor(labels, device=device)
    heading = torch.as_tensor(text, device=device)  # (D, C)
    own = torch.nn.functional.one_hot(truth, heading.shape[1]).to(x.dtype)  # (N, C)
    others, theirs = (torch.as_tensor(part, device=device) for part in held)
    by_text, held_text = x @ heading, others @ heading
    weights = x.T @ own
    blend = x.new_full((heading.shape[1],), _START * float((by_text * own).sum() / len(x)))
    step_w = 4 * len(x) / float(torch.linalg.matrix_norm(x, 2) ** 2)
    step_a = len(x) / (4 * float(by_text.square().sum(dim=0).max()))
    pace = torch.zeros_like(weights)
    best, kept = (-1.0, 0), (weights, blend)
    for epoch in range(epochs + 1):
        right = float(((others @ weights + blend * held_text).argmax(1) == theirs).double().mean())
        if right > best[0]:
            best, kept = (right, epoch), (weights.clone(), blend.clone())
        residual = torch.softmax(x @ weights + blend * by_text, dim=1) - own
        pace = momentum * pace + x.T @ residual / len(x)
        weights = weights - step_w * pace
        if epoch % alpha_every == alpha_every - 1:
            blend = blend - step_a * (residual * by_text).mean(dim=0)
    return LpPlusPlus(
        weights=(kept[0] + kept[1] * heading).cpu().numpy(),
        blend=kept[1].cpu().numpy(),
        epoch=best[1],
        held_out=best[0],
    )
