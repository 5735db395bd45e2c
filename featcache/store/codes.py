"""Quantised features: small codes beside a table of what they stand for.

A set whose stored type is `uint8` holds codes, and an array `decoder` of float32:

    shape (2, D)      scalar codes, one per dimension: value = decoder[0] + decoder[1] * code
    shape (256, D)    product codes, m per row: part j of the row, D/m wide, is what
                      decoder[code[j]] holds in those columns
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CODE_DTYPE = "uint8"
LEVELS = 256
_SCALAR_ROWS = 2
_BLOCK_ROWS = 4096


def encode(
    values: NDArray[np.floating], decoder: NDArray[np.float32], width: int
) -> NDArray[np.uint8]:
    """Return the codes of each row: the nearest level of each value, or centroid of each part.

    Ties go to the even level and to the smaller centroid.

    Args:
        values: Shape (n, D).
        decoder: Shape (2, D) or (256, D).
        width: Codes per row: D, or the number of parts.

    Returns:
        Shape (n, width).
    """
    codes = np.empty((len(values), width), np.uint8)
    for start in range(0, len(values), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        block = values[rows].astype(np.float32, copy=False)
        if len(decoder) == _SCALAR_ROWS:
            scaled = (block - decoder[0]) / np.where(decoder[1] == 0, 1, decoder[1])
            codes[rows] = np.clip(np.rint(scaled), 0, LEVELS - 1)
        else:
            codes[rows] = _nearest_centroids(block, decoder, width)
    return codes


def _nearest_centroids(
    block: NDArray[np.float32], decoder: NDArray[np.float32], parts: int
) -> NDArray[np.intp]:
    nearest = np.empty((len(block), parts), np.intp)
    size = block.shape[1] // parts
    for part in range(parts):
        columns = slice(part * size, (part + 1) * size)
        centroids = decoder[:, columns]  # (256, D/m)
        # ‖x - c‖² = ‖x‖² - 2 (x·c - ‖c‖²/2): the nearest centroid has the largest bracket
        score = block[:, columns] @ centroids.T - (centroids**2).sum(axis=1) / 2
        nearest[:, part] = score.argmax(axis=1)
    return nearest


def decode(codes: NDArray[np.uint8], decoder: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what codes stand for, shape (n, D)."""
    dim = decoder.shape[1]
    if len(decoder) == _SCALAR_ROWS:
        values: NDArray[np.float32] = codes * decoder[1] + decoder[0]
        return values
    parts = codes.shape[1]
    centroids = np.swapaxes(decoder.reshape(LEVELS, parts, dim // parts), 0, 1)
    return np.asarray(centroids[np.arange(parts), codes].reshape(len(codes), dim), np.float32)


def check_decoder(decoder: NDArray[np.float32] | None, row_shape: tuple[int, ...]) -> str | None:
    """Say why a decoder cannot be one for rows of codes of this shape; None if it can."""
    if decoder is None:
        return "is missing"
    rows, dim = decoder.shape
    width = row_shape[0] if len(row_shape) == 1 else 0
    is_scalar = rows == _SCALAR_ROWS and dim == width
    is_product = rows == LEVELS and 1 <= width <= dim and dim % width == 0
    if not (is_scalar or is_product):
        return f"has shape {decoder.shape}, which rows of codes {row_shape} cannot have"
    return None if np.isfinite(decoder).all() else "holds numbers that are not finite"
