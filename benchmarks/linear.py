"""The linear path beside scikit-learn's loop over strengths: time, objective, memory.

`python -m benchmarks.linear` takes the first figures that RESULTS.md shows; `--every 4` runs the
peer at each fourth strength only and scales its time up, for a machine in a hurry. Each side runs
in its own process, so that the peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings

import numpy as np

STRENGTHS = 10 ** np.linspace(-6, 5, 45)  # dinov2 log_regression.py


def features(rows: int, dim: int, classes: int):
    """Gaussian classes whose spectrum falls as that of real features does, float16."""
    rng = np.random.default_rng(0)
    spectrum = np.arange(1, dim + 1) ** -0.5
    turn = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    means = rng.normal(size=(classes, dim)) * spectrum * 0.25
    labels = rng.integers(0, classes, rows)
    x = np.empty((rows, dim), dtype=np.float16)
    for start in range(0, rows, 10_000):
        part = labels[start : start + 10_000]
        x[start : start + 10_000] = (
            means[part] + rng.normal(size=(len(part), dim)) * spectrum
        ) @ turn.T + 0.3
    return x, labels.astype(np.int64)


def objective(x, y, weights, bias, strength):
    """Mean cross-entropy plus penalty in float64, by blocks."""
    total = 0.0
    for start in range(0, len(x), 5000):
        logits = x[start : start + 5000].astype(np.float64) @ weights + bias
        logits -= logits.max(axis=1, keepdims=True)
        own = logits[np.arange(len(logits)), y[start : start + 5000]]
        total += (np.log(np.exp(logits).sum(axis=1)) - own).sum()
    return total / len(x) + (weights**2).sum() / (2 * strength * len(x))


def ours(x, y, device):
    from featcache.probes.linear.logistic import fit_path

    fit_path(x[:100].astype(np.float32), y[:100], [1.0], device=device)  # libraries are loaded
    before, began = peak_mib(), time.perf_counter()
    path = fit_path(x, y, STRENGTHS.tolist(), device=device)
    seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        "peak_mib": peak_mib() - before,
        "passes": int(path.passes.sum()),
        "converged": int(path.converged.sum()),
        "grad_norm": float(path.grad_norm.max()),
        "objective": [
            objective(x, y, w, b, c)
            for w, b, c in zip(path.weights, path.biases, STRENGTHS, strict=True)
        ],
    }


def peers(x, y, every):
    from sklearn.linear_model import LogisticRegression

    warnings.simplefilter("ignore")
    wide = x.astype(np.float64)  # scikit-learn iterates in float64 whatever it is given
    before, seconds, found, iterations = peak_mib(), 0.0, {}, 0
    for place in range(0, len(STRENGTHS), every):
        began = time.perf_counter()
        model = LogisticRegression(C=STRENGTHS[place], tol=1e-6, max_iter=10_000).fit(wide, y)
        seconds += time.perf_counter() - began
        iterations += int(model.n_iter_[0])
        found[place] = objective(x, y, model.coef_.T, model.intercept_, STRENGTHS[place])
        print(f"  scikit-learn, strength {place + 1}: {seconds:.0f} s", file=sys.stderr, flush=True)
    share = len(STRENGTHS) / len(found)
    return {
        "seconds": seconds * share,
        "peak_mib": peak_mib() - before,
        "iterations": int(iterations * share),
        "objective": found,
    }


def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(side, args):
    """Run one side in a process of its own."""
    words = [
        f"--{name}={getattr(args, name)}" for name in ("rows", "dim", "classes", "every", "device")
    ]
    command = [sys.executable, "-m", "benchmarks.linear", f"--side={side}", *words]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--side", choices=["ours", "peer"])
    parser.add_argument("--alone", action="store_true", help="without the peer")
    args = parser.parse_args()
    if args.side:
        x, y = features(args.rows, args.dim, args.classes)
        found = ours(x, y, args.device) if args.side == "ours" else peers(x, y, args.every)
        print(json.dumps(found))
        return
    mine = run("ours", args)
    size = args.rows * args.dim * 4 / 2**20
    print(f"{args.rows} x {args.dim} float16, {args.classes} classes, {len(STRENGTHS)} strengths")
    print(
        f"featcache     {mine['seconds']:8.1f} s, {mine['passes']} passes, "
        f"{mine['converged']} converged, largest gradient {mine['grad_norm']:.1e}"
    )
    print(
        f"              peak {mine['peak_mib']:.0f} MiB, "
        f"{mine['peak_mib'] / size:.1f} x the features in float32"
    )
    if args.alone:
        return
    peer = run("peer", args)
    gaps = [mine["objective"][int(k)] / value - 1 for k, value in peer["objective"].items()]
    print(
        f"scikit-learn  {peer['seconds']:8.1f} s, {peer['iterations']} iterations, "
        f"peak {peer['peak_mib']:.0f} MiB"
    )
    print(f"ratio         {peer['seconds'] / mine['seconds']:8.1f}")
    print(f"objective, ours / theirs - 1: {min(gaps):+.1e} to {max(gaps):+.1e}")


if __name__ == "__main__":
    main()
