"""What every probe asks of its arrays: matching shapes, finite values, rows with a direction."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.digest import blake3_bytes
from featcache.errors import ShapeError

Features = NDArray[np.floating[Any]]

BLOCK_BYTES = 1 << 28  # 256 MiB: the temporaries of one block of rows


def check_features(name: str, features: Features) -> None:
    """Refuse what is not a matrix with at least one row and one column.

    Raises:
        ShapeError: If `features` is not of shape (N, D) with N, D >= 1.
    """
    if features.ndim != 2 or 0 in features.shape:
        raise ShapeError(
            f"`{name}` must be a matrix (rows, dimensions) with at least one of each; got shape "
            f"{features.shape}. Extract some rows first, or reshape it."
        )


def check_pair(first_name: str, first: Features, second_name: str, second: Features) -> None:
    """Refuse two feature matrices that do not share their columns.

    Raises:
        ShapeError: If one is no matrix, or if they differ in D.
    """
    check_features(first_name, first)
    check_features(second_name, second)
    if first.shape[1] != second.shape[1]:
        raise ShapeError(
            f"`{first_name}` and `{second_name}` must have the same number of dimensions; got "
            f"shapes {first.shape} and {second.shape}. Use one backbone, tap and transform for "
            "both."
        )


def check_labels(name: str, features: Sized, labels: NDArray[np.int64]) -> None:
    """Refuse labels that do not name one class for each row.

    Raises:
        ShapeError: If `labels` is not of shape (N,), or if a label is negative.
    """
    if labels.shape != (len(features),):
        raise ShapeError(
            f"`{name}` must hold one label per row; got shape {labels.shape} for "
            f"{len(features)} rows. Pass labels and features of the same rows."
        )
    if len(labels) and labels.min() < 0:
        raise ShapeError(
            f"`{name}` must be class indices from 0; got {int(labels.min())}. "
            "Drop the unlabelled rows first."
        )


def row_blocks(n_rows: int, row_bytes: int, block_bytes: int = BLOCK_BYTES) -> Iterator[slice]:
    """Yield consecutive slices that cover `n_rows`, each of at most `block_bytes` bytes.

    A single row larger than that makes a block of its own; no rows yield nothing.
    """
    size = max(1, block_bytes // max(1, row_bytes))
    for start in range(0, n_rows, size):
        yield slice(start, min(start + size, n_rows))


def distinct_rows(features: Features) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Find equal rows, by their bytes.

    Args:
        features: Shape (N, D).

    Returns:
        Where each of the M distinct rows stands first, shape (M,), ascending; and which of these M
        each row is, shape (N,).
    """
    known: dict[str, int] = {}
    which = [known.setdefault(blake3_bytes(row.tobytes()), len(known)) for row in features]
    inverse = np.array(which, dtype=np.intp)
    return np.unique(inverse, return_index=True)[1], inverse


def to_float64(name: str, features: Features) -> NDArray[np.float64]:
    """Return `features` as a new float64 array.

    Raises:
        ShapeError: If a value is NaN or infinite.
    """
    wide = np.array(features, dtype=np.float64)
    finite = np.isfinite(wide).all(axis=1)
    if not finite.all():
        raise ShapeError(
            f"`{name}` must be finite; {int((~finite).sum())} rows hold NaN or infinity, the "
            f"first is row {int(finite.argmin())} of its block. Extract again in float32."
        )
    return wide


def unit_rows(name: str, features: Features) -> NDArray[np.float64]:
    """Scale each row to unit L2 norm, in float64 so that no float16 or float32 norm overflows.

    Args:
        name: What the rows are called in a message.
        features: Shape (N, D), any float dtype.

    Returns:
        Shape (N, D), float64.

    Raises:
        ShapeError: If a row is zero (it has no direction), or holds NaN or infinity.
    """
    wide = to_float64(name, features)
    norms = np.sqrt(np.einsum("nd,nd->n", wide, wide))
    if zero := int((norms == 0).sum()):
        raise ShapeError(
            f"`{name}` must have rows of non-zero norm, as cosine similarity needs a direction; "
            f"{zero} rows are zero, the first is row {int((norms == 0).argmax())} of its block. "
            "Drop them, or look at the images they come from."
        )
    wide /= norms[:, None]
    return wide
