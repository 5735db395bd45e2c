"""What detectors share: statistics of the ID train rows, each computed once and only if read.

Labels of train rows count where a definition needs them (class means, covariances); logit patterns
go by the class that the head predicts, so a head of other classes than the dataset's will do.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featcache.probes.arrays import Features, row_blocks, to_float64
from featcache.probes.closed_form.moments import Moments, class_moments, outer_sum
from featcache.probes.linear.head import LinearHead
from featcache.probes.ood.kept import Kept
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
        kept: Mapping[str, NDArray[np.generic]] | None = None,
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
            kept: `kept.arrays` of earlier statistics of the same rows and head.
            device: Torch device.
        """
        import torch

        self.torch, self.features, self.labels = torch, features, labels
        self.options, self.device, self.head = options, device, head
        self.temperature, self.text = temperature, None
        self.n_rows, self.dim = features.shape
        self.kept = Kept(kept, device=device)
        """What further runs can use."""
        self.memo: dict[str, Any] = {}
        """What is too large for that, or quickly computed again."""
        if head is not None:
            self.weights = torch.as_tensor(head.weights, device=device)  # (D, C)
            self.bias = torch.as_tensor(head.bias, device=device)  # (C,)
        self.columns = None if columns is None else torch.as_tensor(columns, device=device)
        if text is not None:
            self.text = torch.as_tensor(text, device=device)

    def with_options(self, options: OodOptions) -> IdStatistics:
        """Return the same statistics, shared, under other hyper-parameters."""
        other = copy.copy(self)
        other.options = options
        return other

    def once(self, name: str, compute: Callable[[], Any]) -> Any:  # noqa: ANN401
        """Return what `compute` gives, computed once; the name holds the options that decide it."""
        if name not in self.memo:
            self.memo[name] = compute()
        return self.memo[name]

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

    @property
    def moments(self) -> Moments:
        """Class means and scatters."""

        def compute() -> Moments:
            return class_moments(self.features, self.labels, device=self.device)

        return self.kept.record("moments", Moments, compute)

    @property
    def mean(self) -> torch.Tensor:
        """Shape (D,)."""
        return self.kept.tensor("mean", lambda: self.on_device(self.moments.mean))

    @property
    def class_means(self) -> torch.Tensor:
        """Shape (K, D), of the K classes of the dataset."""
        found: torch.Tensor = self.once("means", lambda: self.on_device(self.moments.means))
        return found

    @property
    def within_whitener(self) -> tuple[torch.Tensor, int]:
        """Shape (D, D), of the pooled within-class covariance, and how many eigenvalues rose."""
        return self._whitener("within", lambda: self.moments.within)

    @property
    def total_whitener(self) -> tuple[torch.Tensor, int]:
        """Shape (D, D), of the covariance of all rows, and how many eigenvalues rose."""
        return self._whitener("total", lambda: self.moments.total)

    @property
    def patterns(self) -> HeadPatterns:
        """What the head says of the train rows."""
        return self.kept.record(
            "patterns", HeadPatterns, lambda: head_patterns(self), load=self.on_device
        )

    @property
    def mean_input(self) -> torch.Tensor:
        """Mean of what the head reads, shape (D,)."""
        if self.head is None or not self.head.is_unit_norm:
            return self.mean

        def compute() -> torch.Tensor:
            total: torch.Tensor = self.torch.zeros_like(self.mean)
            for _, rows in self.blocks():
                total += self.head_input(rows).sum(dim=0)
            mean: torch.Tensor = total / self.n_rows
            return mean

        return self.kept.tensor("mean_input", compute)

    def percentile(self, share: float) -> float:
        """Return the percentile, in 0 .. 100, of the train activations, linearly interpolated."""

        def compute() -> torch.Tensor:
            sample = self.once("activations", self._activations)
            place = share / 100 * (len(sample) - 1)
            low = int(place)
            high = min(low + 1, len(sample) - 1)
            value = sample[low] + (place - low) * (sample[high] - sample[low])
            return self.on_device(np.float64(value))

        return float(self.kept.tensor(f"percentile {share!r}", compute))

    @property
    def origin(self) -> torch.Tensor:
        """The point whose logits are nearest to zero, -b W⁺, shape (D,)."""

        def compute() -> torch.Tensor:
            # softmax leaves the mean of the columns free, so what the solver left there is noise
            inverse: torch.Tensor = self.torch.linalg.pinv(self.weights, rtol=_RANK)  # (C, D)
            found: torch.Tensor = -self.bias @ inverse
            return found

        return self.kept.tensor("origin", compute)

    @property
    def axes(self) -> torch.Tensor:
        """Principal axes of the head's input about `origin`, shape (D, D), strongest first."""
        return self.kept.tensor("axes", self._axes)

    @property
    def correlation_axes(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Deviations (D,), 1 where constant, and axes (D, D) of the standardised rows."""

        def compute() -> tuple[torch.Tensor, torch.Tensor]:
            cov = self.on_device(self.moments.total / self.n_rows)
            deviation = cov.diagonal().clamp_min(0).sqrt()
            deviation = self.torch.where(deviation > 1e-12 * self.mean.abs(), deviation, 1.0)
            _, axes = self.torch.linalg.eigh(cov / deviation[:, None] / deviation)
            return deviation, axes.flip(1)

        found: tuple[torch.Tensor, torch.Tensor] = self.once("correlation", compute)
        return found

    @property
    def unit_precision(self) -> torch.Tensor:
        """Pseudo-inverse of Σ x xᵀ over train rows of unit norm, shape (D, D)."""

        def compute() -> torch.Tensor:
            gram = self.on_device(self._outer(unit(rows) for _, rows in self.blocks()))
            found: torch.Tensor = self.torch.linalg.pinv(gram, hermitian=True)
            return found

        return self.kept.tensor("unit_precision", compute)

    @property
    def bank(self) -> torch.Tensor:
        """Train rows of unit norm, shape (N, D), float32."""

        def compute() -> torch.Tensor:
            like = {"dtype": self.torch.float32, "device": self.device}
            bank: torch.Tensor = self.torch.empty(self.n_rows, self.dim, **like)
            for rows, values in self.blocks():
                bank[rows] = unit(values).float()
            return bank

        found: torch.Tensor = self.once("bank", compute)
        return found

    def bank_shares(self, start: int, size: int) -> torch.Tensor:
        """Return the softmax of some train rows, shape (n, C), float32; kept if there is room."""
        if 4 * self.n_rows * len(self.bias) > _SHARES_BYTES:
            return self._shares(slice(start, start + size))

        def compute() -> torch.Tensor:
            every = row_blocks(self.n_rows, 24 * self.dim, _BLOCK_BYTES)
            shares: torch.Tensor = self.torch.cat([self._shares(rows) for rows in every])
            return shares

        found: torch.Tensor = self.once("shares", compute)[start : start + size]
        return found

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

    def _shares(self, rows: slice) -> torch.Tensor:
        read = self.head_input(self.tensor(self.features[rows]))
        return self.torch.softmax(self.logits(read), dim=1).float()

    def _activations(self) -> NDArray[np.float64]:
        """Return activations that percentiles are taken of, sorted, of evenly spread train rows."""
        rows = max(1, _PERCENTILE_VALUES // self.dim)
        chosen = np.unique(np.linspace(0, self.n_rows - 1, min(rows, self.n_rows)).astype(np.intp))
        parts = [
            self.head_input(self.tensor(self.features[chosen[part]])).cpu().numpy().ravel()
            for part in row_blocks(len(chosen), 24 * self.dim, _BLOCK_BYTES)
        ]
        return np.sort(np.concatenate(parts))

    def _axes(self) -> torch.Tensor:
        """Shift the total scatter to `origin`; where rows are scaled, sum up again."""
        if self.head is not None and self.head.is_unit_norm:
            apart = (self.head_input(rows) - self.origin for _, rows in self.blocks())
            square = self.on_device(self._outer(apart))
        else:
            gap = self.mean - self.origin
            square = self.on_device(self.moments.total) + self.n_rows * gap[:, None] * gap
        found: torch.Tensor = self.torch.linalg.eigh(square / self.n_rows)[1].flip(1)
        return found

    def _outer(self, rows: Iterable[torch.Tensor]) -> NDArray[np.float64]:
        return outer_sum(rows, self.dim, device=self.device)

    def _whitener(
        self, name: str, scatter: Callable[[], NDArray[np.float64]]
    ) -> tuple[torch.Tensor, int]:
        floor = self.options.eigenvalue_floor

        def compute() -> tuple[torch.Tensor, int]:
            values, vectors = self.torch.linalg.eigh(self.on_device(scatter() / self.n_rows))
            largest = float(values[-1])
            least = floor * largest if largest > 0 else 1.0
            return vectors / values.clamp_min(least).sqrt(), int((values < least).sum())

        found: tuple[torch.Tensor, int] = self.once(f"{name} whitener {floor!r}", compute)
        return found

    def on_device(self, array: NDArray[np.generic] | np.float64) -> torch.Tensor:
        """Return an array as a tensor on the device."""
        found: torch.Tensor = self.torch.as_tensor(array, device=self.device)
        return found
