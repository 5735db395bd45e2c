"""What the head says of the ID train rows, summed up class by class in one walk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from featcache.probes.ood.weibull import Weibull, fit_weibull

if TYPE_CHECKING:
    import torch

    from featcache.probes.ood.shared import IdStatistics


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadPatterns:
    """Per-class patterns of C head classes; K of them may have no row."""

    energies: torch.Tensor
    """Shape (N,), logsumexp of the logits of each train row."""
    predicted: torch.Tensor
    """Shape (N,), columns."""
    mean_shares: torch.Tensor
    """Shape (C, C), mean softmax of the rows predicted as each class; one-hot without any."""
    mean_largest: float
    """Mean of the largest logit."""
    mean_inputs: torch.Tensor
    """Shape (C, D), mean input of the rows of each class that are predicted right."""
    mean_logits: torch.Tensor
    """Shape (C, C), mean logits of the same rows."""
    is_seen: torch.Tensor
    """Shape (C,), whether there were such rows."""
    lowest: float
    """Smallest activation of the head's input."""


def head_patterns(shared: IdStatistics) -> HeadPatterns:
    """Walk the train rows once.

    A row is predicted right if the head's column stands for its label; where the head's columns are
    other classes than the dataset's, every row counts for the one it is predicted as.
    """
    torch = shared.torch
    n_classes = len(shared.bias)
    like = {"dtype": torch.float64, "device": shared.device}
    energies = torch.empty(shared.n_rows, **like)
    predicted = torch.empty(shared.n_rows, dtype=torch.int64, device=shared.device)
    shares, logit_sums = (
        torch.zeros(n_classes, n_classes, **like),
        torch.zeros(n_classes, n_classes, **like),
    )
    inputs = torch.zeros(n_classes, shared.dim, **like)
    counts, rights = torch.zeros(n_classes, **like), torch.zeros(n_classes, **like)
    largest, lowest = 0.0, float("inf")
    truth = shared.columns
    for rows, values in shared.blocks(40 * n_classes):
        read = shared.head_input(values)
        logits = shared.logits(read)
        energies[rows] = logits.logsumexp(dim=1)
        top, found = logits.max(dim=1)
        predicted[rows], largest = found, largest + float(top.sum())
        lowest = min(lowest, float(read.min()))
        shares.index_add_(0, found, torch.softmax(logits, dim=1))
        counts += torch.bincount(found, minlength=n_classes)
        right = found if truth is None else found[found == truth[rows]]
        kept = slice(None) if truth is None else found == truth[rows]
        inputs.index_add_(0, right, read[kept])
        logit_sums.index_add_(0, right, logits[kept])
        rights += torch.bincount(right, minlength=n_classes)
    one_hot = torch.eye(n_classes, **like)
    mean_shares = torch.where(counts[:, None] > 0, shares / counts[:, None].clamp_min(1), one_hot)
    return HeadPatterns(
        energies=energies,
        predicted=predicted,
        mean_shares=mean_shares,
        mean_largest=largest / shared.n_rows,
        mean_inputs=inputs / rights[:, None].clamp_min(1),
        mean_logits=logit_sums / rights[:, None].clamp_min(1),
        is_seen=rights > 0,
        lowest=lowest,
    )


def class_tails(shared: IdStatistics, tail: int) -> Weibull:
    """Fit each class's largest distances to its mean logits, of the rows predicted right."""
    torch, patterns = shared.torch, shared.patterns
    truth = shared.columns
    n_classes = len(shared.bias)
    largest = torch.full((n_classes, tail), -torch.inf, dtype=torch.float64, device=shared.device)
    for rows, values in shared.blocks(40 * n_classes):
        logits = shared.logits(shared.head_input(values))
        found = patterns.predicted[rows]
        apart = (logits - patterns.mean_logits[found]).norm(dim=1)
        kept = torch.ones_like(found, dtype=torch.bool)
        if truth is not None:
            kept = found == truth[rows]
        for column in np.unique(found[kept].cpu().numpy()).tolist():
            own = apart[kept & (found == column)]
            joined = torch.cat([largest[column], own])
            largest[column] = joined.topk(tail).values
    return fit_weibull(largest.cpu().numpy())
