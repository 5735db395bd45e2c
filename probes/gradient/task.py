"""The task `gradient`: from feature tables to an Outcome."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from featcache.probes.classification import Distribution, classification
from featcache.probes.gradient.options import GradientOptions
from featcache.probes.gradient.probe import fit_gradient
from featcache.probes.tables import labelled_pair, present
from featcache.result_store import Outcome

if TYPE_CHECKING:
    from featcache.probes.protocol import Protocol
    from featcache.probes.tasks import TaskInputs
    from featcache.store.table import Table


def run_gradient(protocol: Protocol, inputs: TaskInputs) -> Outcome:
    """Train heads on the labelled train rows, and score the chosen one on labelled test rows.

    Raises:
        ShapeError: If a side has no labelled rows.
    """
    options = cast(GradientOptions, protocol.parsed_options())
    source = present(inputs.train)
    numbered, test, details = labelled_pair(dataclasses.replace(inputs, train=_numbered(source)))
    rows = numbered.features[:, 0].astype(np.intp)
    head = fit_gradient(
        source.features,
        numbered.labels,
        options,
        np.random.default_rng(inputs.seed),
        rows=rows,
        test=(test.features, test.labels) if options.selection == "test" else None,
        device=inputs.device,
    )
    found = Distribution.of_logits(head.classes, head.logits(test.features))
    outcome = classification(test, found, details={**details, **head.details}, seed=inputs.seed)
    return dataclasses.replace(outcome, head=head.kept(test.class_names))


def _numbered(table: Table) -> Table:
    """Return the table with the row number as only feature, so that sorting it copies no more."""
    numbers: NDArray[np.float64] = np.arange(len(table), dtype=np.float64)
    return dataclasses.replace(table, features=numbers[:, None])
