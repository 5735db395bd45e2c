"""The tasks: what each needs and answers, and the tables it runs on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featcache.head_store import StoredHead
    from featcache.store.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFacts:
    """What a task needs, and what it answers."""

    name: str
    description: str
    primary: str
    """The metric that a table shows."""
    default_protocol: str
    options: str
    """`module:Class` of its options, light to import."""
    runner: str
    """`module:function` from (protocol, inputs) to an Outcome."""
    needs_train: bool = True
    needs_ood: bool = False
    needs_direction: bool = False
    """Whether rows are compared by cosine, which a zero row does not have."""


TASKS: Mapping[str, TaskFacts] = {
    facts.name: facts
    for facts in (
        TaskFacts(
            name="linear",
            description="Classify test images by logistic regression on the train features.",
            primary="top1",
            default_protocol="linear@1",
            options="featcache.probes.linear.options:LinearOptions",
            runner="featcache.probes.linear.task:run_linear",
        ),
        TaskFacts(
            name="gradient",
            description="Classify test images by linear heads trained by gradient descent.",
            primary="top1",
            default_protocol="gradient@1",
            options="featcache.probes.gradient.options:GradientOptions",
            runner="featcache.probes.gradient.task:run_gradient",
        ),
        TaskFacts(
            name="ridge",
            description="Classify test images by ridge regression on the train features.",
            primary="top1",
            default_protocol="ridge@1",
            options="featcache.probes.closed_form.options:RidgeOptions",
            runner="featcache.probes.closed_form.task:run_ridge",
        ),
        TaskFacts(
            name="lda",
            description="Classify test images by Gaussian classes that share a covariance.",
            primary="top1",
            default_protocol="lda@1",
            options="featcache.probes.closed_form.options:LdaOptions",
            runner="featcache.probes.closed_form.task:run_lda",
        ),
        TaskFacts(
            name="centroid",
            description="Classify test images by the nearest mean of a class's train images.",
            primary="top1",
            default_protocol="centroid@1",
            options="featcache.probes.closed_form.options:CentroidOptions",
            runner="featcache.probes.closed_form.task:run_centroid",
        ),
        TaskFacts(
            name="knn",
            description="Classify test images by a vote of their nearest train images.",
            primary="top1",
            default_protocol="knn@1",
            options="featcache.probes.knn.options:KnnOptions",
            runner="featcache.probes.knn.task:run_knn",
            needs_direction=True,
        ),
        TaskFacts(
            name="retrieval",
            description="Rank the other test images by similarity; same class is relevant.",
            primary="mean_average_precision",
            default_protocol="retrieval@1",
            options="featcache.probes.retrieval.options:RetrievalOptions",
            runner="featcache.probes.retrieval.task:run_retrieval",
            needs_direction=True,
            needs_train=False,
        ),
        TaskFacts(
            name="copydetection",
            description="Find copies of test images among train images, in one list of pairs.",
            primary="micro_ap",
            default_protocol="copydetection@1",
            options="featcache.probes.retrieval.copy_options:CopyOptions",
            runner="featcache.probes.retrieval.copy_task:run_copydetection",
            needs_direction=True,
        ),
        TaskFacts(
            name="clustering",
            description="Cluster test images without labels, and compare with the classes.",
            primary="ami",
            default_protocol="clustering@1",
            options="featcache.probes.clustering.options:ClusteringOptions",
            runner="featcache.probes.clustering.task:run_clustering",
            needs_direction=True,
            needs_train=False,
        ),
        TaskFacts(
            name="ood",
            description="Tell test images from those of other datasets, knowing only train.",
            primary="auroc",
            default_protocol="ood@1",
            options="featcache.probes.ood.options:OodOptions",
            runner="featcache.probes.ood.task:run_ood",
            needs_direction=True,
            needs_ood=True,
        ),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskInputs:
    """The feature tables of one run."""

    test: Table
    """Queries; for `ood` the in-distribution test rows."""
    train: Table | None = None
    ood: Mapping[str, Table] = field(default_factory=dict)
    """For `ood` the other datasets, by name."""
    head: StoredHead | None = None
    """A classifier that was there before: the network's own, a fitted one, or a text tower's."""
    seed: int = 0
    device: str = "cpu"
