"""The tasks: what each needs and answers, and the tables it runs on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featcache.fit_store import Fit
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
    """Whether rows are compared by cosine, which a zero row does not have; an options class with a
    `needs_direction` of its own decides for its task."""
    needs_head: str = ""
    """Kind of classifier it starts from: 'native', 'probe', 'text' or 'any'; '' for none."""
    needs_texts: bool = False
    """Whether it compares images with their captions."""
    takes_validation: bool = False
    """Whether hyper-parameters can be chosen on a validation split."""
    takes_head: bool = False
    """Whether it uses a classifier if one is given; one that needs a head takes one anyway."""
    fit_options: tuple[str, ...] = ()
    """Options that decide what it learns of train alone, if that is kept for further runs."""


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
            takes_validation=True,
        ),
        TaskFacts(
            name="multilabel",
            description="Rank test images for each of several classes an image may have.",
            primary="mean_average_precision",
            default_protocol="multilabel@1",
            options="featcache.probes.linear.options:MultilabelOptions",
            runner="featcache.probes.linear.task:run_multilabel",
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
            name="fewshot",
            description="Classify test images from a few train images per class, drawn repeatedly.",
            primary="top1",
            default_protocol="fewshot@1",
            options="featcache.probes.fewshot.options:FewshotOptions",
            runner="featcache.probes.fewshot.task:run_fewshot",
            needs_direction=True,
        ),
        TaskFacts(
            name="zeroshot",
            description="Classify test images by the names of the classes alone.",
            primary="top1",
            default_protocol="zeroshot@1",
            options="featcache.probes.fewshot.options:ZeroshotOptions",
            runner="featcache.probes.fewshot.text_task:run_zeroshot",
            needs_direction=True,
            needs_train=False,
            needs_head="text",
        ),
        TaskFacts(
            name="tipadapter",
            description="Classify test images by class names and a vote of a few train images.",
            primary="top1",
            default_protocol="tipadapter@1",
            options="featcache.probes.fewshot.options:TipAdapterOptions",
            runner="featcache.probes.fewshot.text_task:run_tipadapter",
            needs_direction=True,
            needs_head="text",
        ),
        TaskFacts(
            name="lpplusplus",
            description="Classify test images by a few-shot linear probe blended with class names.",
            primary="top1",
            default_protocol="lpplusplus@1",
            options="featcache.probes.fewshot.options:LpPlusPlusOptions",
            runner="featcache.probes.fewshot.text_task:run_lpplusplus",
            needs_direction=True,
            needs_head="text",
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
            name="imagetext",
            description="Find the captions of images, and the images of captions, by cosine.",
            primary="mean_recall",
            default_protocol="imagetext@1",
            options="featcache.probes.retrieval.text_options:ImageTextOptions",
            runner="featcache.probes.retrieval.text_task:run_imagetext",
            needs_direction=True,
            needs_train=False,
            needs_texts=True,
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
            takes_head=True,
            fit_options=("head",),
        ),
        TaskFacts(
            name="head",
            description="Classify test images by a classifier that was there before.",
            primary="top1",
            default_protocol="head@1",
            options="featcache.probes.heads.options:HeadOptions",
            runner="featcache.probes.heads.task:run_head",
            needs_train=False,
            needs_head="any",
        ),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskInputs:
    """The feature tables of one run."""

    test: Table
    """Queries; for `ood` the in-distribution test rows."""
    train: Table | None = None
    validation: Table | None = None
    """Rows to choose hyper-parameters on, where a dataset has a split for that."""
    ood: Mapping[str, Table] = field(default_factory=dict)
    """For `ood` the other datasets, by name."""
    head: StoredHead | None = None
    """A classifier that was there before: the network's own, a fitted one, or a text tower's."""
    texts: Table | None = None
    """Captions of test images, in the space of the image features; see `datasets.captions`."""
    pretraining: str = ""
    """What is said of the data that the backbone was trained on; '' if nothing is."""
    earlier: Fit | None = None
    """What a run with the same train rows kept, for a task with `fit_options`."""
    seed: int = 0
    device: str = "cpu"
