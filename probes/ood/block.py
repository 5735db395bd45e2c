"""A block of rows to be scored: what several detectors read of it is computed once."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from featcache.probes.ood.neighbours import Neighbours, search_bank
from featcache.probes.ood.shared import unit

if TYPE_CHECKING:
    import torch

    from featcache.probes.ood.shared import IdStatistics


def how_many(inputs: torch.Tensor, percentile: float) -> int:
    """Return how many of D activations lie above a percentile, in 0 .. 100; at least one."""
    dim = inputs.shape[1]
    return max(1, dim - round(dim * percentile / 100))


class Block:
    """B rows, with the head's view of them."""

    def __init__(self, shared: IdStatistics, rows: torch.Tensor, wanted: frozenset[str]) -> None:
        """Take rows, shape (B, D), float64, and the names of the detectors that will read them."""
        self.shared, self.rows, self._wanted = shared, rows, wanted

    @cached_property
    def unit(self) -> torch.Tensor:
        """Rows of unit norm, shape (B, D)."""
        return unit(self.rows)

    @cached_property
    def inputs(self) -> torch.Tensor:
        """What the head reads, shape (B, D)."""
        return self.shared.head_input(self.rows)

    @cached_property
    def logits(self) -> torch.Tensor:
        """Shape (B, C)."""
        return self.shared.logits(self.inputs)

    @cached_property
    def top(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The largest logit of each row, shape (B,), and its column, shape (B,)."""
        values, columns = self.logits.max(dim=1)
        return values, columns

    @cached_property
    def energy(self) -> torch.Tensor:
        """Logsumexp of the logits, shape (B,)."""
        return self.logits.logsumexp(dim=1)

    @cached_property
    def log_shares(self) -> torch.Tensor:
        """Log-softmax of the logits, shape (B, C)."""
        return self.logits - self.energy[:, None]

    @cached_property
    def shares(self) -> torch.Tensor:
        """Softmax of the logits, shape (B, C)."""
        return self.log_shares.exp()

    @cached_property
    def pruned(self) -> tuple[torch.Tensor, int]:
        """Inputs with all but the largest set to 0, shape (B, D), and how many are left a row."""
        kept = how_many(self.inputs, self.shared.options.ash_percentile)
        values, places = self.inputs.topk(kept, dim=1, sorted=False)
        empty: torch.Tensor = self.shared.torch.zeros_like(self.inputs)
        return empty.scatter(1, places, values), kept

    @cached_property
    def pruned_product(self) -> torch.Tensor:
        """Logits of the pruned inputs less the bias, shape (B, C)."""
        return self.pruned[0] @ self.shared.weights

    @cached_property
    def neighbours(self) -> Neighbours:
        """What one search of the train rows gives all detectors that need it."""
        return search_bank(self, self._wanted)

    @cached_property
    def class_distances(self) -> torch.Tensor:
        """Smallest squared Mahalanobis distance to a class mean, shape (B,)."""
        shared = self.shared
        whitener, _ = shared.within_whitener
        mine = (self.rows - shared.mean) @ whitener
        means = (shared.class_means - shared.mean) @ whitener
        square = means.square().sum(dim=1) - 2 * mine @ means.T  # ‖a - b‖² = ‖a‖² + (‖b‖² - 2ab)
        return (mine.square().sum(dim=1) + square.min(dim=1).values).clamp_min(0)

    @cached_property
    def total_distance(self) -> torch.Tensor:
        """Squared Mahalanobis distance to the mean under the covariance of all rows, (B,)."""
        whitener, _ = self.shared.total_whitener
        found: torch.Tensor = ((self.rows - self.shared.mean) @ whitener).square().sum(dim=1)
        return found

    @cached_property
    def residual(self) -> torch.Tensor:
        """Norm outside the principal space about the head's origin, shape (B,)."""
        minor = self.shared.axes[:, self.shared.subspace :]
        found: torch.Tensor = ((self.inputs - self.shared.origin) @ minor).norm(dim=1)
        return found
