"""The store against np.memmap and a raw file on the same bytes, in one run, page cache warm.

Usage: python -m benchmarks.store [--rows N] [--dim N] [--rounds N]
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from featcache.store.layout import choose_layout
from featcache.store.shard import MappedShard, write_shard


def timed(function):
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def write_raw(path, values):
    with path.open("wb", buffering=0) as file:
        file.write(values)
        os.fsync(file.fileno())


def write_shards(root, values, layout):
    for shard in range(layout.n_shards):
        path = root / layout.shard_path(shard)
        path.parent.mkdir(parents=True)
        start, stop = layout.bounds(shard)
        write_shard(path, [values[start:stop]], layout, shard)


def read_shards(shards, layout, out):
    for number, shard in enumerate(shards):
        start, stop = layout.bounds(number)
        shard.read(0, out[start:stop])


def take(shards, layout, rows):
    number = rows // layout.shard_rows
    for one in np.unique(number):
        where = np.flatnonzero(number == one)
        out = np.empty((len(where), *layout.row_shape), layout.dtype)
        shards[one].take(rows[where] - one * layout.shard_rows, out)


def one_round(root, values, layout, rows, out):
    """Return the seconds of each operation, by name, in one round."""
    raw, target = root / "raw.bin", root / "set"
    seconds = {
        "write raw": timed(lambda: write_raw(raw, values)),
        "write featcache": timed(lambda: write_shards(target, values, layout)),
    }
    mapped = np.memmap(raw, "float16", "r", shape=values.shape)
    shards = [MappedShard(target / layout.shard_path(i), layout, i) for i in range(layout.n_shards)]
    seconds["read featcache (first touch, checked)"] = timed(
        lambda: read_shards(shards, layout, out)
    )
    np.testing.assert_array_equal(out, values)
    seconds["read memmap"] = timed(lambda: np.copyto(out, mapped))
    seconds["read featcache"] = timed(lambda: read_shards(shards, layout, out))
    seconds["rows memmap"] = timed(lambda: np.asarray(mapped[rows]))
    seconds["rows featcache"] = timed(lambda: take(shards, layout, rows))
    shutil.rmtree(target)
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    values = np.random.default_rng(0).normal(size=(given.rows, given.dim)).astype("float16")
    layout = choose_layout(given.rows, (given.dim,), "float16")
    rows = np.sort(np.random.default_rng(1).choice(given.rows, 4096, replace=False))
    out = np.zeros_like(values)
    with tempfile.TemporaryDirectory() as folder:
        rounds = [one_round(Path(folder), values, layout, rows, out) for _ in range(given.rounds)]
    median = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    for name, value in median.items():
        print(f"{name:40} {1000 * value:9.1f} ms")
    print(f"read ratio  {median['read memmap'] / median['read featcache']:.2f} x memmap")
    print(f"write ratio {median['write raw'] / median['write featcache']:.2f} x raw with fsync")
    print(f"4096 rows   {median['rows memmap'] / median['rows featcache']:.2f} x memmap")


if __name__ == "__main__":
    main()
