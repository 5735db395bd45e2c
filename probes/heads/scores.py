"""What a head says of rows, among the classes of a dataset and among all of its own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featcache.probes.arrays import Features, row_blocks
from featcache.probes.linear.head import LinearHead


def head_scores(
    features: Features, head: LinearHead, columns: NDArray[np.intp], *, is_masked: bool
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the logits of each row, and its best class among all classes of the head.

    Classes are numbered anew: the dataset's come first, in its order, then the head's others in
    theirs. On a tie the smaller number is best, so a class of the dataset before one that is none.

    Args:
        features: Shape (M, D), any float dtype.
        head: C classes on D dimensions.
        columns: Shape (K,), the column of each dataset class.
        is_masked: Whether to return the logits of the dataset's classes alone.

    Returns:
        Logits, shape (M, K) if masked, else (M, C); and the best of all C classes, shape (M,).

    Raises:
        ShapeError: If D differs, if values are not finite, or if a row of a head on unit rows is
            zero.
    """
    n_classes = len(head.classes)
    rest = np.setdiff1d(np.arange(n_classes), columns)
    order = np.concatenate([columns, rest])
    kept = len(columns) if is_masked else n_classes
    logits = np.empty((len(features), kept), dtype=np.float32)
    best = np.empty(len(features), dtype=np.int64)
    for rows in row_blocks(len(features), 8 * len(head.weights) + 20 * n_classes):
        block = head.logits(features[rows])[:, order].astype(np.float32)  # (m, C)
        logits[rows], best[rows] = block[:, :kept], block.argmax(axis=1)
    return logits, best
