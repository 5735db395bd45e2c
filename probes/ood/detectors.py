"""Detectors fitted once on the ID train rows, for any number of sets to be scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from featcache.digest import Json
from featcache.errors import ShapeError
from featcache.fit_store import Fit
from featcache.probes.arrays import (
    Features,
    check_features,
    check_labels,
    check_pair,
    distinct_rows,
    row_blocks,
    unit_rows,
)
from featcache.probes.linear.head import LinearHead
from featcache.probes.ood.block import Block
from featcache.probes.ood.catalog import DETECTORS
from featcache.probes.ood.options import OodOptions
from featcache.probes.ood.own_head import OwnHead
from featcache.probes.ood.shared import IdStatistics
from featcache.registry import load_target

if TYPE_CHECKING:
    import torch

    from featcache.head_store import StoredHead

Score = Callable[[Block], "torch.Tensor"]

_BLOCK_ROWS = 2048  # scored at a time: a product with the bank is then at its peak


@dataclass(frozen=True, slots=True, kw_only=True)
class Detectors:
    """Fitted detectors."""

    names: tuple[str, ...]
    shared: IdStatistics
    details: dict[str, Json]
    own: OwnHead | None
    """The head that was fitted on the train rows, now or earlier."""

    @property
    def head(self) -> LinearHead | None:
        """What the detectors take for the classifier."""
        return self.shared.head

    @property
    def fit(self) -> Fit:
        """What a further run on the same rows need not compute again."""
        own = Fit() if self.own is None else self.own.to_fit()
        return Fit(arrays={**self.shared.kept.arrays, **own.arrays}, details=own.details)

    def scores(self, features: Features) -> dict[str, NDArray[np.float64]]:
        """Score each row with each detector; larger means more in-distribution, equal rows tie.

        Args:
            features: Shape (M, D); no rows give empty scores.

        Returns:
            Shape (M,), float64, for each name.

        Raises:
            ShapeError: If D differs from the training rows, or if a row is zero or not finite.
        """
        if len(features):
            check_pair("features", features, "train", self.shared.features)
        functions: dict[str, Score] = {
            name: cast(Score, load_target(f"featcache.probes.ood.{DETECTORS[name].module}:{name}"))
            for name in self.names
        }
        # once each: a product's last bits can depend on where a row stands, and would rank equals
        places, inverse = distinct_rows(features)
        found = {name: np.empty(len(places)) for name in self.names}
        for rows in row_blocks(len(places), 1, _BLOCK_ROWS):
            values = features[places[rows]]
            if "knn" in self.names:
                unit_rows("features", values)  # a row without direction is an error
            block = Block(self.shared, self.shared.tensor(values), frozenset(self.names))
            for name, function in functions.items():
                found[name][rows] = function(block).cpu().numpy()
        return {name: scores[inverse] for name, scores in found.items()}

    def with_options(self, options: OodOptions, names: Sequence[str]) -> Detectors:
        """Return some of the detectors with other hyper-parameters, on the same statistics."""
        return replace(self, names=tuple(names), shared=self.shared.with_options(options))


def fit_detectors(
    features: Features,
    labels: NDArray[np.int64],
    options: OodOptions,
    rng: np.random.Generator,
    *,
    given: StoredHead | None = None,
    class_names: Sequence[str] = (),
    earlier: Fit | None = None,
    device: str = "cpu",
) -> Detectors:
    """Fit what the chosen detectors share; each statistic is computed when it is first read.

    Args:
        features: ID training features, shape (N, D), any float dtype.
        labels: Shape (N,), class indices from 0.
        options: Which detectors, and their parameters.
        rng: Draws the held-out rows on which the head's strength is chosen.
        given: A classifier that was there before; None: a linear probe is fitted on the rows.
        class_names: What the labels stand for, to find them among the columns of `given`.
        earlier: `Detectors.fit` of a run on the same rows, head options and seed; what it holds is
            not computed again.
        device: Torch device.

    Raises:
        ShapeError: If arrays do not fit together, are empty or not finite, or if `mcm` is asked
            for without a text head.
    """
    check_features("features", features)
    check_labels("labels", features, labels)
    head, temperature, text, columns = None, 1.0, None, None
    details: dict[str, Json] = {"direction": "larger scores mean more in-distribution"}
    earlier = earlier or Fit()
    own = None if given is not None else OwnHead.of_fit(earlier)
    if given is not None:
        head, columns = LinearHead.of_stored(given), _columns(given, class_names, labels)
        details["head"] = {"source": f"{given.kind} head", "key": given.key, **given.origin}
        if given.kind == "text":
            text = unit_rows("head", given.weights.T).T
    elif any(DETECTORS[name].needs_head for name in options.detectors):
        own = own or OwnHead.fitted(features, labels, options.head, rng, device=device)
        head, temperature = own.head, own.temperature
        columns = np.searchsorted(head.classes, labels)
        details["head"] = {"source": "linear probe on the ID train rows", **head.details}
        if "head_key" in earlier.details and not own.is_new:
            details["head_key"] = earlier.details["head_key"]
        if "temperature" in options.detectors:
            details["temperature"] = {"value": temperature, "is_capped": own.is_capped}
    _check_text(options, text is not None)
    shared = IdStatistics(
        features,
        labels,
        head,
        options,
        temperature=temperature,
        text=text,
        columns=columns,
        kept=earlier.arrays,
        device=device,
    )
    return Detectors(names=options.detectors, shared=shared, details=details, own=own)


def _columns(
    head: StoredHead, class_names: Sequence[str], labels: NDArray[np.int64]
) -> NDArray[np.int64] | None:
    """Return the head's column of each label; None if it lacks a class."""
    place = {name: column for column, name in enumerate(head.class_names)}
    place |= {name: column for column, name in enumerate(head.descriptions)}
    if not class_names or any(name not in place for name in class_names):
        return None
    return np.array([place[name] for name in class_names], dtype=np.int64)[labels]


def _check_text(options: OodOptions, has_text: bool) -> None:
    asked = [name for name in options.detectors if DETECTORS[name].needs_text]
    if asked and not has_text:
        raise ShapeError(
            f"{', '.join(asked)} must have a text head; got none. Give one with --head text, or "
            "leave it out of `detectors`."
        )
