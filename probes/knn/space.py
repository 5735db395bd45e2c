"""What near means: which form rows are compared in, how pairs are scored, how far to trust FAISS.

- FAISS proposes neighbours with float32 products whose last bits depend on the block, the number
  of queries and the processor. `Space.tolerance` bounds that error.
- Where the order of two proposals is within the error, `Space.pair_scores` decides: it looks at
  one pair of rows at a time, in float64, and rounds once. So the chosen rows depend on nothing
  but the features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from featcache.errors import OptionError, ShapeError
from featcache.probes.arrays import Features, check_features, row_blocks, to_float64, unit_rows
from featcache.probes.knn.threads import each_block
from featcache.probes.options import check_choice

Metric = Literal["cosine", "dot", "euclidean"]
Normalize = Literal["l2", "none"]
METRICS: tuple[Metric, ...] = ("cosine", "dot", "euclidean")
NORMALIZE: tuple[Normalize, ...] = ("l2", "none")

_CACHE_BYTES = 1 << 22  # rows are prepared in pieces that stay in the processor's cache
_LARGEST = 1e15  # float32 squares of larger values, summed over a row, leave its range
_SAFETY = 2.0  # about six standard deviations of the error of a sum that grows to 1 in D steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """A metric, the form of rows it is computed on, and facts of the bank it needs."""

    metric: Metric
    is_unit: bool
    """Whether rows are scaled to unit norm; FAISS then searches by inner product."""
    centre: NDArray[np.float64] | None = None
    """Shape (D,), subtracted from raw rows before Euclidean distances, else they cancel."""
    largest_norm: float = 1.0
    """Of the bank's rows."""

    @property
    def is_distance(self) -> bool:
        """Whether scores are minus Euclidean distances."""
        return self.metric == "euclidean"

    @property
    def searches_l2(self) -> bool:
        """Whether FAISS searches by squared distance: on unit rows the product ranks alike."""
        return self.is_distance and not self.is_unit

    def rows(self, name: str, features: Features) -> NDArray[np.float32]:
        """Return `features` in the form that is compared, shape (N, D), each row by itself.

        Raises:
            ShapeError: If a row is not finite, is zero where it needs a direction, or is too
                large for float32 products.
        """
        out = np.empty(features.shape, dtype=np.float32)

        def fill(block: slice) -> None:
            piece = np.ascontiguousarray(features[block])
            if self.is_unit:
                out[block] = unit_rows(name, piece)
                return
            wide = _in_range(name, piece)
            out[block] = wide if self.centre is None else wide - self.centre

        each_block(fill, row_blocks(len(out), 8 * features.shape[1], _CACHE_BYTES))
        return out

    def pair_scores(
        self, queries: NDArray[np.float32], rows: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Score each query against the row beside it, (P, D) and (P, D) to (P,); larger is nearer.

        The similarity, or minus the Euclidean distance from the differences themselves.
        """
        wide = rows.astype(np.float64)
        if not self.is_distance:
            wide *= queries
            return cast("NDArray[np.float32]", wide.sum(axis=1).astype(np.float32))
        wide -= queries
        wide *= wide
        return cast("NDArray[np.float32]", (-np.sqrt(wide.sum(axis=1))).astype(np.float32))

    def tolerance(
        self, queries: NDArray[np.float32], kth: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """Bound the rounding error of FAISS's scores around the k-th, shape (M,).

        A float32 sum of D products is wrong by about √D · 2⁻²⁴ times the product of the norms
        (Higham & Mary 2019, SISC 41). A squared distance is ‖q‖² - 2 q·b + ‖b‖², and a row
        within the distance d of q has ‖b‖ <= ‖q‖ + d.

        Args:
            queries: Shape (M, D), as `rows` gave them.
            kth: Shape (M,), FAISS's score of the k-th neighbour; -inf where there is none.
        """
        unit = _SAFETY * np.sqrt(queries.shape[1]) * 2.0**-24
        if self.is_unit:
            return np.full(len(queries), unit)
        wide = queries.astype(np.float64)
        norms = np.sqrt((wide * wide).sum(axis=1))
        if not self.is_distance:
            return np.asarray(unit * norms * self.largest_norm)
        far = np.sqrt(np.where(np.isfinite(kth), np.maximum(-kth.astype(np.float64), 0), 0))
        return np.asarray(unit * (2 * norms + far) ** 2)


def make_space(bank: Features, *, metric: Metric = "cosine", normalize: Normalize = "l2") -> Space:
    """Choose the form for a metric and learn what it needs of the bank.

    Args:
        bank: Shape (N, D); read once, in blocks, unless rows are scaled to unit norm.
        metric: `cosine`, `dot` (the inner product) or `euclidean`.
        normalize: `l2` scales all rows to unit norm first, `none` takes them as they are.
            Cosine is the product of unit rows, so `none` contradicts it.

    Raises:
        OptionError: If a name is unknown, or for cosine with `none`.
        ShapeError: If a row is not finite, or too large for float32 products.
    """
    check_choice("metric", metric, METRICS)
    check_choice("normalize", normalize, NORMALIZE)
    check_features("bank", bank)
    if metric == "cosine" and normalize == "none":
        raise OptionError(
            "`normalize` must be 'l2' with the metric 'cosine', which is the product of unit rows; "
            "got 'none'. For products of rows as they are choose the metric 'dot'."
        )
    if normalize == "l2":
        return Space(metric=metric, is_unit=True)
    total, largest = np.zeros(bank.shape[1]), 0.0
    for block in row_blocks(len(bank), 8 * bank.shape[1], _CACHE_BYTES):
        wide = _in_range("bank", np.ascontiguousarray(bank[block]))
        total += wide.sum(axis=0)
        largest = max(largest, float((wide * wide).sum(axis=1).max()))
    centre = _short(total / len(bank)) if metric == "euclidean" else None
    return Space(metric=metric, is_unit=False, centre=centre, largest_norm=float(np.sqrt(largest)))


def _short(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keep eight bits of the largest value: round numbers less it stay exact, so ties stay ties."""
    _, exponent = np.frexp(np.abs(values).max())
    grid = np.ldexp(1.0, int(exponent) - 8)
    return np.asarray((values / grid).round() * grid)


def _in_range(name: str, features: Features) -> NDArray[np.float64]:
    wide = to_float64(name, features)
    if (largest := float(np.abs(wide).max(initial=0))) > _LARGEST:
        raise ShapeError(
            f"`{name}` must be at most {_LARGEST:g} in size where rows are not scaled to unit "
            f"norm; got {largest:g}. Divide all features by one number, or normalise them."
        )
    return wide
