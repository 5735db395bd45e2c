"""OpenOOD's tuning protocol: the grid point of the best AUROC on ID and OOD validation rows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from featcache.digest import Json
from featcache.probes.arrays import Features
from featcache.probes.ood.catalog import DETECTORS
from featcache.probes.ood.metrics import detection_metrics
from featcache.probes.ood.options import OodOptions

if TYPE_CHECKING:
    from featcache.probes.ood.detectors import Detectors


def tune(
    fitted: Detectors,
    detector: str,
    options: OodOptions,
    inside: Features,
    outside: Sequence[Features],
) -> tuple[dict[str, Json], list[list[Json]]]:
    """Choose a detector's hyper-parameters; the first of equal ones.

    Args:
        fitted: The detectors with their default hyper-parameters.
        detector: Which.
        options: The defaults.
        inside: ID validation rows, shape (V, D).
        outside: OOD validation rows of each tuning set, pooled.

    Returns:
        The chosen values, and each grid point with its AUROC; both empty where the detector has no
        grid.

    Source: OpenOOD v1.5, arXiv:2306.09301, `evaluation_api`.
    """
    grid = DETECTORS[detector].grid
    if grid is None:
        return {}, []
    tried: list[list[Json]] = []
    best: tuple[float, dict[str, Json]] = (-1.0, {})
    for values in itertools.product(*grid.values()):
        point = {
            name: type(getattr(options, name))(value)
            for name, value in zip(grid, values, strict=True)
        }
        one = fitted.with_options(replace(options, **point), [detector])
        theirs = np.concatenate([one.scores(rows)[detector] for rows in outside])
        auroc = detection_metrics(one.scores(inside)[detector], theirs)["auroc"]
        tried.append([point, auroc])
        if auroc > best[0]:
            best = (auroc, point)
    return best[1], tried
