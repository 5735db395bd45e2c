"""Where a detector's assumption fails, and which OOD sets a backbone may have been trained on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featcache.digest import Json
from featcache.probes.ood.catalog import DETECTORS
from featcache.registry import read_yaml

if TYPE_CHECKING:
    from featcache.probes.ood.detectors import Detectors

_TIED = 0.05  # share of test rows at one score from which a detector is called saturated


def assumptions(
    fitted: Detectors, inside: Mapping[str, NDArray[np.float64]], known: Mapping[str, Json]
) -> dict[str, Json]:
    """Return `warnings`, a list of sentences, and the numbers of single detectors.

    Args:
        fitted: After it has scored something.
        inside: Scores of the ID test rows, by detector.
        known: OOD set to why the backbone may know its classes, as `contaminated` gives it.
    """
    shared = fitted.shared
    said = [f"The backbone may know {name}: {why}" for name, why in known.items() if why]
    shaped = [name for name in fitted.names if DETECTORS[name].needs_positive]
    if shaped and (lowest := shared.patterns.lowest) < 0:
        said.append(
            f"{', '.join(shaped)} were made for activations that are never negative; the smallest "
            f"train activation is {lowest:.3g}."
        )
    found: dict[str, Json] = {}
    if "mahalanobis" in fitted.names:
        floored = shared.within_whitener[1]
        found["mahalanobis"] = {
            "eigenvalue_floor": shared.options.eigenvalue_floor,
            "floored_eigenvalues": floored,
        }
        if floored:
            said.append(
                f"The covariance is singular: {floored} of {shared.dim} eigenvalues were raised to "
                "the floor, so Mahalanobis distances rest on it."
            )
    if "knn" in fitted.names:
        found["knn"] = {"k": shared.k, "k_asked": shared.options.k}
        if shared.k < shared.options.k:
            said.append(
                f"knn looks at {shared.k} neighbours, not {shared.options.k}: classes are small."
            )
    for name, scores in inside.items():
        _, counts = np.unique(scores, return_counts=True)
        if len(scores) > 1 and counts.max() > max(1, _TIED * len(scores)):
            said.append(f"{name} gives {counts.max()} of {len(scores)} test rows one score.")
    return {"warnings": said, **found}


def contaminated(
    pretraining: str, known: Mapping[str, Json], ood_datasets: Sequence[str]
) -> dict[str, Json]:
    """Return for each OOD set why the backbone may know its classes; None where nothing is known.

    Args:
        pretraining: What is said of the backbone's training data, its name included; '' if nothing.
        known: OOD set to a reason that somebody found out; it goes before the table.
        ood_datasets: Names of the sets.
    """
    return {
        name: known.get(name) or contamination(pretraining, name) or None for name in ood_datasets
    }


def contamination(pretraining: str, ood_dataset: str) -> str:
    """Return why a backbone may know an OOD set's classes; '' if nothing is known.

    Args:
        pretraining: Names what it was trained on, such as `ImageNet-21k, then ImageNet-1k`.
        ood_dataset: Name of the OOD set, such as `ssb_hard` or `torchvision:DTD`.

    Source: The table `contamination.yaml`.
    """
    file = resources.files("featcache.probes.ood") / "contamination.yaml"
    said, asked = _plain(pretraining), _plain(re.split("[:/]", ood_dataset)[-1])
    for row in read_yaml(file.read_text(encoding="utf-8")):
        if asked in row["ood"] and any(part in said for part in row["pretraining"]):
            return str(row["why"])
    return ""


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")
