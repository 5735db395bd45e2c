"""The task `fewshot`: from feature tables to an Outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from featcache.probes.fewshot.averages import average_draws
from featcache.probes.fewshot.classifiers import predict_from_shots
from featcache.probes.fewshot.draws import draw_shots
from featcache.probes.fewshot.options import FewshotOptions
from featcache.probes.tables import labelled_pair
from featcache.result_store import Outcome

if TYPE_CHECKING:
    from featcache.probes.protocol import Protocol
    from featcache.probes.tasks import TaskInputs


def run_fewshot(protocol: Protocol, inputs: TaskInputs) -> Outcome:
    """Fit a classifier on each draw of shots, and score the labelled test rows with each.

    Raises:
        ShapeError: If a side has no labelled rows, or if a class has too few.
    """
    options = cast(FewshotOptions, protocol.parsed_options())
    train, test, details = labelled_pair(inputs)
    draws = draw_shots(
        train.labels,
        train.ids,
        train.class_names,
        options.shots,
        n_draws=options.n_draws,
        seed=inputs.seed,
        allow_fewer=options.short_classes == "all",
    )
    predictions, strengths = {}, {}
    for n in options.shots:
        found = [
            predict_from_shots(
                train.features[one.rows[n]],
                train.labels[one.rows[n]],
                test.features,
                options,
                device=inputs.device,
            )
            for one in draws
        ]
        predictions[n] = np.stack([each for each, _ in found])
        strengths[str(n)] = [strength for _, strength in found]
    return average_draws(
        test,
        predictions,
        draws,
        primary=options.primary_shots,
        details={**details, "method": options.method, "strength_of_each_draw": strengths},
        seed=inputs.seed,
    )
