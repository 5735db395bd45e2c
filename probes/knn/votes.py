"""How neighbours vote: weights from scores, and the shares of the classes.

- exp_sim: exp(s / T). Wu et al. 2018, arXiv:1805.01978, section 3.4; DINO's `eval_knn.py`.
- softmax_topmax: the same, but shares are of the vote of the longest list that was asked for, as
  DINOv2's `eval/knn.py` takes a softmax over it before it cuts to k. Its predictions are those of
  exp_sim for each k; its shares sum to less than 1 for all k but the largest.
- inv_dist: 1 / (d + T), Euclidean; stable-pretraining's `callbacks/knn.py`.
- uniform: one each. Cover & Hart 1967; scikit-learn's `KNeighborsClassifier`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from featcache.errors import OptionError, ShapeError
from featcache.probes.options import check_choice

if TYPE_CHECKING:
    from featcache.probes.knn.space import Metric

Vote = Literal["exp_sim", "softmax_topmax", "inv_dist", "uniform"]
VOTES: tuple[Vote, ...] = ("exp_sim", "softmax_topmax", "inv_dist", "uniform")


def check_vote(vote: Vote, metric: Metric) -> None:
    """Refuse a vote that cannot use a metric's scores.

    Raises:
        OptionError: If the vote is unknown, weighs similarities and the metric gives distances,
            or the other way round.
    """
    check_choice("vote", vote, VOTES)
    needs_distance = vote == "inv_dist"
    if vote != "uniform" and needs_distance != (metric == "euclidean"):
        wanted = "euclidean" if needs_distance else "cosine or dot"
        raise OptionError(
            f"`metric` must be {wanted} for the vote {vote!r}; got {metric!r}. "
            "Choose another vote or metric."
        )


def vote_weights(
    scores: NDArray[np.floating], vote: Vote, temperature: float
) -> NDArray[np.float64]:
    """Return what each neighbour's vote weighs.

    Args:
        scores: Shape (M, k), the nearest first: similarities, or minus distances for `inv_dist`.
        vote: See the module.
        temperature: Positive; `uniform` has no use for it.

    Returns:
        Shape (M, k). For `exp_sim` and `softmax_topmax` relative to the nearest neighbour, so
        that no exponential overflows.
    """
    wide = scores.astype(np.float64)
    if vote == "uniform":
        return np.ones_like(wide)
    if vote == "inv_dist":
        return np.asarray(1 / (temperature - wide))
    wide -= wide.max(axis=1, keepdims=True, initial=-np.inf)
    wide /= temperature
    return np.asarray(np.exp(wide, out=wide))


def class_votes(
    weights: NDArray[np.float64], labels: NDArray[np.int64], n_classes: int
) -> NDArray[np.float64]:
    """Sum the weights of the neighbours of each class.

    Args:
        weights: Shape (M, k).
        labels: Shape (M, k), the neighbours' classes.
        n_classes: Columns of the result.

    Returns:
        Shape (M, C). The prediction is the first largest: equal votes go to the smaller class.
    """
    cells = labels + n_classes * np.arange(len(labels))[:, None]
    sums = np.bincount(cells.ravel(), weights.ravel(), minlength=n_classes * len(labels))
    return np.asarray(sums.reshape(len(labels), n_classes))


def multilabel_shares(
    weights: NDArray[np.float64], rows: NDArray[np.int64], labels: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Return for each class the share of the vote that comes from neighbours that have it.

    Classes are scored one by one, so shares do not sum to 1; an mAP ranks queries by them.

    Args:
        weights: Shape (M, k), not all zero in a line.
        rows: Shape (M, k), the neighbours.
        labels: Shape (N, C), which classes each row of the bank has; none is allowed.

    Returns:
        Shape (M, C), between 0 and 1.

    Raises:
        ShapeError: If the arrays do not fit together.
    """
    from scipy.sparse import csr_array

    if weights.shape != rows.shape or labels.ndim != 2 or rows.max(initial=-1) >= len(labels):
        raise ShapeError(
            "`weights` and `rows` must have one shape, and `labels` a line for each row; got "
            f"shapes {weights.shape}, {rows.shape} and {labels.shape}. Pass labels of the bank."
        )
    n_queries, k = rows.shape
    parts = weights / weights.sum(axis=1, keepdims=True)
    ends = np.arange(0, n_queries * k + 1, k) if k else np.zeros(n_queries + 1, dtype=np.int64)
    votes = csr_array((parts.ravel(), rows.ravel(), ends), shape=(n_queries, len(labels)))
    shares = votes @ labels.astype(np.float32)
    return np.asarray(np.minimum(shares, 1), dtype=np.float32)
