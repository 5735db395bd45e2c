"""The arithmetic of each step: fitted on training rows, then applied to any.

Moments are summed in float64 over blocks of rows, so memory is bounded by one block and D x D.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.derived.recipe import Step
from featcache.errors import ShapeError
from featcache.store.codes import LEVELS, decode, encode

Rows = NDArray[np.float32]
Blocks = Callable[[], Iterable[NDArray[np.floating]]]
"""Gives the training rows block by block, anew at each call."""

PQ_ROWS = LEVELS * 256
"""Rows that product quantisation learns from: 256 per centroid, what FAISS takes at most."""


@dataclass(frozen=True, slots=True)
class Normalise:
    """Divide each part of a row by its L2 norm; a part of zeros stays one."""

    widths: tuple[int, ...]

    def __call__(self, values: Rows) -> Rows:
        """Return unit parts, shape (n, D)."""
        ends = np.cumsum(self.widths)
        parts = [values[:, end - width : end] for width, end in zip(self.widths, ends, strict=True)]
        norms = [np.linalg.norm(part.astype(np.float64), axis=1, keepdims=True) for part in parts]
        scaled = [part / np.where(n == 0, 1, n) for part, n in zip(parts, norms, strict=True)]
        return np.concatenate(scaled, axis=1).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Truncate:
    """Keep the first values of each row."""

    dim: int

    def __call__(self, values: Rows) -> Rows:
        """Return shape (n, dim)."""
        return values[:, : self.dim]


@dataclass(frozen=True, slots=True)
class Affine:
    """Subtract an offset, shape (D,); then scale, or project on axes, shape (D, d)."""

    offset: NDArray[np.float32]
    factor: NDArray[np.float32]

    def __call__(self, values: Rows) -> Rows:
        """Return (values - offset) times the factor."""
        centred = values - self.offset
        scaled = centred * self.factor if self.factor.ndim == 1 else centred @ self.factor
        return scaled.astype(np.float32, copy=False)


@dataclass(frozen=True, slots=True)
class Quantise:
    """Replace each row by the nearest that codes can say."""

    decoder: NDArray[np.float32]
    width: int
    """Codes per row."""

    def encode(self, values: Rows) -> NDArray[np.uint8]:
        """Return codes, shape (n, width)."""
        return encode(values, self.decoder, self.width)

    def __call__(self, values: Rows) -> Rows:
        """Return what the codes stand for, shape (n, D)."""
        return decode(self.encode(values), self.decoder)


Fitted = Normalise | Truncate | Affine | Quantise


def fit_step(step: Step, blocks: Blocks, widths: tuple[int, ...], seed: int) -> Fitted:
    """Return a step that knows what it needs of the training rows.

    Args:
        step: What to do.
        blocks: The training rows as the step will get them, shape (n, D).
        widths: Of each backbone's part of the rows; they add up to D.
        seed: Of the draw of rows and centroids in `pq`.

    Raises:
        ShapeError: If the size does not fit the rows.
    """
    dim = sum(widths)
    if step.name in {"l2", "l2each"}:
        return Normalise(widths if step.name == "l2each" else (dim,))
    if step.name == "truncate":
        _check_dim(step, dim)
        return Truncate(step.size)
    if step.name == "int8":
        return Quantise(_fit_levels(blocks), dim)
    if step.name == "pq":
        return Quantise(_fit_centroids(step, blocks, dim, seed), step.size)
    mean, n = _mean(blocks, dim)
    if step.name == "center":
        return Affine(mean.astype(np.float32), np.ones(dim, np.float32))
    if step.name == "zscore":
        return _fit_zscore(mean, n, blocks)
    _check_dim(step, dim)
    return _fit_axes(step, mean, n, blocks)


def _check_dim(step: Step, dim: int) -> None:
    if step.size > dim:
        raise ShapeError(
            f"Step '{step}' must keep at most the {dim} dimensions it gets; got {step.size}. "
            "Lower it."
        )


def _mean(blocks: Blocks, dim: int) -> tuple[NDArray[np.float64], int]:
    total, n = np.zeros(dim), 0
    for block in blocks():
        total += block.sum(axis=0, dtype=np.float64)
        n += len(block)
    if n == 0:
        raise ShapeError("A step must be fitted on at least one row; got none. Extract some.")
    return total / n, n


def _fit_zscore(mean: NDArray[np.float64], n: int, blocks: Blocks) -> Affine:
    """A constant dimension becomes zero."""
    squares = sum((((block - mean) ** 2).sum(axis=0) for block in blocks()), np.zeros(len(mean)))
    deviation = np.sqrt(squares / n)
    is_constant = deviation <= 1e-7 * np.maximum(1e-30, np.abs(mean))
    factor = np.where(is_constant, 0, 1 / np.where(is_constant, 1, deviation))
    return Affine(mean.astype(np.float32), factor.astype(np.float32))


def _fit_axes(step: Step, mean: NDArray[np.float64], n: int, blocks: Blocks) -> Affine:
    """Principal axes, by falling variance; the largest entry of each is positive."""
    scatter = np.zeros((len(mean), len(mean)))
    for block in blocks():
        centred = block - mean
        scatter += centred.T @ centred
    variances, axes = np.linalg.eigh(scatter / n)
    variances, axes = variances[::-1][: step.size], axes[:, ::-1][:, : step.size]
    largest = axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])]
    axes = axes * np.where(largest < 0, -1, 1)
    if step.name == "whiten":
        noise = (len(mean) * np.finfo(np.float32).eps) ** 2  # of a variance, in float32 rows
        rank = int((variances > variances[0] * noise).sum())
        if rank < step.size:
            raise ShapeError(
                f"Step '{step}' must keep at most the {rank} dimensions in which the training rows "
                f"vary; got {step.size}. Lower it."
            )
        axes = axes / np.sqrt(variances)
    return Affine(mean.astype(np.float32), np.ascontiguousarray(axes, np.float32))


def _fit_levels(blocks: Blocks) -> NDArray[np.float32]:
    """Even levels from the smallest to the largest value of each dimension."""
    low: Any = np.inf
    high: Any = -np.inf
    for block in blocks():
        low = np.minimum(low, block.min(axis=0))
        high = np.maximum(high, block.max(axis=0))
    if np.isinf(low).any():
        raise ShapeError("A step must be fitted on at least one row; got none. Extract some.")
    return np.stack([low, (high - low) / (LEVELS - 1)]).astype(np.float32)


def _fit_centroids(step: Step, blocks: Blocks, dim: int, seed: int) -> NDArray[np.float32]:
    """Centroids of each part by FAISS's k-means, on rows drawn at random.

    Source: Jégou, Douze & Schmid 2011, TPAMI 33(1).
    """
    import torch  # noqa: F401, I001  before faiss, always: they ship two OpenMP runtimes

    import faiss

    if dim % step.size:
        raise ShapeError(
            f"Step '{step}' must cut rows of {dim} into equal parts; {step.size} does not divide "
            f"{dim}. Choose a divisor."
        )
    rows = _draw(blocks, seed)
    if len(rows) < LEVELS:
        raise ShapeError(
            f"Step '{step}' must be fitted on at least {LEVELS} rows, one per centroid; got "
            f"{len(rows)}. Extract more, or use int8."
        )
    quantiser: Any = faiss.ProductQuantizer(dim, step.size, 8)
    quantiser.cp.seed = seed
    quantiser.cp.min_points_per_centroid = 1
    quantiser.train(np.ascontiguousarray(rows))
    centroids = faiss.vector_to_array(quantiser.centroids).reshape(step.size, LEVELS, -1)
    return np.ascontiguousarray(centroids.transpose(1, 0, 2).reshape(LEVELS, dim))


def _draw(blocks: Blocks, seed: int) -> Rows:
    """Return at most `PQ_ROWS` rows, drawn without replacement and in order."""
    n = sum(len(block) for block in blocks())
    chosen = np.sort(np.random.default_rng(seed).choice(n, min(n, PQ_ROWS), replace=False))
    parts, start = [], 0
    for block in blocks():
        first, last = np.searchsorted(chosen, [start, start + len(block)])
        parts.append(block[chosen[first:last] - start].astype(np.float32))
        start += len(block)
    return np.concatenate(parts)
