"""What the head says of the ID train rows, summed up class by class in one walk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featcache.probes.ood.weibull import fit_weibull

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


def class_tails(shared: IdStatistics, tail: int) -> torch.Tensor:
    """Fit each class's largest distances to its mean logits, of the rows predicted right.

    Returns:
        Shapes, scales and shifts of the Weibull distributions, shape (3, C).
    """
    torch, patterns = shared.torch, shared.patterns
    n_classes = len(shared.bias)
    apart = torch.empty(shared.n_rows, dtype=torch.float64, device=shared.device)
    for rows, values in shared.blocks(40 * n_classes):
        logits = shared.logits(shared.head_input(values))
        apart[rows] = (logits - patterns.mean_logits[patterns.predicted[rows]]).norm(dim=1)
    kept = slice(None) if shared.columns is None else patterns.predicted == shared.columns
    values, classes = apart[kept].cpu().numpy(), patterns.predicted[kept].cpu().numpy()
    found = fit_weibull(_largest(values, classes, n_classes, tail))
    parts = np.stack([found.shape, found.scale, found.shift])
    return shared.on_device(parts)


def _largest(
    values: NDArray[np.float64], classes: NDArray[np.int64], n_classes: int, count: int
) -> NDArray[np.float64]:
    """Return the largest values of each class, shape (C, count), -inf where there are fewer."""
    order = np.lexsort((-values, classes))
    starts = np.searchsorted(classes[order], np.arange(n_classes))
    rank = np.arange(len(order)) - starts[classes[order]]
    taken = rank < count
    found = np.full((n_classes, count), -np.inf)
    found[classes[order][taken], rank[taken]] = values[order][taken]
    return found
