"""The tasks `ridge`, `lda` and `centroid`: from feature tables to an Outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from featcache.digest import Json
from featcache.probes.classification import Distribution, classification, decisions
from featcache.probes.closed_form.centroid import fit_centroids
from featcache.probes.closed_form.discriminant import fit_lda
from featcache.probes.closed_form.options import CentroidOptions, LdaOptions, RidgeOptions
from featcache.probes.closed_form.ridge_probe import fit_ridge
from featcache.probes.tables import labelled_pair
from featcache.result_store import Outcome

if TYPE_CHECKING:
    from featcache.probes.protocol import Protocol
    from featcache.probes.tasks import TaskInputs
    from featcache.store.table import Table


def run_ridge(protocol: Protocol, inputs: TaskInputs) -> Outcome:
    """Fit ridge regression on the labelled train rows, and score the labelled test rows.

    `score` is the regression's prediction for the predicted class, on the targets' scale.

    Raises:
        ShapeError: If a side has no labelled rows.
    """
    options = cast(RidgeOptions, protocol.parsed_options())
    train, test, details = labelled_pair(inputs)
    head = fit_ridge(train.features, train.labels, options, device=inputs.device)
    scores = head.logits(test.features)
    outcome = _decided(test, head.classes, scores, {**details, **head.details}, inputs.seed)
    return replace(outcome, head=head.kept(train.class_names))


def run_lda(protocol: Protocol, inputs: TaskInputs) -> Outcome:
    """Fit linear discriminant analysis on the labelled train rows; score labelled test rows.

    `confidence` is the posterior of the predicted class.

    Raises:
        ShapeError: If a side has no labelled rows.
    """
    options = cast(LdaOptions, protocol.parsed_options())
    train, test, details = labelled_pair(inputs)
    is_fixed = options.shrinkage == "fixed"
    head = fit_lda(
        train.features,
        train.labels,
        shrinkage=options.shrinkage_amount if is_fixed else options.shrinkage,
        priors=options.priors,
        device=inputs.device,
    )
    found = Distribution.of_logits(head.classes, head.logits(test.features))
    outcome = classification(test, found, details={**details, **head.details}, seed=inputs.seed)
    return replace(outcome, head=head.kept(train.class_names))


def run_centroid(protocol: Protocol, inputs: TaskInputs) -> Outcome:
    """Give each labelled test row the class of the nearest mean of labelled train rows.

    `score` is the cosine to that mean, or minus the distance.

    Raises:
        ShapeError: If a side has no labelled rows.
    """
    options = cast(CentroidOptions, protocol.parsed_options())
    train, test, details = labelled_pair(inputs)
    fitted = fit_centroids(
        train.features, train.labels, metric=options.metric, centre=options.centre
    )
    details["classes_in_train"] = len(fitted.classes)
    scores = fitted.scores(test.features)
    return _decided(test, fitted.classes, scores, details, inputs.seed)


def _decided(
    test: Table,
    classes: NDArray[np.int64],
    scores: NDArray[np.float64],
    details: Mapping[str, Json],
    seed: int,
) -> Outcome:
    """Predict the class of the largest score, the smaller index on a tie."""
    return decisions(
        test,
        classes[scores.argmax(axis=1)],
        scores.max(axis=1).astype(np.float32),
        details=details,
        seed=seed,
    )
