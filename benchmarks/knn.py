"""Nearest neighbours against raw FAISS and scikit-learn's brute force on the same rows.

Usage: python -m benchmarks.knn [--queries N] [--bank N] [--dim N] [--k N] [--rounds N] [--device D]
       python -m benchmarks.knn --stream [--bank 2000000] [--queries 20] [--bank-bytes N]

The search of featcache takes float16 rows, scales them, looks for equal rows, searches, settles
near-ties, and sorts; the classification votes for four k as well. FAISS gets float32 unit rows and
only searches; with a GPU both do so there. scikit-learn gets the same unit rows; it is timed on 400
queries for the largest k, and scaled up; four k cost it four searches. Sides alternate; ratios are
medians over the rounds.
"""

import argparse
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch  # noqa: F401  before faiss, always: they ship two OpenMP runtimes

import faiss  # isort: skip
from sklearn.neighbors import KNeighborsClassifier

from featcache.probes.knn.classify import knn_classify
from featcache.probes.knn.neighbours import nearest_rows

CLASSES = 1000
KS = (10, 20, 100, 200)
CHUNK = 20_000


def timed(function):
    """Return (seconds, result)."""
    began = time.perf_counter()
    result = function()
    return time.perf_counter() - began, result


def memory_mib(field="VmHWM"):
    """Return this process's resident memory: `VmHWM` is its peak, `VmRSS` that of now."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return int(text.split(f"{field}:")[1].split()[0]) / 1024


def noise(rows, dim, rng):
    """Yield unit-variance rows around a common mean, a chunk at a time, as features are."""
    for start in range(0, rows, CHUNK):
        values = rng.standard_normal((min(CHUNK, rows - start), dim), np.float32)
        values += 0.5
        yield values.astype(np.float16)


def unit(rows):
    wide = rows.astype(np.float32)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    return wide


def raw_index(bank, device):
    index = faiss.IndexFlatIP(bank.shape[1])
    if device.startswith("cuda"):
        number = int(device.partition(":")[2] or 0)
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), number, index)
    index.add(unit(bank))
    return index


def compare(given):
    rng = np.random.default_rng(0)
    bank, queries = (
        np.concatenate(list(noise(rows, given.dim, rng))) for rows in (given.bank, given.queries)
    )
    labels = rng.integers(0, CLASSES, len(bank))
    index, few = raw_index(bank, given.device), unit(queries)
    some = few[:400]
    sklearn = KNeighborsClassifier(max(KS), algorithm="brute", metric="cosine")
    sklearn.fit(unit(bank), labels)
    vote = partial(knn_classify, bank, labels, queries, k=KS, temperature=0.07, device=given.device)
    sides = {
        "FAISS IndexFlatIP": lambda: index.search(few, given.k),
        "featcache search": lambda: nearest_rows(bank, queries, k=given.k, device=given.device),
        "featcache votes": vote,
        "scikit-learn": lambda: sklearn.predict(some),
    }
    print(f"{len(queries)} queries x {len(bank)} rows x {given.dim}, k = {given.k}", flush=True)
    rounds = []
    for number in range(given.rounds):
        names = list(sides)[number % 4 :] + list(sides)[: number % 4]
        seconds, found = {}, {}
        for name in names:
            seconds[name], found[name] = timed(sides[name])
        seconds["scikit-learn"] *= len(few) / len(some)
        rounds.append(seconds)
        same = np.mean(found["FAISS IndexFlatIP"][1] == found["featcache search"][1])
    for name in sides:
        median = statistics.median(one[name] for one in rounds)
        print(f"{name:20} {median:9.2f} s {len(few) / median:10.0f} queries/s")
    for base, side, times in (
        ("FAISS IndexFlatIP", "featcache search", 1),
        ("FAISS IndexFlatIP", "featcache votes", 1),
        ("scikit-learn", "featcache votes", 1),
        ("scikit-learn", "featcache votes", len(KS)),
    ):
        ratio = statistics.median(times * one[base] / one[side] for one in rounds)
        searches = f", {times} searches of it" if times > 1 else ""
        print(f"{side} / {base}{searches}: {ratio:.2f} x its throughput")
    print(f"rows in the same place: {same:.5f}; peak RSS {memory_mib():.0f} MiB, all sides")


def stream(given):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bank.bin"
        with path.open("wb") as file:
            for values in noise(given.bank, given.dim, np.random.default_rng(0)):
                file.write(values)
        del values
        bank = np.memmap(path, np.float16, "r", shape=(given.bank, given.dim))
        own = np.linspace(0, given.bank - 1, given.queries).astype(np.int64)
        queries = bank[own]
        nearest_rows(queries, queries, k=1)  # imports
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak so far
        before = memory_mib("VmRSS")
        seconds, (scores, rows) = timed(
            lambda: nearest_rows(bank, queries, k=given.k, bank_bytes=given.bank_bytes)
        )
        assert (rows[:, 0] == own).all()
        assert (np.diff(scores, axis=1) <= 0).all()
        size = bank.nbytes / 2**20
    print(
        f"{len(queries)} queries x {given.bank} mapped rows x {given.dim} ({size:.0f} MiB float16)"
    )
    print(f"{seconds:.1f} s in blocks of {given.bank_bytes / 2**20:.0f} MiB float32")
    print(f"RSS {before:.0f} MiB before, peak RSS {memory_mib():.0f} MiB")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int)
    parser.add_argument("--bank", type=int)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--k", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--bank-bytes", type=int, default=1 << 28)
    given = parser.parse_args()
    given.queries = given.queries or (20 if given.stream else 10_000)
    given.bank = given.bank or (2_000_000 if given.stream else 100_000)
    stream(given) if given.stream else compare(given)


if __name__ == "__main__":
    main()
