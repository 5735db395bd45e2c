"""What detectors share: statistics of the ID train rows, each computed once and only if read.

Labels of train rows count where a definition needs them (class means, covariances); logit patterns
go by the class that the head predicts, so a head of other classes than the dataset's will do.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featcache.probes.arrays import Features, row_blocks, to_float64
from featcache.probes.closed_form.moments import Moments, class_moments
from featcache.probes.linear.head import LinearHead
from featcache.probes.ood.options import OodOptions
from featcache.probes.ood.patterns import HeadPatterns, head_patterns

if TYPE_CHECKING:
    import torch

_BLOCK_BYTES = 1 << 26
_RANK = 1e-6  # singular values below this share of the largest are noise
_SHARES_BYTES = 1 << 28  # of the train rows' softmax that are kept; else computed again
_PERCENTILE_VALUES = 1 << 23  # activations that are sorted; of more, evenly spread rows


def unit(rows: torch.Tensor) -> torch.Tensor:
    """Scale rows, shape (B, D), to unit norm; zero rows stay zero."""
    norms = rows.norm(dim=1, keepdim=True)
    found: torch.Tensor = rows / norms.masked_fill(norms == 0, 1.0)
    return found


class IdStatistics:
    """Statistics of the ID train rows, in float64 unless said otherwise."""

    def __init__(
        self,
        features: Features,
        labels: NDArray[np.int64],
        head: LinearHead | None,
        options: OodOptions,
        *,
        temperature: float = 1.0,
        text: NDArray[np.float64] | None = None,
        columns: NDArray[np.int64] | None = None,
        moments: Moments | None = None,
        device: str = "cpu",
    ) -> None:
        """Take the train rows, shape (N, D), finite, and the head, if a detector needs one.

        Args:
            features: Shape (N, D).
            labels: Shape (N,).
            head: A classifier on D dimensions.
            options: Hyper-parameters.
            temperature: Of the head, fitted on rows it had not seen; for `temperature`.
            text: Unit class vectors, shape (D, C), for `mcm`.
            columns: The head's column of each row's label, shape (N,), if it has one.
            moments: Of the rows, if they are known already.
            device: Torch device.
        """
        import torch

        self.torch, self.features, self.labels = torch, features, labels
        self.options, self.device, self.head = options, device, head
        self.temperature, self.text = temperature, None
        self.n_rows, self.dim = features.shape
        self._moments = moments
        self.memo: dict[str, Any] = {}
        """What single detectors keep between blocks."""
        if head is not None:
            self.weights = torch.as_tensor(head.weights, device=device)  # (D, C)
            self.bias = torch.as_tensor(head.bias, device=device)  # (C,)
        self.columns = None if columns is None else torch.as_tensor(columns, device=device)
        if text is not None:
            self.text = torch.as_tensor(text, device=device)

    def blocks(self, row_bytes: int = 0) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield (rows, values (B, D)) that cover the train rows."""
        for rows in row_blocks(self.n_rows, max(row_bytes, 24 * self.dim), _BLOCK_BYTES):
            yield rows, self.tensor(self.features[rows])

    def tensor(self, features: Features) -> torch.Tensor:
        """Return rows on the device, shape (B, D), float64."""
        return self.torch.as_tensor(to_float64("features", features), device=self.device)

    def head_input(self, rows: torch.Tensor) -> torch.Tensor:
        """Return what the head reads of rows."""
        if self.head is not None and self.head.is_unit_norm:
            return unit(rows)
        return rows

    def logits(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the head's logits, shape (B, C), of what it reads."""
        found: torch.Tensor = self.torch.addmm(self.bias, inputs, self.weights)
        return found

    @cached_property
    def moments(self) -> Moments:
        """Class means and scatters."""
        if self._moments is not None:
            return self._moments
        return class_moments(self.features, self.labels, device=self.device)

    @cached_property
    def mean(self) -> torch.Tensor:
        """Shape (D,)."""
        return self.torch.as_tensor(self.moments.mean, device=self.device)

    @cached_property
    def class_means(self) -> torch.Tensor:
        """Shape (K, D), of the K classes of the dataset."""
        return self.torch.as_tensor(self.moments.means, device=self.device)

    @cached_property
    def within_whitener(self) -> tuple[torch.Tensor, int]:
        """Shape (D, D), of the pooled within-class covariance, and how many eigenvalues rose."""
        return self._whitener(self.moments.within)

    @cached_property
    def total_whitener(self) -> tuple[torch.Tensor, int]:
        """Shape (D, D), of the covariance of all rows, and how many eigenvalues rose."""
        return self._whitener(self.moments.total)

    @cached_property
    def patterns(self) -> HeadPatterns:
        """What the head says of the train rows."""
        return head_patterns(self)

    @cached_property
    def mean_input(self) -> torch.Tensor:
        """Mean of what the head reads, shape (D,)."""
        if self.head is None or not self.head.is_unit_norm:
            return self.mean
        total: torch.Tensor = self.torch.zeros_like(self.mean)
        for _, rows in self.blocks():
            total += self.head_input(rows).sum(dim=0)
        mean: torch.Tensor = total / self.n_rows
        return mean

    @cached_property
    def percentile_sample(self) -> NDArray[np.float64]:
        """Activations of train rows that percentiles are taken of, sorted; evenly spread rows."""
        rows = max(1, _PERCENTILE_VALUES // self.dim)
        chosen = np.unique(np.linspace(0, self.n_rows - 1, min(rows, self.n_rows)).astype(np.intp))
        parts = [
            self.head_input(self.tensor(self.features[chosen[part]])).cpu().numpy().ravel()
            for part in row_blocks(len(chosen), 24 * self.dim, _BLOCK_BYTES)
        ]
        return np.sort(np.concatenate(parts))

    def percentile(self, share: float) -> float:
        """Return the percentile, in 0 .. 100, of the train activations, linearly interpolated."""
        sample = self.percentile_sample
        place = share / 100 * (len(sample) - 1)
        low = int(place)
        high = min(low + 1, len(sample) - 1)
        return float(sample[low] + (place - low) * (sample[high] - sample[low]))

    @cached_property
    def origin(self) -> torch.Tensor:
        """The point whose logits are nearest to zero, -b W⁺, shape (D,)."""
        # softmax leaves the mean of the columns free, so what the solver left there is noise
        inverse: torch.Tensor = self.torch.linalg.pinv(self.weights, rtol=_RANK)  # (C, D)
        found: torch.Tensor = -self.bias @ inverse
        return found

    @cached_property
    def axes(self) -> torch.Tensor:
        """Principal axes of the head's input about `origin`, shape (D, D), strongest first."""
        return self._axes_about(self.origin)

    @cached_property
    def correlation_axes(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Deviations (D,), 1 where constant, and axes (D, D) of the standardised rows."""
        cov = self.torch.as_tensor(self.moments.total / self.n_rows, device=self.device)
        deviation = cov.diagonal().clamp_min(0).sqrt()
        deviation = self.torch.where(deviation > 1e-12 * self.mean.abs(), deviation, 1.0)
        _, axes = self.torch.linalg.eigh(cov / deviation[:, None] / deviation)
        return deviation, axes.flip(1)

    @cached_property
    def unit_precision(self) -> torch.Tensor:
        """Pseudo-inverse of Σ x xᵀ over train rows of unit norm, shape (D, D)."""
        gram = self.torch.zeros(self.dim, self.dim, dtype=self.torch.float64, device=self.device)
        for _, rows in self.blocks():
            whole = unit(rows)
            gram += whole.T @ whole
        found: torch.Tensor = self.torch.linalg.pinv(gram, hermitian=True)
        return found

    @cached_property
    def bank(self) -> torch.Tensor:
        """Train rows of unit norm, shape (N, D), float32."""
        bank = self.torch.empty(self.n_rows, self.dim, dtype=self.torch.float32, device=self.device)
        for rows, values in self.blocks():
            bank[rows] = unit(values).float()
        return bank

    def bank_shares(self, start: int, size: int) -> torch.Tensor:
        """Return the softmax of some train rows, shape (n, C), float32; kept if there is room."""
        if 4 * self.n_rows * len(self.bias) > _SHARES_BYTES:
            return self._shares(slice(start, start + size))
        if "shares" not in self.memo:
            every = row_blocks(self.n_rows, 24 * self.dim, _BLOCK_BYTES)
            self.memo["shares"] = self.torch.cat([self._shares(rows) for rows in every])
        kept: torch.Tensor = self.memo["shares"][start : start + size]
        return kept

    def _shares(self, rows: slice) -> torch.Tensor:
        read = self.head_input(self.tensor(self.features[rows]))
        return self.torch.softmax(self.logits(read), dim=1).float()

    @property
    def k(self) -> int:
        """Neighbours that `knn` counts: as asked for, or a share of the mean class size."""
        share = self.options.k_class_share * self.n_rows / len(np.unique(self.labels))
        return int(min(self.options.k, self.n_rows, max(1, round(share))))

    @property
    def subspace(self) -> int:
        """Dimensions that `vim` and `residual` take for the principal space."""
        asked = self.options.subspace
        rule = 1000 if self.dim >= 2048 else 512 if self.dim >= 768 else self.dim // 2
        return min(asked or max(1, rule), self.dim - 1) if self.dim > 1 else 0

    def _axes_about(self, point: torch.Tensor) -> torch.Tensor:
        square = self.torch.zeros(self.dim, self.dim, dtype=self.torch.float64, device=self.device)
        for _, rows in self.blocks():
            apart = self.head_input(rows) - point
            square += apart.T @ apart
        found: torch.Tensor = self.torch.linalg.eigh(square / self.n_rows)[1].flip(1)
        return found

    def _whitener(self, scatter: NDArray[np.float64]) -> tuple[torch.Tensor, int]:
        cov = self.torch.as_tensor(scatter / self.n_rows, device=self.device)
        values, vectors = self.torch.linalg.eigh(cov)
        largest = float(values[-1])
        floor = self.options.eigenvalue_floor * largest if largest > 0 else 1.0
        return vectors / values.clamp_min(floor).sqrt(), int((values < floor).sum())

    def inherit(self, other: IdStatistics) -> None:
        """Take over what does not depend on the options, where `other` has computed it."""
        names = ["patterns", "bank", "origin", "axes", "percentile_sample", "unit_precision"]
        names += ["mean", "mean_input", "class_means", "correlation_axes"]
        if self.options.eigenvalue_floor == other.options.eigenvalue_floor:
            names += ["within_whitener", "total_whitener"]
        self.__dict__.update(
            {name: other.__dict__[name] for name in names if name in other.__dict__}
        )
        self.memo |= {name: kept for name, kept in other.memo.items() if name in ("fdbd", "shares")}
