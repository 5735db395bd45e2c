"""LEEP, NCE and energy: scores that read what a classifier of the source task says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featcache.errors import OptionError, ShapeError
from featcache.probes.analysis.decomposition import class_sums, compact
from featcache.probes.arrays import Features, check_features, check_labels, to_float64, unit_rows

if TYPE_CHECKING:
    from featcache.head_store import StoredHead


def head_logits(features: Features, head: StoredHead) -> NDArray[np.float64]:
    """Return what a stored classifier says of each row, shape (N, C), scale included.

    Raises:
        ShapeError: If D differs, if a row is not finite, or if one that needs a direction is zero.
    """
    check_features("features", features)
    if features.shape[1] != len(head.weights):
        raise ShapeError(
            f"The head must read rows of {features.shape[1]} dimensions; its weights are of shape "
            f"{head.weights.shape}. Use the tap that the head was made for, {head.tap!r}."
        )
    rows = (unit_rows if head.is_unit_norm else to_float64)("features", features)
    return np.asarray(head.scale * (rows @ head.weights.astype(np.float64) + head.bias))


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return probabilities, shape (N, C); the largest logit is subtracted first."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def leep(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Return LEEP: the mean log likelihood of labels through the source classes.

    Mean over rows of log Σ_z P(y | z) θ_z(x), with P(y, z) the mean of θ_z over rows of class y.
    At most 0; a single class gives 0. Source classes that no row has count nothing.

    Args:
        probabilities: θ, shape (N, Z), rows summing to 1.
        labels: Shape (N,), class indices from 0.

    Raises:
        ShapeError: If arrays do not fit.

    Source: Nguyen et al. 2020, arXiv:2002.12462; with the log, which some re-implementations drop.
    """
    check_labels("labels", probabilities, labels)
    columns = compact(labels)
    joint = class_sums(probabilities, columns)  # (C, Z), times N
    marginal = joint.sum(axis=0)
    conditional = np.divide(joint, marginal, out=np.zeros_like(joint), where=marginal > 0)
    likelihoods = np.einsum("nz,nz->n", probabilities, conditional[columns])
    return float(np.log(likelihoods).mean())


def negative_conditional_entropy(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64]
) -> float:
    """Return NCE = -H(Y | Z), with z the most probable source class of a row.

    At most 0; a single class gives 0. Equal probabilities go to the smaller index. Nothing is
    added to counts: an empty cell contributes 0, the limit of p log p.

    Args:
        probabilities: Shape (N, Z), or logits: only their order counts.
        labels: Shape (N,), class indices from 0.

    Raises:
        ShapeError: If arrays do not fit.

    Source: Tran et al. 2019, arXiv:1908.08142.
    """
    check_labels("labels", probabilities, labels)
    columns = compact(labels)
    joint = np.zeros((int(columns.max()) + 1, probabilities.shape[1]))
    np.add.at(joint, (columns, probabilities.argmax(axis=1)), 1.0)
    marginal = np.broadcast_to(joint.sum(axis=0), joint.shape)
    filled = joint > 0
    logs = np.log(joint[filled] / marginal[filled])
    return float((joint[filled] * logs).sum() / len(labels))


def energy(logits: NDArray[np.float64], *, share: float) -> float:
    """Return the mean of logsumexp over the rows where it is lowest, ETran's energy part.

    Args:
        logits: Shape (N, Z), N >= 1.
        share: Of the rows, in (0, 1]; rounded up to a whole row.

    Raises:
        OptionError: If `share` is out of range.

    Source: Gholami et al. 2023, arXiv:2308.02027 (lowest 0.5 %).
    """
    if not 0 < share <= 1:
        raise OptionError(f"`share` must be above 0 and at most 1; got {share!r}. Take 0.005.")
    largest = logits.max(axis=1)
    values = largest + np.log(np.exp(logits - largest[:, None]).sum(axis=1))
    return float(np.sort(values)[: int(np.ceil(share * len(values)))].mean())
