"""The task `clustering`: from a feature table to an Outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from featcache.probes.arrays import row_blocks, unit_rows
from featcache.probes.clustering.kmeans import kmeans
from featcache.probes.clustering.metrics import (
    agreement,
    contingency,
    matched,
    standard_intervals,
)
from featcache.probes.clustering.options import ClusteringOptions
from featcache.probes.tables import labelled
from featcache.result_store import Outcome

if TYPE_CHECKING:
    from featcache.probes.protocol import Protocol
    from featcache.probes.tasks import TaskInputs


def run_clustering(protocol: Protocol, inputs: TaskInputs) -> Outcome:
    """Cluster the labelled test rows without their labels, and compare.

    The run of least inertia counts, which needs no label; the spread over the restarts is in
    the details. Unlabelled rows are left out.

    Raises:
        ShapeError: If no test row has a label.
        OptionError: If there are more clusters than rows.
    """
    options = cast(ClusteringOptions, protocol.parsed_options())
    table = labelled(inputs.test, "test", in_id_order=True)
    rng = np.random.default_rng(inputs.seed)
    features = table.features
    if options.normalise == "l2":
        unit = np.empty(features.shape, dtype=np.float32)
        for block in row_blocks(len(table), 16 * features.shape[1]):
            unit[block] = unit_rows("test", features[block])
        features = unit
    n_classes = len(np.unique(table.labels))
    runs = kmeans(
        features,
        n_clusters=options.n_clusters or n_classes,
        restarts=options.restarts,
        max_iter=options.max_iter,
        rng=rng,
        device=inputs.device,
    )
    tried = [(run, contingency(table.labels, run.clusters)) for run in runs]
    best, counts = min(tried, key=lambda pair: pair[0].inertia)
    spread = [agreement(one)["ami"] for _, one in tried]
    classes = matched(counts)[0]
    used, number = np.unique(best.clusters, return_inverse=True)
    names = np.append(np.unique(table.labels), -1)  # -1: a cluster beyond the classes
    return Outcome(
        metrics=agreement(counts),
        primary="ami",
        n=len(table),
        predictions={
            "id": table.ids,
            "label": table.labels,
            "cluster": best.clusters,
            "matched_class": names[classes[number]],
        },
        intervals=standard_intervals(counts, rng),
        details={
            "n_clusters": options.n_clusters or n_classes,
            "n_classes": n_classes,
            "empty_clusters": (options.n_clusters or n_classes) - len(used),
            "restarts": [
                {"inertia": run.inertia, "ami": ami, "steps": run.steps}
                for (run, _), ami in zip(tried, spread, strict=True)
            ],
            "ami_spread_over_restarts": float(np.std(spread)),
            "is_converged": best.is_converged,
            "dropped_unlabelled_test": len(inputs.test) - len(table),
        },
    )
