"""The main job on embedded data and real weights, offline: extract, probe, rank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from featcache.extraction.options import Extracted
from featcache.extraction.progress import Progress
from featcache.result_store import Result
from featcache.verbs.extract import extract
from featcache.verbs.probe import probe

BACKBONES = ("efficientnet_lite0", "efficientnet_lite1", "random:tf_efficientnet_lite0", "pixels")
DATASETS = ("digits?rows=200", "textures?rows=200")
"""Rows per split, so that 2 processor cores need less than two minutes."""
TASKS = ("linear", "knn", "retrieval", "ood")


@dataclass(frozen=True, slots=True)
class Step:
    """One finished step: either feature sets or a result."""

    name: str
    extracted: tuple[Extracted, ...] = ()
    result: Result | None = None


def run(cache: Path | str | None, progress: Progress) -> Iterator[Step]:
    """Extract both datasets with all backbones, then run every task; yield each step.

    For 'ood', each dataset in turn is in-distribution and the other is to be told apart.
    """
    for backbone in BACKBONES:
        for dataset in DATASETS:
            done = extract(backbone=backbone, dataset=dataset, cache=cache, progress=progress)
            yield Step(f"{backbone} on {dataset}", extracted=tuple(done))
    for backbone in BACKBONES:
        for dataset in DATASETS:
            others = tuple(other for other in DATASETS if other != dataset)
            for task in TASKS:
                result, _ = probe(
                    backbone=backbone,
                    dataset=dataset,
                    task=task,
                    ood_datasets=others if task == "ood" else (),
                    cache=cache,
                )
                yield Step(f"{task} of {backbone} on {dataset}", result=result)
