"""The classifiers of few shots: from rows and labels to predictions of the test rows."""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

from featcache.probes.arrays import Features
from featcache.probes.closed_form.centroid import fit_centroids
from featcache.probes.closed_form.options import RidgeOptions
from featcache.probes.closed_form.ridge_probe import fit_big_vision, fit_ridge
from featcache.probes.fewshot.options import FewshotOptions
from featcache.probes.linear.options import LinearOptions
from featcache.probes.linear.probe import fit_linear


def predict_from_shots(
    features: Features,
    labels: NDArray[np.int64],
    queries: Features,
    options: FewshotOptions,
    *,
    device: str = "cpu",
) -> tuple[NDArray[np.int64], float | None]:
    """Fit the chosen classifier on the shots, and classify the queries.

    Nothing is tuned on the queries, and nothing is random. Of equal scores the smaller class index
    is predicted.

    Args:
        features: Shots, shape (N, D), any float dtype.
        labels: Shape (N,), class indices from 0.
        queries: Shape (M, D).
        options: Which classifier.
        device: Torch device of the solvers.

    Returns:
        Class indices, shape (M,), and the strength of the penalty: C of `logistic`, the penalty
        of the two ridges, None of `centroid`.

    Raises:
        ShapeError: If arrays do not fit together, are empty or not finite.
    """
    if options.method == "centroid":
        fitted = fit_centroids(features, labels, metric="cosine", centre=True)
        return np.asarray(fitted.classes[fitted.scores(queries).argmax(axis=1)]), None
    if options.method == "big_vision":
        head = fit_big_vision(features, labels, l2_reg=options.strength, device=device)
    elif options.method == "ridge":
        head = fit_ridge(features, labels, RidgeOptions(), device=device)
    else:
        fixed = LinearOptions(
            strengths=(options.strength,),
            standardise=options.standardise,
            binary=options.binary,
        )
        head = fit_linear(features, labels, fixed, np.random.default_rng(0), device=device)
    found = np.asarray(head.classes[head.logits(queries).argmax(axis=1)])
    return found, cast(float, head.details["strength"])
