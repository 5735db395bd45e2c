"""The store against np.memmap, raw files and Zarr libraries on the same bytes, page cache warm.

Usage: python -m benchmarks.store [--rows N] [--dim N] [--rounds N]

Sides alternate within a round; the figures are medians over the rounds. Zarr libraries that are not
installed are left out: `pip install 'featcache[bench]'` brings them.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import zarr

from featcache.spec import BackboneIdentity, DatasetIdentity, ExtractionSpec
from featcache.store.cache import Cache
from featcache.store.feature_set import FeatureSet
from featcache.store.layout import choose_layout
from featcache.store.shard import write_shard
from featcache.store.spool import Batch
from featcache.store.writer import SetWriter

RANDOM_ROWS = 4096
CLASSES, SHOTS = 100, 16
BATCH = 256
SIDES = ("np.memmap", "featcache")
"""Quick enough on single rows to be timed several times a round."""


def timed(function):
    """Return (seconds, result)."""
    began = time.perf_counter()
    result = function()
    return time.perf_counter() - began, result


def write_raw(path, values):
    with path.open("wb", buffering=0) as file:
        file.write(values)
        os.fsync(file.fileno())


def write_raw_shards(root, values, layout):
    """Write and flush the same rows in as many files, which a crash loses one of at most."""
    root.mkdir()
    for shard in range(layout.n_shards):
        start, stop = layout.bounds(shard)
        write_raw(root / str(shard), values[start:stop])


def write_shards(root, values, layout):
    for shard in range(layout.n_shards):
        path = root / layout.shard_path(shard)
        path.parent.mkdir(parents=True)
        start, stop = layout.bounds(shard)
        write_shard(path, [values[start:stop]], layout, shard)


def batches(values):
    for start in range(0, len(values), BATCH):
        yield start, values[start : start + BATCH]


def append_raw(path, values):
    with path.open("ab", buffering=0) as file:
        for _, batch in batches(values):
            file.write(batch)


def spec_of(values):
    dataset = DatasetIdentity(
        name="noise", split="train", rows=len(values), fingerprint="0" * 64, label_set="0" * 64
    )
    backbone = BackboneIdentity(name="noise", architecture="none", weights="")
    return ExtractionSpec(dataset=dataset, backbone=backbone, transform={}, tap="pooled")


def fill(cache, values, labels):
    """Write a set batch by batch as an extraction does; return (seconds to append, the set)."""
    spec = spec_of(values)
    writer = SetWriter(cache.path_of(spec), spec, values.shape[1:])
    appending = 0.0
    for shard in range(writer.layout.n_shards):
        start, stop = writer.layout.bounds(shard)
        spool = writer.open_spool(shard)
        began = time.perf_counter()
        for first, batch in batches(values[start:stop]):
            spool.append(Batch(start=start + first, features=batch, unreadable={}))
        appending += time.perf_counter() - began
        writer.finish_shard(shard, spool, {})
    writer.seal(
        labels=labels,
        ids=np.arange(len(values)).astype(str),
        class_names=tuple(map(str, range(CLASSES))),
        provenance={},
    )
    return appending, FeatureSet(cache.path_of(spec))


def zarr_python(path):
    zarr.config.set({"codec_pipeline.path": "zarr.core.codec_pipeline.BatchedCodecPipeline"})
    array = zarr.open_array(path, mode="r")
    return (lambda: array[:]), (lambda rows: array.oindex[rows])


def zarrs(path):
    import zarrs  # noqa: F401  it registers its pipeline

    zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
    array = zarr.open_array(path, mode="r")
    return (lambda: array[:]), (lambda rows: array.oindex[rows])


def tensorstore(path):
    import tensorstore as ts

    store = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{path}/"}}
    array = ts.open(store, read=True).result()
    return (lambda: array.read().result()), (lambda rows: array[rows].read().result())


def readers(one, raw, out):
    """Yield (name, whole reader, row reader) of each side that is installed.

    The first two fill a buffer that is there, as both can; the libraries make one each time.
    """
    mapped = np.memmap(raw, out.dtype, "r", shape=out.shape)
    yield "np.memmap", lambda: np.copyto(out, mapped), lambda rows: np.asarray(mapped[rows])
    yield "featcache", lambda: one.features(out=out), one.features
    for library in (zarr_python, zarrs, tensorstore):
        try:
            whole, some = library(one.path / "features")
        except ImportError:
            continue
        yield library.__name__.replace("_", "-"), whole, some


def one_round(root, values, labels, rows, order):
    """Return the seconds of each operation by (operation, side) in one round."""
    seconds = {}
    layout = choose_layout(len(values), values.shape[1:], values.dtype)
    raw, tail = root / "raw.bin", root / "tail.bin"
    written = root / "shards"
    writes = {
        "raw file": lambda: write_raw(raw, values),
        "raw shards": lambda: write_raw_shards(root / "raw-shards", values, layout),
        "featcache": lambda: write_shards(written, values, layout),
    }
    for side in order:
        os.sync()  # what one side left to the disk must not slow the next
        seconds["write, fsync", side], _ = timed(writes[side])
    seconds["append batches of 256", "raw file"], _ = timed(lambda: append_raw(tail, values))
    cache = Cache(root / "cache")
    whole_way, (seconds["append batches of 256", "featcache"], one) = timed(
        lambda: fill(cache, values, labels)
    )
    seconds["append, publish and seal", "featcache"] = whole_way
    out = np.zeros_like(values)
    seconds["first read, checked", "featcache"], _ = timed(lambda: one.features(out=out))
    assert np.array_equal(out, values)
    sides = list(readers(one, raw, out))
    for side, whole, _ in sides:
        seconds["whole", side], _ = timed(whole)
    for name, chosen in rows.items():
        for side, _, some in sides:
            assert np.array_equal(some(chosen), values[chosen])
            read = partial(some, chosen)
            times = [timed(read)[0] for _ in range(25 if side in SIDES else 1)]
            seconds[name, side] = statistics.median(times)
    shutil.rmtree(written)
    shutil.rmtree(root / "raw-shards")
    shutil.rmtree(cache.root)
    tail.unlink()
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    values = rng.standard_normal((given.rows, given.dim), np.float32).astype(np.float16)
    labels = rng.integers(0, CLASSES, given.rows)
    shuffled = rng.choice(given.rows, RANDOM_ROWS, replace=False)
    shots = [np.flatnonzero(labels == one)[:SHOTS] for one in range(CLASSES)]
    rows = {
        "4,096 rows, sorted": np.sort(shuffled),
        "4,096 rows, shuffled": shuffled,
        "few-shot rows": np.concatenate(shots),
    }
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        sides = ("raw file", "raw shards", "featcache")
        rounds = [
            one_round(root, values, labels, rows, sides[i % 3 :] + sides[: i % 3])
            for i in range(given.rounds)
        ]
    print(f"{given.rows} x {given.dim} float16, {given.rounds} rounds")
    for name, side in sorted(rounds[0]):
        median = statistics.median(one[name, side] for one in rounds)
        base = "np.memmap" if (name, "np.memmap") in rounds[0] else "raw file"
        ratio = ""
        if (name, base) in rounds[0] and side != base:
            ratio = statistics.median(one[name, base] / one[name, side] for one in rounds)
            ratio = f"{ratio:6.3f} x {base}"
        print(f"{name:26} {side:12} {1000 * median:9.2f} ms  {ratio}")


if __name__ == "__main__":
    main()
