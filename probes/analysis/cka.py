"""Linear CKA: how alike two sets of the same rows are, up to rotation and scale.

The unbiased HSIC of Song et al. works on Gram matrices K and L without their diagonals:

    HSIC₁ = (tr KL + ΣK ΣL / ((n-1)(n-2)) - 2/(n-2) 1ᵀKL1) / (n (n-3)).

It does not change when features are centred. Then 1ᵀx = 0, so a row of K without its diagonal sums
to -|x|², and with a = |x|², b = |y|² per row

    n (n-3) HSIC₁ = |XᵀY|² - n/(n-2) Σ ab + Σa Σb / ((n-1)(n-2)),

which needs D x E values in place of N x N.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featcache.errors import OptionError, ShapeError
from featcache.probes.analysis.decomposition import centred_rows
from featcache.probes.arrays import Features, check_features

_LEAST_ROWS = 4


def linear_cka(first: Features, second: Features) -> float:
    """Return debiased linear CKA; 1 for sets that rotation, shift and scale make equal.

    About 0 for independent sets, also where D exceeds N, and sometimes below.

    Args:
        first: Shape (N, D), N >= 4, any float dtype.
        second: Shape (N, E), the same rows.

    Raises:
        ShapeError: If rows differ in number, are fewer than four or not finite, or if a set has no
            variance beyond chance.

    Source: Kornblith et al. 2019, arXiv:1905.00414; HSIC of Song et al. 2012, JMLR 13, equation 5.
        Checked against the U-statistic over quadruples of rows.
    """
    one, other = _pair(first, second)
    return _ratio(hsic(one, other), hsic(one, one), hsic(other, other))


def minibatch_cka(
    first: Features, second: Features, rng: np.random.Generator, *, batch_rows: int = 256
) -> tuple[float, int]:
    """Return linear CKA from batches, and their number.

    The three HSICs are summed over batches, the same for both sets, and divided once. Rows that
    do not fill a batch are left out; with fewer rows than a batch, all of them are one.

    Args:
        first: Shape (N, D), N >= 4, any float dtype.
        second: Shape (N, E), the same rows.
        rng: Deals the rows to batches.
        batch_rows: At least 4.

    Raises:
        OptionError: If `batch_rows` is below 4.
        ShapeError: As `linear_cka`.

    Source: Nguyen et al. 2021, arXiv:2010.15327 (batches of 256).
    """
    if batch_rows < _LEAST_ROWS:
        raise OptionError(f"`batch_rows` must be at least 4; got {batch_rows}. Take 256.")
    one, other = _pair(first, second)
    order = rng.permutation(len(one))
    size = min(batch_rows, len(one))
    sums = np.zeros(3)
    n_batches = len(one) // size
    for number in range(n_batches):
        rows = order[number * size : (number + 1) * size]
        left, right = one[rows], other[rows]
        left, right = left - left.mean(axis=0), right - right.mean(axis=0)
        sums += [hsic(left, right), hsic(left, left), hsic(right, right)]
    return _ratio(*sums.tolist()), n_batches


def biased_linear_cka(first: Features, second: Features) -> float:
    """Return linear CKA as first published, |XᵀY|² / (|XᵀX| |YᵀY|) of centred features.

    Biased upwards, more so the fewer rows there are: two independent Gaussian sets of 200 rows
    and 2000 dimensions have 0.9. For comparison with papers only.

    Args:
        first: Shape (N, D), any float dtype.
        second: Shape (N, E), the same rows.

    Raises:
        ShapeError: If rows differ in number, are not finite, or if all of a set are equal.

    Source: Kornblith et al. 2019, arXiv:1905.00414.
    """
    one, other = _pair(first, second)
    return _ratio(_cross(one, other), _cross(one, one), _cross(other, other))


def hsic(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return the unbiased HSIC of two sets of *centred* rows.

    Args:
        first: Shape (N, D), N >= 4, columns of mean 0.
        second: Shape (N, E), columns of mean 0.
    """
    n = len(first)
    own, other = (np.einsum("nd,nd->n", rows, rows) for rows in (first, second))
    diagonals = n / (n - 2) * float(own @ other)
    sums = float(own.sum()) * float(other.sum()) / ((n - 1) * (n - 2))
    return (_cross(first, second) - diagonals + sums) / (n * (n - 3))


def _cross(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return |XᵀY|² = tr KL, by the smaller of the two ways."""
    n, dims = len(first), (first.shape[1], second.shape[1])
    if n * n < dims[0] * dims[1]:
        return float(np.einsum("nm,nm->", first @ first.T, second @ second.T))
    return float(np.square(first.T @ second).sum())


def _pair(first: Features, second: Features) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return both centred, and scaled so that no product overflows."""
    check_features("first", first)
    check_features("second", second)
    if len(first) != len(second) or len(first) < _LEAST_ROWS:
        raise ShapeError(
            f"CKA needs the same rows of both sets, {_LEAST_ROWS} at least; got {len(first)} and "
            f"{len(second)}. Match them by id, or take more."
        )
    return _centred("first", first), _centred("second", second)


def _centred(name: str, features: Features) -> NDArray[np.float64]:
    rows = centred_rows(name, features)
    scale = np.sqrt(np.einsum("nd,nd->", rows, rows) / len(rows))
    return np.asarray(rows / scale) if scale > 0 else rows


def _ratio(both: float, one: float, other: float) -> float:
    if not (one > 0 and other > 0):
        raise ShapeError(
            f"Both sets must vary from row to row for CKA; their own HSICs are {one:.3g} and "
            f"{other:.3g}. Take more rows, or another tap."
        )
    return both / float(np.sqrt(one) * np.sqrt(other))
