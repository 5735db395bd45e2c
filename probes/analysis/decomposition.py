"""The singular value decomposition that evidence, H-score and spectra share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ShapeError
from featcache.probes.arrays import Features, check_features, to_float64

_CONDITION = 1e-10  # of eigenvalues; beyond it a Gram matrix knows the smallest to 1e-6 at best


@dataclass(frozen=True, slots=True, kw_only=True)
class Decomposition:
    """Features X = U S Vᵀ, of N rows and D dimensions; R directions, others have no variance."""

    left: NDArray[np.float64]
    """U, shape (N, R), R <= min(N, D); columns of non-zero singular values are orthonormal."""
    values: NDArray[np.float64]
    """S, shape (R,), decreasing."""
    right: NDArray[np.float64]
    """Vᵀ, shape (R, D)."""

    @property
    def rank(self) -> int:
        """Singular values above rounding: numpy's `matrix_rank` rule."""
        size = max(len(self.left), self.right.shape[1])
        floor = self.values[0] * size * np.finfo(np.float64).eps
        return int((self.values > floor).sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class Decomposed:
    """Features with both of their decompositions, which most measures need."""

    features: Features
    raw: Decomposition
    centred: Decomposition

    @classmethod
    def of(cls, features: Features) -> Self:
        """Decompose features of shape (N, D) as they are and less their mean.

        Raises:
            ShapeError: If `features` is no matrix, is empty or not finite.
        """
        return cls(
            features=features,
            raw=decompose(features, centre=False),
            centred=decompose(features, centre=True),
        )


def decompose(features: Features, *, centre: bool) -> Decomposition:
    """Decompose features in float64, as they are or less their mean.

    By the eigenvectors of the smaller Gram matrix, which is several times faster; but that loses
    singular values below 1e-8 of the largest, so an ill-conditioned set is decomposed directly.
    Dimensions that are zero throughout are left out first.

    Args:
        features: Shape (N, D), any float dtype.
        centre: Whether the mean of the rows is subtracted first.

    Raises:
        ShapeError: If `features` is no matrix, is empty or not finite.
    """
    check_features("features", features)
    rows = centred_rows("features", features) if centre else to_float64("features", features)
    live = np.asarray(rows.any(axis=0))
    kept = rows if live.all() or not live.any() else rows[:, live]
    found = _of_gram(kept, n_null=int(centre and len(kept) <= kept.shape[1]))
    left, values, axes = found or np.linalg.svd(kept, full_matrices=False)
    right = np.zeros((len(values), len(live)))
    right[:, live if live.any() else slice(None)] = axes
    return Decomposition(left=left, values=values, right=right)


def _of_gram(
    rows: NDArray[np.float64], *, n_null: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]] | None:
    """Return U, S and Vᵀ by the eigenvectors of XXᵀ or XᵀX; None where that is not exact enough.

    `n_null` eigenvalues are known to be 0: that of the constant, if centred rows span the rest.
    """
    is_wide = len(rows) <= rows.shape[1]
    squares, vectors = np.linalg.eigh(rows @ rows.T if is_wide else rows.T @ rows)
    squares, vectors = squares[n_null:][::-1], vectors[:, n_null:][:, ::-1]
    if not len(squares) or squares[-1] <= _CONDITION * squares[0]:
        return None
    values = np.sqrt(squares)
    if is_wide:
        return vectors, values, (vectors / values).T @ rows
    return rows @ (vectors / values), values, vectors.T


def centred_rows(name: str, features: Features) -> NDArray[np.float64]:
    """Return features less their mean, in float64; a constant dimension becomes exactly 0.

    Args:
        name: What the features are called in a message.
        features: Shape (N, D), N >= 1, any float dtype.

    Raises:
        ShapeError: If a value is not finite.
    """
    rows = to_float64(name, features)
    rows -= rows[0].copy()  # equal values cancel exactly here, and not against a rounded mean
    rows -= rows.mean(axis=0)
    return rows


def principal_components(centred: Decomposition, dims: int) -> NDArray[np.float64]:
    """Return the rows along the first principal axes, shape (N, min(`dims`, rank)).

    Axes point where their largest coordinate is positive, so that methods which depend on the
    sign (PARC) give one value everywhere.

    Args:
        centred: Of centred features.
        dims: At most this many; 0 for all.

    Raises:
        ShapeError: If all rows are equal.

    Source: sklearn's `PCA`, against which it is checked, signs included.
    """
    if centred.rank == 0:
        raise ShapeError(
            "`features` must differ from row to row to have principal axes; all are equal. "
            "Look at the images, or at the tap."
        )
    kept = min(dims or centred.rank, centred.rank)
    axes = centred.right[:kept]
    largest = np.abs(axes).argmax(axis=1)
    signs = np.sign(axes[np.arange(kept), largest])
    return np.asarray(centred.left[:, :kept] * (centred.values[:kept] * signs))


def class_sums(rows: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the sum of the rows of each class, shape (C, K); zero for an absent class.

    Args:
        rows: Shape (N, K).
        labels: Shape (N,), from 0; C is the largest plus one.
    """
    sums = np.zeros((int(labels.max()) + 1, rows.shape[1]))
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    sums[labels[order[starts]]] = np.add.reduceat(rows[order], starts, axis=0)
    return sums


def compact(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the classes that occur from 0, in order; absent classes leave no gap."""
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int64)


def check_classes(labels: NDArray[np.int64], method: str) -> None:
    """Refuse rows of one class, for a method that compares classes.

    Raises:
        ShapeError: If there are fewer than two classes.
    """
    if len(np.unique(labels)) < 2:
        raise ShapeError(
            f"{method} needs rows of two classes at least; got one. Add another class."
        )
