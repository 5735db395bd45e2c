"""Tip-Adapter without training: a text classifier, plus a vote of cached shots.

logits = text logits + α · exp(-β (1 - cosine to each shot)) summed over the shots of each class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featcache.probes.arrays import row_blocks


@dataclass(frozen=True, slots=True, kw_only=True)
class TipAdapter:
    """Shots and text, ready to score unit rows."""

    keys: NDArray[np.float64]
    """Shape (N, D), the shots, unit rows."""
    values: NDArray[np.float64]
    """Shape (N, C), one-hot labels of the shots."""
    text: NDArray[np.float64]
    """Shape (D, C), the text classifier, its scale folded in."""

    def logits(
        self, rows: NDArray[np.float64], *, alpha: float, beta: float
    ) -> NDArray[np.float64]:
        """Return the logits of unit rows, shape (M, D), as shape (M, C).

        Source: Zhang et al. 2021, arXiv:2111.03930, equation 4.
        """
        found = rows @ self.text
        for block in row_blocks(len(rows), 16 * len(self.keys)):
            nearness = rows[block] @ self.keys.T
            found[block] += alpha * np.exp(beta * (nearness - 1)) @ self.values
        return found


def tune(
    adapter: TipAdapter,
    rows: NDArray[np.float64],
    labels: NDArray[np.int64],
    *,
    alphas: Sequence[float],
    betas: Sequence[float],
) -> tuple[float, float, float]:
    """Return the α and β of the best accuracy on held-out rows, and that accuracy.

    Of equal accuracies the smaller β, then the smaller α: the ones nearest to the text alone.

    Args:
        adapter: Shots and text.
        rows: Held-out unit rows, shape (H, D), H >= 1.
        labels: Shape (H,), columns of the logits.
        alphas: Values to try, rising.
        betas: Values to try, rising.
    """
    by_text, nearness = rows @ adapter.text, rows @ adapter.keys.T
    best = (-1.0, 0.0, 0.0)
    for beta in betas:
        by_shots = np.exp(beta * (nearness - 1)) @ adapter.values
        for alpha in alphas:
            right = float(((by_text + alpha * by_shots).argmax(axis=1) == labels).mean())
            if right > best[0]:
                best = (right, alpha, beta)
    return best[1], best[2], best[0]
