"""Out-of-distribution detectors on cached features; larger scores mean more in-distribution.

- msp: log of the largest softmax probability. The log ranks as the probability does, but does
  not saturate at 1.
- maxlogit: the largest logit.
- energy: T · logsumexp(logits / T).
- mahalanobis: minus the squared distance to the nearest class mean, tied covariance.
- knn: minus the squared distance to the k-th nearest training row, unit-norm features; k is at
  most a share of the mean class size.

The first three need a classification head. A frozen backbone has none for the ID classes, so a
linear probe is fitted on the ID training rows, and its provenance goes into the details.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featcache.digest import Json
from featcache.probes.arrays import Features, check_features, check_labels
from featcache.probes.knn.neighbours import nearest_rows
from featcache.probes.linear.head import LinearHead
from featcache.probes.linear.probe import fit_linear
from featcache.probes.ood.mahalanobis import Mahalanobis, fit_mahalanobis
from featcache.probes.ood.options import OodOptions

_NEED_HEAD = {"msp", "maxlogit", "energy"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Detectors:
    """Detectors fitted once on the ID training rows, for any number of OOD sets."""

    options: OodOptions
    bank: Features
    """Shape (N, D), the rows that `knn` searches."""
    head: LinearHead | None
    mahalanobis: Mahalanobis | None
    k: int
    """Neighbours that `knn` counts, at most as many as asked for."""
    device: str
    details: dict[str, Json]

    def scores(self, features: Features) -> dict[str, NDArray[np.float64]]:
        """Score each row with each detector; larger means more in-distribution.

        Args:
            features: Shape (M, D); no rows give empty scores.

        Returns:
            Shape (M,), float64, for each name in `options.detectors`.

        Raises:
            ShapeError: If D differs from the training rows, or if a row is zero or not finite.
        """
        found: dict[str, NDArray[np.float64]] = {}
        if self.head is not None:
            found |= logit_scores(self.head.logits(features), self.options.temperature)
        if self.mahalanobis is not None:
            found["mahalanobis"] = -self.mahalanobis.distances(features)
        if "knn" in self.options.detectors:
            similarity, _ = nearest_rows(self.bank, features, k=self.k, device=self.device)
            found["knn"] = 2 * similarity[:, -1].astype(np.float64) - 2  # -‖a - b‖², unit rows
        return {name: found[name] for name in self.options.detectors}


def fit_detectors(
    features: Features,
    labels: NDArray[np.int64],
    options: OodOptions,
    rng: np.random.Generator,
    *,
    device: str = "cpu",
) -> Detectors:
    """Fit what the chosen detectors share: a head, class means with a covariance, a bank.

    Args:
        features: ID training features, shape (N, D), any float dtype.
        labels: Shape (N,), class indices from 0.
        options: Which detectors, and their parameters.
        rng: Draws the held-out rows on which the head's strength is chosen.
        device: Torch device of the head's solver, and where FAISS searches.

    Raises:
        ShapeError: If arrays do not fit together, are empty or not finite.
    """
    check_features("features", features)
    check_labels("labels", features, labels)
    details: dict[str, Json] = {"direction": "larger scores mean more in-distribution"}
    head = mahalanobis = None
    if _NEED_HEAD & set(options.detectors):
        head = fit_linear(features, labels, options.head, rng, device=device)
        details["head"] = {"source": "linear probe on the ID train rows", **head.details}
    if "mahalanobis" in options.detectors:
        mahalanobis = fit_mahalanobis(features, labels, eigenvalue_floor=options.eigenvalue_floor)
        details["mahalanobis"] = {
            "eigenvalue_floor": options.eigenvalue_floor,
            "floored_eigenvalues": mahalanobis.n_floored,
        }
    share = options.k_class_share * len(features) / len(np.unique(labels))
    k = min(options.k, len(features), max(1, round(share)))
    if "knn" in options.detectors:
        details["knn"] = {"k": k, "k_asked": options.k}
    return Detectors(
        options=options,
        bank=features,
        head=head,
        mahalanobis=mahalanobis,
        k=k,
        device=device,
        details=details,
    )


def logit_scores(
    logits: NDArray[np.float64], temperature: float = 1.0
) -> dict[str, NDArray[np.float64]]:
    """Return `msp`, `maxlogit` and `energy` of logits of shape (M, C), each of shape (M,).

    Args:
        logits: Shape (M, C), C >= 1.
        temperature: Of the energy alone; positive.

    Source: arXiv:1610.02136 (MSP), 1911.11132 (MaxLogit), 2010.03759 (energy).
    """
    largest = logits.max(axis=1)
    shifted = logits - largest[:, None]
    return {
        "msp": -np.log(np.exp(shifted).sum(axis=1)),
        "maxlogit": largest,
        "energy": largest + temperature * np.log(np.exp(shifted / temperature).sum(axis=1)),
    }
