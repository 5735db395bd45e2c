"""All detectors from one pass, beside pytorch-ood run detector by detector.

`python -m benchmarks.ood` takes 50,000 x 768 train rows of 200 classes, 10,000 test rows and five
OOD sets of 5,000; `--scale 0.1` a tenth of the rows. Both sides get the same head and the same
float32 features in memory; the peer is fitted and then scores each set in batches of 1,024.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

DIM, CLASSES = 768, 200


def rows(n, rng, means, labels=None):
    """Non-negative activations, as pooled features of ReLU networks are."""
    labels = rng.integers(0, len(means), n) if labels is None else labels
    spectrum = np.arange(1, DIM + 1) ** -0.3
    return np.maximum(means[labels] + rng.normal(size=(n, DIM)) * spectrum, 0).astype(np.float32)


def world(scale):
    rng = np.random.default_rng(0)
    spectrum = np.arange(1, DIM + 1) ** -0.3
    means = rng.normal(size=(CLASSES, DIM)) * spectrum * 0.7
    labels = rng.integers(0, CLASSES, int(50_000 * scale))
    train = rows(len(labels), rng, means, labels)
    test = rows(int(10_000 * scale), rng, means)
    others = [
        rows(int(5_000 * scale), rng, rng.normal(size=(20, DIM)) * spectrum * 0.7) for _ in range(5)
    ]
    return train, labels, [test, *others]


def ours(train, labels, head, sets, names):
    from featcache.probes.ood.detectors import fit_detectors
    from featcache.probes.ood.options import OodOptions

    options = OodOptions(detectors=tuple(names), primary=names[0], k_class_share=1e9)
    began = time.perf_counter()
    fitted = fit_detectors(
        train,
        labels,
        options,
        np.random.default_rng(0),
        given=head,
        class_names=head.class_names,
    )
    found = [fitted.scores(one) for one in sets]
    return time.perf_counter() - began, found


def peers(head):
    """The peer's detectors by our names, with the hyper-parameters of ours."""
    from pytorch_ood import detector

    linear = torch.nn.Linear(*head.weights.shape)
    linear.weight.data = torch.tensor(head.weights.T.copy(), dtype=torch.float32)
    linear.bias.data = torch.tensor(head.bias, dtype=torch.float32)
    linear.requires_grad_(False)

    def shaped(one):
        return lambda z: one.predict_feature_maps(z[:, :, None, None])

    weights, bias = linear.weight, linear.bias

    def flat(z):
        return linear(z.flatten(1))

    features = {
        "relative_mahalanobis": detector.RMD(None),
        "mahalanobis": detector.Mahalanobis(None),
        "knn": detector.KNN(None, k=50),
        "vim": detector.ViM(None, d=512, w=weights, b=bias),
        "dice": detector.DICE(None, w=weights, b=bias, p=0.9),
        "she": detector.SHE(None, linear),
        "fdbd": detector.fDBD(None, head=linear),
        "nci": detector.NCI(None, head=linear, alpha=1e-4),
        "nnguide": detector.NNGuide(None, head=linear, k=10),
        "pnml": detector.PNML(None, linear),
    }
    logits = {
        "msp": detector.MaxSoftmax.score,
        "maxlogit": detector.MaxLogit.score,
        "energy": detector.EnergyBased.score,
        "gen": lambda z: detector.GEN.score(z, gamma=0.1, M=100),
    }
    by_logits = {"kl_matching": detector.KLMatching(None), "openmax": detector.OpenMax(None)}
    maps = {
        "ash_p": detector.ASH(lambda z: z, flat, percentile=0.9, variant="ash-p"),
        "ash_b": detector.ASH(lambda z: z, flat, percentile=0.9, variant="ash-b"),
        "ash_s": detector.ASH(lambda z: z, flat, percentile=0.9, variant="ash-s"),
        "scale": detector.SCALE(lambda z: z, flat, percentile=0.85),
    }
    return linear, features, logits, by_logits, {name: shaped(one) for name, one in maps.items()}


def run_peer(head, train, labels, sets, skip):
    """Return seconds per detector; what the installed version cannot do is left out."""
    linear, features, logits, by_logits, maps = peers(head)
    rows_, truth = torch.from_numpy(train), torch.from_numpy(labels)
    parts = [torch.from_numpy(one) for one in sets]
    seconds = {}

    def timed(name, fit, score):
        if name in skip:
            return
        began = time.perf_counter()
        try:
            fit()
            for one in parts:
                for start in range(0, len(one), 1024):
                    score(one[start : start + 1024])
        except (TypeError, AttributeError, ValueError) as error:
            print(f"  {name}: left out, {type(error).__name__}: {str(error)[:80]}", flush=True)
            return
        seconds[name] = time.perf_counter() - began
        print(f"  pytorch-ood {name:22s} {seconds[name]:8.2f} s", flush=True)

    with torch.no_grad():
        for name, score in logits.items():
            timed(name, lambda: None, lambda z, score=score: score(linear(z)))
        for name, score in maps.items():
            timed(name, lambda: None, score)
        for name, one in by_logits.items():
            timed(
                name,
                lambda one=one: one.fit_logits(linear(rows_), truth),
                lambda z, one=one: one.predict_logits(linear(z)),
            )
        for name, one in features.items():
            timed(name, lambda one=one: one.fit_features(rows_, truth), one.predict_features)
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--skip", nargs="*", default=[], help="peer's detectors to leave out")
    args = parser.parse_args()
    from featcache.head_store import StoredHead
    from featcache.probes.linear.logistic import fit_path
    from featcache.probes.ood.catalog import DEFAULT
    from featcache.spec import BackboneIdentity

    train, labels, sets = world(args.scale)
    path = fit_path(train[:20_000], labels[:20_000], [0.01], tol=1e-3)
    head = StoredHead(
        kind="native",
        weights=path.weights[0],
        bias=path.biases[0],
        class_names=tuple(f"c{c}" for c in range(len(path.classes))),
        backbone=BackboneIdentity(name="b", architecture="a", weights="w"),
        tap="pooled",
    )
    print(f"{len(train)} x {DIM}, {CLASSES} classes, sets of {[len(one) for one in sets]}")
    for name in DEFAULT:
        alone, _ = ours(train, labels, head, sets, [name])
        print(f"  featcache alone {name:22s} {alone:8.2f} s", flush=True)
    total, _ = ours(train, labels, head, sets, list(DEFAULT))
    print(f"featcache, all {len(DEFAULT)} detectors: {total:.2f} s", flush=True)
    theirs = run_peer(head, train, labels, sets, set(args.skip))
    both, _ = ours(train, labels, head, sets, list(theirs))
    print(f"pytorch-ood, {len(theirs)} detectors: {sum(theirs.values()):.2f} s")
    print(f"featcache, the same {len(theirs)}: {both:.2f} s")
    spent = sum(theirs.values())
    print(f"ratio: {spent / both:.1f} for the same, {spent / total:.1f} for all of ours")


if __name__ == "__main__":
    main()
