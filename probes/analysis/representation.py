"""All that is said of one set's geometry; only alignment looks at labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featcache.digest import Json
from featcache.errors import ShapeError
from featcache.probes.analysis.decomposition import Decomposed
from featcache.probes.analysis.measures import Measure, Measured, measure
from featcache.probes.analysis.options import AnalysisOptions
from featcache.probes.analysis.sampling import subsample
from featcache.probes.analysis.spectrum import (
    alpha_req,
    covariance_effective_rank,
    dead_dimensions,
    participation_ratio,
    rank_me,
)
from featcache.probes.analysis.sphere import alignment, mean_cosine, mean_norm, uniformity

PROPERTIES = (
    *("rank_me", "covariance_effective_rank", "participation_ratio", "alpha_req"),
    *("uniformity", "alignment", "mean_cosine", "mean_norm", "dead_dimensions"),
)
"""Names of what `representation` measures; none has a better direction in general."""


def representation(
    decomposed: Decomposed,
    labels: NDArray[np.int64],
    options: AnalysisOptions,
    rng: np.random.Generator,
) -> Measured:
    """Describe the spectrum of a set and how it lies on the sphere.

    Args:
        decomposed: Features of shape (N, D), with their decompositions.
        labels: Shape (N,); rows below 0 are left out of alignment.
        options: Parameters.
        rng: Draws the rows whose pairs uniformity sums.

    Returns:
        `PROPERTIES`, each with a value or a reason why it has none.
    """
    features, raw, centred = decomposed.features, decomposed.raw, decomposed.centred

    def slope() -> tuple[float, Json]:
        value, fitted = alpha_req(centred)
        return value, {"eigenvalues": list(fitted)}

    def uniform() -> tuple[float, Json]:
        chosen = subsample(len(features), options.pair_sample, rng)
        return uniformity(features[chosen]), {"rows": len(chosen)}

    def aligned() -> float:
        labelled = labels >= 0
        if not labelled.any():
            raise ShapeError("It needs labels; no row has one.")
        return alignment(features[labelled], labels[labelled])

    measures: dict[str, Measure] = {
        "rank_me": lambda: rank_me(raw),
        "covariance_effective_rank": lambda: covariance_effective_rank(centred),
        "participation_ratio": lambda: participation_ratio(centred),
        "alpha_req": slope,
        "uniformity": uniform,
        "alignment": aligned,
        "mean_cosine": lambda: mean_cosine(features),
        "mean_norm": lambda: mean_norm(features),
        "dead_dimensions": lambda: dead_dimensions(features),
    }
    return measure(measures)
