"""Time to score full rankings, against a FAISS search of k = 100 and two other ways.

Usage: python -m benchmarks.retrieval [--queries N] [--gallery N] [--dim D] [--per-class N]
       [--device cpu|cuda] [--only NAME]

Full size: --queries 10000 --gallery 100000. Each way runs in a process of its own, so that its
peak memory is its own; features are in memory and libraries loaded before the clock starts.
"""

import argparse
import resource
import subprocess
import sys
import time

import numpy as np


def features(given):
    """Unit-variance classes around random centres, queries and gallery of the same classes."""
    rng = np.random.default_rng(0)
    n_classes = max(1, given.gallery // given.per_class)
    centres = rng.standard_normal((n_classes, given.dim), dtype=np.float32) * 0.3
    sides = []
    for n in (given.queries, given.gallery):
        labels = rng.integers(n_classes, size=n)
        rows = rng.standard_normal((n, given.dim), dtype=np.float32) + centres[labels]
        sides.append((rows, labels))
    return sides


def ours(given, queries, gallery):
    """Every metric of the full rankings, ties by id, similarities in float64."""
    from featcache.probes.retrieval.ranking import rank_gallery

    ranked = rank_gallery(
        *queries,
        *gallery,
        query_ids=np.array([f"q{i:08d}" for i in range(given.queries)]),
        gallery_ids=np.array([f"g{i:08d}" for i in range(given.gallery)]),
        k=(1, 5, 10),
        device=given.device,
    )
    return ranked.means()["mean_average_precision"]


def argsort(given, queries, gallery):
    """A full sort of float32 similarities in torch, query block by query block."""
    import torch

    def unit(rows):
        return torch.nn.functional.normalize(torch.from_numpy(rows).to(given.device), dim=1)

    asked, bank = unit(queries[0]), unit(gallery[0])
    labels = torch.from_numpy(gallery[1]).to(given.device)
    ranks = torch.arange(1, given.gallery + 1, dtype=torch.float64, device=given.device)
    total = 0.0
    for start in range(0, given.queries, 64):
        order = torch.argsort(asked[start : start + 64] @ bank.T, dim=1, descending=True)
        wanted = torch.from_numpy(queries[1][start : start + 64]).to(given.device)
        hit = labels[order] == wanted[:, None]
        precision = hit.cumsum(dim=1) / ranks * hit
        total += float((precision.sum(dim=1) / hit.sum(dim=1).clamp(min=1)).sum())
    return total / given.queries


def faiss_100(given, queries, gallery):
    """The search alone, flat, k = 100: no full ranking, so no full mAP."""
    import torch  # noqa: F401, I001  before faiss

    import faiss

    index = faiss.IndexFlatIP(given.dim)
    rows = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in (queries[0], gallery[0])]
    index.add(rows[1])
    found = index.search(rows[0], 100)[1]
    return float((gallery[1][found[:, 0]] == queries[1]).mean())


def metric_learning(given, queries, gallery):
    """pytorch-metric-learning's mAP over the full ranking."""
    import torch
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
    from pytorch_metric_learning.utils.inference import CustomKNN

    calculator = AccuracyCalculator(
        include=("mean_average_precision",),
        k=given.gallery,
        knn_func=CustomKNN(CosineSimilarity(), batch_size=64),
    )
    tensors = [torch.from_numpy(one).to(given.device) for one in (*queries, *gallery)]
    return calculator.get_accuracy(*tensors)["mean_average_precision"]


WAYS = {way.__name__: way for way in (ours, faiss_100, argsort, metric_learning)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--gallery", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--per-class", type=int, default=100)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", choices=list(WAYS))
    given = parser.parse_args()
    if given.only is None:
        print(f"{given.queries} queries, gallery {given.gallery} x {given.dim}, {given.device}")
        for name in WAYS:
            subprocess.run(
                [sys.executable, "-m", "benchmarks.retrieval", *sys.argv[1:], "--only", name],
                check=True,
            )
        return
    queries, gallery = features(given)
    small = argparse.Namespace(**{**vars(given), "queries": 16, "gallery": 300, "per_class": 10})
    WAYS[given.only](small, *features(small))  # imports and first calls are not timed
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, worked = time.perf_counter(), time.process_time()
    value = WAYS[given.only](given, queries, gallery)
    seconds, worked = time.perf_counter() - began, time.process_time() - worked
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{given.only:16} {seconds:8.2f} s  {given.queries / seconds:8.1f} queries/s  "
        f"CPU {worked:8.2f} s  "
        f"peak {peak / 2**20:.2f} GiB ({(peak - before) / 2**20:+.2f})  value {value:.6f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
