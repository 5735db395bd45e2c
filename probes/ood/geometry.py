"""Detectors that read where a row lies: distances, subspaces, directions, neighbours."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from featcache.probes.ood.block import Block

_LEAST = 1e-12  # of a norm that is divided by


def mahalanobis(block: Block) -> torch.Tensor:
    """Minus the squared distance to the nearest class mean under one covariance."""
    return -block.class_distances


def relative_mahalanobis(block: Block) -> torch.Tensor:
    """`mahalanobis`, plus the squared distance under one Gaussian of all train rows."""
    return block.total_distance - block.class_distances


def gaussian(block: Block) -> torch.Tensor:
    """Minus the squared distance under one Gaussian of all train rows: no label is used."""
    return -block.total_distance


def knn(block: Block) -> torch.Tensor:
    """Minus the squared distance to the k-th nearest train row, unit rows."""
    return 2 * _some(block.neighbours.kth) - 2


def nnguide(block: Block) -> torch.Tensor:
    """Energy, times the mean of the k largest cosines weighed by the train rows' energies."""
    return block.energy * _some(block.neighbours.guidance)


def relation(block: Block) -> torch.Tensor:
    """Σ over train rows of cosine times softmax agreement, where it exceeds a threshold."""
    return _some(block.neighbours.relation)


def residual(block: Block) -> torch.Tensor:
    """Minus the norm outside the principal space of the train rows about the head's origin."""
    return -block.residual


def vim(block: Block) -> torch.Tensor:
    """Energy less the residual, scaled so that on train both are as large."""
    shared = block.shared

    def compute() -> torch.Tensor:
        total = shared.mean.new_tensor(0.0)
        minor = shared.axes[:, shared.subspace :]
        for _, rows in shared.blocks():
            total += ((shared.head_input(rows) - shared.origin) @ minor).norm(dim=1).sum()
        scale: torch.Tensor = shared.patterns.mean_largest * shared.n_rows / total.clamp_min(_LEAST)
        return scale

    return block.energy - shared.kept.tensor(f"vim {shared.subspace}", compute) * block.residual


def neco(block: Block) -> torch.Tensor:
    """Share of a standardised row's norm that lies in the first principal axes."""
    shared = block.shared
    deviation, axes = shared.correlation_axes
    rows = (block.rows - shared.mean) / deviation
    count = min(shared.options.neco_dims, max(1, shared.dim // 2))
    inside: torch.Tensor = (rows @ axes[:, :count]).norm(dim=1) / rows.norm(dim=1).clamp_min(_LEAST)
    return inside


def pnml(block: Block) -> torch.Tensor:
    """Minus the log regret of predictive normalised maximum likelihood, over log C."""
    shares = block.shares.clamp(1e-12, 1 - 1e-12)
    logs = block.log_shares.clamp(math.log(1e-12), math.log1p(-1e-12))
    spread = ((block.unit @ block.shared.unit_precision) * block.unit).sum(dim=1).clamp_min(0)
    power = (spread / (1 + spread))[:, None]
    terms = shares / (shares + (1 - shares) * (logs * power).exp())
    count = shares.new_tensor(float(max(2, shares.shape[1])))
    return -terms.sum(dim=1).log() / count.log()


def she(block: Block) -> torch.Tensor:
    """Inner product with the mean input of the train rows of the predicted class."""
    patterns = block.shared.patterns.mean_inputs[block.top[1]]
    return (block.inputs * patterns).sum(dim=1)


def gradnorm(block: Block) -> torch.Tensor:
    """L1 norm of the gradient of Σ_c -log p_c by the weights: ‖z‖₁ · ‖C p - 1‖₁."""
    count = block.shares.shape[1]
    return block.inputs.abs().sum(dim=1) * (count * block.shares - 1).abs().sum(dim=1)


def fdbd(block: Block) -> torch.Tensor:
    """Mean distance to the decision boundaries, over the distance to the train mean."""
    shared = block.shared
    largest, column = block.top
    gaps = largest[:, None] - block.logits

    def compute() -> torch.Tensor:
        apart: torch.Tensor = shared.torch.cdist(shared.weights.T, shared.weights.T)
        return apart

    norms = shared.once("weight distances", compute)[column]
    others: torch.Tensor = (gaps / norms.clamp_min(_LEAST)).masked_fill(norms == 0, 0).sum(dim=1)
    apart: torch.Tensor = (block.inputs - shared.mean_input).norm(dim=1).clamp_min(_LEAST)
    return others / (apart * max(1, block.logits.shape[1] - 1))


def nci(block: Block) -> torch.Tensor:
    """Length along the predicted class's weights from the train mean, plus α ‖z‖₁."""
    shared = block.shared
    apart = block.inputs - shared.mean_input
    along: torch.Tensor = (apart * shared.weights.T[block.top[1]]).sum(dim=1)
    along = along / apart.norm(dim=1).clamp_min(_LEAST)
    return along + shared.options.nci_alpha * block.inputs.abs().sum(dim=1)


def _some(value: torch.Tensor | None) -> torch.Tensor:
    assert value is not None
    return value
