"""Push and pull against the bare client, with the same bytes on the same loopback S3 server.

Usage: python -m benchmarks.sharing [--rows N] [--dim N] [--rounds N]

The bare client is obstore, which puts and gets the very files of the set with as many threads and
parts, and writes what it gets to disk; it hashes and checks nothing. s3fs, which is fsspec's, does
the same if it is installed. Sides alternate.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.store import fill, timed
from featcache.remotes.objects import ObjectTransport
from featcache.remotes.pointer import pointer_name
from featcache.remotes.pull import pull
from featcache.remotes.push import PARALLEL, push
from featcache.remotes.stream import attach
from featcache.store.cache import Cache
from tests.remotes.servers import ACCESS, SECRET, s3_server

BUCKET = "bench"
PART_BYTES = 16 << 20


def bare_push(store, one, prefix):
    import obstore

    files = [file["path"] for file in one.sealed["files"]]
    with ThreadPoolExecutor(PARALLEL) as pool:
        list(
            pool.map(
                lambda name: obstore.put(
                    store, f"{prefix}/{name}", one.path / name, chunk_size=PART_BYTES
                ),
                files,
            )
        )


def bare_pull(store, one, prefix, folder):
    import obstore

    def fetch(name):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            for block in obstore.get(store, f"{prefix}/{name}").stream(min_chunk_size=4 << 20):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())

    with ThreadPoolExecutor(PARALLEL) as pool:
        list(pool.map(fetch, [file["path"] for file in one.sealed["files"]]))


def by_fsspec(one, prefix, folder, endpoint):
    """Return what pushes and pulls the files by s3fs with as many at a time; None without it."""
    try:
        from s3fs import S3FileSystem
    except ImportError:
        return None
    files = [file["path"] for file in one.sealed["files"]]
    system = S3FileSystem(client_kwargs={"endpoint_url": endpoint}, skip_instance_cache=True)
    there = [f"{BUCKET}/{prefix}-fsspec/{name}" for name in files]
    here = [str(folder / name) for name in files]

    def pull_all():
        for name in here:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
        system.get(there, here, batch_size=PARALLEL)
        for name in here:
            with open(name, "rb+") as file:  # noqa: PTH123
                os.fsync(file.fileno())

    return (
        lambda: system.put([str(one.path / name) for name in files], there, batch_size=PARALLEL),
        pull_all,
    )


def one_round(one, store, root):
    """Return seconds by (operation, side)."""
    seconds = {}
    prefix = uuid.uuid4().hex
    transport = ObjectTransport(f"s3://{BUCKET}/{prefix}-ours")
    seconds["push", "bare client"], _ = timed(lambda: bare_push(store, one, prefix))
    seconds["push", "featcache"], sent = timed(lambda: push(one.path, transport))
    assert sent.files == len(one.sealed["files"])
    seconds["push again", "featcache"], again = timed(lambda: push(one.path, transport))
    assert again.files == 0
    folders = [root / name for name in ("plain", "ours", "streamed", "fsspec")]
    plain, ours, streamed, other = folders
    if (both := by_fsspec(one, prefix, other, os.environ["AWS_ENDPOINT_URL"])) is not None:
        seconds["push", "s3fs"], _ = timed(both[0])
        seconds["pull", "s3fs"], _ = timed(both[1])
    seconds["pull", "bare client"], _ = timed(lambda: bare_pull(store, one, prefix, plain))
    name = pointer_name(one.spec)
    seconds["pull", "featcache"], got = timed(lambda: pull(name, transport, Cache(ours)))
    assert got.digest == one.digest
    far = attach(name, transport, Cache(streamed), limit_bytes=1 << 40)
    rows = np.random.default_rng(0).choice(one.rows, 100, replace=False)
    few = np.arange(100)
    seconds["100 first rows, streamed", "featcache"], _ = timed(lambda: far.features(few))
    seconds["100 random rows, streamed", "featcache"], values = timed(lambda: far.features(rows))
    assert np.array_equal(values, one.features(rows))
    seconds["100 random rows again", "featcache"], _ = timed(lambda: far.features(rows))
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    values = rng.standard_normal((given.rows, given.dim), np.float32).astype(np.float16)
    with (
        tempfile.TemporaryDirectory() as server,
        tempfile.TemporaryDirectory() as folder,
        s3_server(Path(server), volume_mb=2048) as endpoint,
    ):
        root = Path(folder)
        secrets = {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET}
        os.environ |= {**secrets, "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": endpoint}
        import boto3
        from obstore.store import S3Store

        boto3.client("s3", region_name="us-east-1").create_bucket(Bucket=BUCKET)
        store = S3Store(BUCKET, client_options={"allow_http": True})
        _, one = fill(Cache(root / "cache"), values, rng.integers(0, 100, given.rows))
        size = sum(file["bytes"] for file in one.sealed["files"])
        rounds = [one_round(one, store, root) for _ in range(given.rounds)]
    print(f"{size / 1e6:.0f} MB in {len(one.sealed['files'])} files, {given.rounds} rounds")
    for name, side in rounds[0]:
        median = statistics.median(one[name, side] for one in rounds)
        text = f"{name:26} {side:12} {median:8.3f} s"
        if (name, "bare client") in rounds[0]:
            text += f"  {size / 1e6 / median:8.1f} MB/s"
            if side != "bare client":
                ratios = [one[name, "bare client"] / one[name, side] for one in rounds]
                text += f"  {statistics.median(ratios):.2f} x bare client"
        print(text)


if __name__ == "__main__":
    main()
