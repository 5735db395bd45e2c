"""All transferability scores of one set, beside the cheap probes they must beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featcache.digest import Json
from featcache.errors import ShapeError
from featcache.probes.analysis.baselines import knn_accuracy, ridge_accuracy
from featcache.probes.analysis.bhattacharyya import Covariance, gaussian_overlap
from featcache.probes.analysis.coding_rate import trans_rate
from featcache.probes.analysis.decomposition import (
    Decomposed,
    decompose,
    principal_components,
)
from featcache.probes.analysis.dissimilarity import parc
from featcache.probes.analysis.evidence import logme
from featcache.probes.analysis.fisher import sfda
from featcache.probes.analysis.h_score import h_score, shrunk_h_score
from featcache.probes.analysis.measures import Measure, Measured, measure
from featcache.probes.analysis.mixture import n_leep
from featcache.probes.analysis.options import AnalysisOptions
from featcache.probes.analysis.sampling import subsample
from featcache.probes.analysis.source_head import (
    energy,
    head_logits,
    leep,
    negative_conditional_entropy,
    softmax,
)
from featcache.probes.arrays import Features

if TYPE_CHECKING:
    from featcache.head_store import StoredHead

BASELINES = ("knn_loo", "ridge_loo")
"""Leave-one-out accuracies, which every score must beat to be worth its name."""
SCORES = (
    *("logme", "h_score", "h_score_shrunk", "trans_rate", "gbc_diagonal", "gbc_spherical"),
    *("parc", "sfda", "n_leep"),
)
HEAD_SCORES = ("leep", "nce", "energy")
"""They read a classifier of the source task."""

_NO_LABELS = "It needs labels; no row has one."


def transferability(
    decomposed: Decomposed,
    labels: NDArray[np.int64],
    options: AnalysisOptions,
    rng: np.random.Generator,
    *,
    head: StoredHead | None = None,
    device: str = "cpu",
) -> Measured:
    """Score how well features suit the labels; larger is better in all, and none is an accuracy.

    Baselines are accuracies, on the same rows and leave-one-out.

    Args:
        decomposed: Features of shape (N, D), with their decompositions.
        labels: Shape (N,), class indices from 0; rows below 0 have none and are left out.
        options: Parameters of the scores.
        rng: Draws the rows of PARC and the start of N-LEEP.
        head: The network's own classifier, for LEEP, NCE and energy; without it they are skipped.
        device: Torch and FAISS device of the baselines.

    Returns:
        `BASELINES`, `SCORES` and `HEAD_SCORES`, each with a value or a reason why it has none.

    Raises:
        ShapeError: If there is not one label per row.
    """
    if labels.shape != (len(decomposed.features),):
        raise ShapeError(
            f"`labels` must hold one label per row; got shape {labels.shape} for "
            f"{len(decomposed.features)} rows. Pass labels and features of the same rows."
        )
    labelled = labels >= 0
    if not labelled.any():
        names = (*BASELINES, *SCORES, *HEAD_SCORES)
        return Measured(values={}, skipped=dict.fromkeys(names, _NO_LABELS))
    if not labelled.all():
        decomposed, labels = Decomposed.of(decomposed.features[labelled]), labels[labelled]
    rows = decomposed.features
    measures = {
        **_baselines(rows, labels, options, device),
        **_scores(decomposed, labels, options, rng),
        **_head_scores(rows, labels, head, options),
    }
    return measure(measures)


def _baselines(
    rows: Features, labels: NDArray[np.int64], options: AnalysisOptions, device: str
) -> dict[str, Measure]:
    def ridge() -> tuple[float, Json]:
        accuracy, strength = ridge_accuracy(rows, labels, device=device)
        return accuracy, {"strength": strength}

    return {
        "knn_loo": lambda: knn_accuracy(
            rows, labels, k=options.neighbours, temperature=options.temperature, device=device
        ),
        "ridge_loo": ridge,
    }


def _scores(
    decomposed: Decomposed,
    labels: NDArray[np.int64],
    options: AnalysisOptions,
    rng: np.random.Generator,
) -> dict[str, Measure]:
    parc_rng, mixture_rng = rng.spawn(2)
    rows, raw, centred = decomposed.features, decomposed.raw, decomposed.centred

    def shrunk() -> tuple[float, Json]:
        value, amount = shrunk_h_score(centred, labels)
        return value, {"shrinkage": amount}

    def overlap(covariance: Covariance) -> float:
        reduced = principal_components(centred, options.bhattacharyya_dims)
        return gaussian_overlap(reduced, labels, covariance=covariance)

    def ranked() -> tuple[float, Json]:
        chosen = subsample(len(rows), options.pair_sample, parc_rng)
        some = centred if len(chosen) == len(rows) else decompose(rows[chosen], centre=True)
        return parc(some, labels[chosen], dims=options.parc_dims), {"rows": len(chosen)}

    def fisher() -> tuple[float, Json]:
        value, shrinkage = sfda(centred, labels)
        return value, {"shrinkage": shrinkage}

    def mixture() -> tuple[float, Json]:
        value, is_converged = n_leep(
            centred,
            labels,
            mixture_rng,
            components_per_class=options.mixture_components,
            variance=options.mixture_variance,
            operations=options.mixture_operations,
        )
        return value, {"converged": is_converged}

    return {
        "logme": lambda: logme(raw, labels),
        "h_score": lambda: h_score(centred, labels),
        "h_score_shrunk": shrunk,
        "trans_rate": lambda: trans_rate(rows, labels, epsilon=options.epsilon),
        "gbc_diagonal": lambda: overlap("diagonal"),
        "gbc_spherical": lambda: overlap("spherical"),
        "parc": ranked,
        "sfda": fisher,
        "n_leep": mixture,
    }


def _head_scores(
    rows: Features,
    labels: NDArray[np.int64],
    head: StoredHead | None,
    options: AnalysisOptions,
) -> dict[str, Measure]:
    def logits() -> NDArray[np.float64]:
        if head is None or head.kind != "native":
            got = "none is given" if head is None else f"got one of kind {head.kind!r}"
            raise ShapeError(f"It reads the network's own classifier; {got}.")
        return head_logits(rows, head)

    return {
        "leep": lambda: leep(softmax(logits()), labels),
        "nce": lambda: negative_conditional_entropy(logits(), labels),
        "energy": lambda: energy(logits(), share=options.energy_share),
    }
