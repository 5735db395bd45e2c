"""What a view of the features changes in a score, sample by sample."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from featcache.digest import Json
from featcache.result_store import Outcome, Result
from featcache.statistics import bootstrap_mean_interval


def change_against(baseline: Result, outcome: Outcome, seed: int) -> dict[str, Json]:
    """Compare an outcome with a stored result on the same samples.

    Args:
        baseline: The result with the features as they were extracted.
        outcome: The result with a view of them.
        seed: Of the bootstrap.

    Returns:
        `against`, the baseline's id; `metrics`, each metric's difference, positive where the view
        is better; `interval`, the 95 % paired bootstrap interval of the primary metric's
        difference, None where it is not a mean over samples.
    """
    old = baseline.record["metrics"]
    differences = {
        name: value - old[name] for name, value in outcome.metrics.items() if name in old
    }
    before = _per_sample(baseline.predictions(), outcome.primary)
    after = _per_sample(outcome.predictions, outcome.primary)
    interval = None
    if before is not None and after is not None and len(before) == len(after):
        interval = list(bootstrap_mean_interval(after - before, np.random.default_rng(seed)))
    return {"against": baseline.id, "metrics": differences, "interval": interval}


def _per_sample(
    columns: Mapping[str, NDArray[np.generic]], primary: str
) -> NDArray[np.float64] | None:
    """Return what the primary metric is the mean of; None if it is not a mean."""
    if "prediction" in columns:
        right = np.equal(columns["prediction"], columns["label"])
        return np.asarray(right, np.float64)
    if "share_right" in columns and primary == "top1":
        return np.asarray(columns["share_right"], np.float64)
    if "average_precision" in columns and primary == "mean_average_precision":
        return np.asarray(columns["average_precision"], np.float64)
    return None
