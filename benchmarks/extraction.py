"""Extraction against a bare forward loop: same network, same batch size, same run.

Usage: python -m benchmarks.extraction [--backbone NAME] [--rows N] [--rounds N] [--batch-size N]

The bare loop embeds batches that lie ready in memory: no decoding, no checks, no disk. It has the
same memory allocator settings as featcache; "plain" is the same loop without them, measured first.
Rounds alternate, because machines are noisy; the ratio of the medians is what counts.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from featcache.backbones.factory import load_backbone
from featcache.datasets.catalog import open_dataset
from featcache.datasets.memo import FileDigestMemo
from featcache.extraction.allocator import keep_freed_memory
from featcache.extraction.options import Options
from featcache.extraction.progress import Silent
from featcache.extraction.run import Extraction
from featcache.spec import ExtractionSpec
from featcache.store.cache import Cache


def bare(backbone, batch, n_batches):
    began = time.perf_counter()
    for _ in range(n_batches):
        backbone.embed(batch, ["pooled"])["pooled"].cpu().numpy()
    return n_batches * len(batch) / (time.perf_counter() - began)


def extract(backbone, split, spec, options, root):
    began = time.perf_counter()
    Extraction(Cache(root), split, backbone, [spec], options, Silent()).run({})
    return len(split) / (time.perf_counter() - began)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--dataset", default="fashion-mnist")
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    options = Options(device=given.device, batch_size=given.batch_size)
    backbone = load_backbone(given.backbone)
    split = open_dataset(f"{given.dataset}?rows={given.rows}").load("train")
    spec = ExtractionSpec(
        dataset=split.identity(FileDigestMemo(None)),
        backbone=backbone.identity,
        transform=backbone.transform.spec,
        tap="pooled",
    )
    device = "cuda" if given.device == "auto" and torch.cuda.is_available() else "cpu"
    backbone.to(device)
    batch = torch.stack(
        [backbone.transform(split.images.read(row)) for row in range(given.batch_size)]
    ).to(device)
    n_batches = max(1, given.rows // given.batch_size)
    bare(backbone, batch, 4)
    speeds = {"plain": [bare(backbone, batch, max(1, n_batches // 4))]}
    if device == "cpu":
        keep_freed_memory()
    bare(backbone, batch, 4)
    speeds |= {"bare": [], "featcache": []}
    with tempfile.TemporaryDirectory() as root:
        for turn in range(given.rounds):
            speeds["bare"].append(bare(backbone, batch, n_batches))
            speeds["featcache"].append(
                extract(backbone, split, spec, options, Path(root) / str(turn))
            )
    median = {name: statistics.median(values) for name, values in speeds.items()}
    for name, values in speeds.items():
        each = ", ".join(f"{value:.1f}" for value in values)
        print(f"{name:10} {median[name]:8.1f} img/s (median of {each})")
    print(f"ratio to bare  {median['featcache'] / median['bare']:.3f}")
    print(f"ratio to plain {median['featcache'] / median['plain']:.3f}")


if __name__ == "__main__":
    main()
