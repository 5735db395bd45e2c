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


def peers(head, train, labels):
    """The peer's detectors by our names with the hyper-parameters of ours: how to fit and score."""
    from pytorch_ood import detector

    linear = torch.nn.Linear(*head.weights.shape)
    linear.weight.data = torch.tensor(head.weights.T.copy(), dtype=torch.float32)
    linear.bias.data = torch.tensor(head.bias, dtype=torch.float32)
    linear.requires_grad_(False)
    weights, bias = linear.weight, linear.bias

    def of_logits(one):
        return lambda: one.fit_logits(linear(train), labels), lambda z: one.predict_logits(
            linear(z)
        )

    def of_features(one):
        return lambda: one.fit_features(train, labels), one.predict_features

    def flat(z):
        return linear(z.flatten(1))

    def of_maps(one):
        def fit():
            if one.requires_fit:
                one.fit_feature_maps(train[:, :, None, None], labels)

        return fit, lambda z: one.predict_feature_maps(z[:, :, None, None])

    def same(z):
        return z

    def ash(variant):
        return of_maps(detector.ASH(same, flat, percentile=0.9, variant=variant))

    return {
        "msp": (None, lambda z: detector.MaxSoftmax.score(linear(z))),
        "maxlogit": (None, lambda z: detector.MaxLogit.score(linear(z))),
        "energy": (None, lambda z: detector.EnergyBased.score(linear(z))),
        "entropy": (None, lambda z: detector.Entropy.score(linear(z))),
        "gen": (None, lambda z: detector.GEN.score(linear(z), gamma=0.1, M=100)),
        "temperature": of_logits(detector.TemperatureScaling(None)),
        "kl_matching": of_logits(detector.KLMatching(None)),
        "openmax": of_logits(detector.OpenMax(None)),
        "ash_p": ash("ash-p"),
        "ash_b": ash("ash-b"),
        "ash_s": ash("ash-s"),
        "scale": of_maps(detector.SCALE(same, flat, percentile=0.85)),
        "react": of_maps(detector.ReAct(same, flat, percentile=0.9)),
        "vra": of_maps(detector.VRA(same, flat, lower_percentile=0.1, upper_percentile=0.9)),
        "lts": (None, detector.LTS(None, linear).predict_features),
        "gradnorm": (None, detector.GradNorm(linear, lambda name: name == "weight").predict),
        "relative_mahalanobis": of_features(detector.RMD(None)),
        "mahalanobis": of_features(detector.Mahalanobis(None)),
        "knn": of_features(detector.KNN(None, k=50)),
        "vim": of_features(detector.ViM(None, d=512, w=weights, b=bias)),
        "dice": of_features(detector.DICE(None, w=weights, b=bias, p=0.9)),
        "she": of_features(detector.SHE(None, linear)),
        "fdbd": of_features(detector.fDBD(None, head=linear)),
        "nci": of_features(detector.NCI(None, head=linear, alpha=1e-4)),
        "nnguide": of_features(detector.NNGuide(None, head=linear, k=10)),
        "pnml": of_features(detector.PNML(None, linear)),
    }


def run_peer(head, train, labels, sets, skip):
    """Return seconds per detector, each fitted and then run on every set."""
    parts = [torch.from_numpy(one) for one in sets]
    found = peers(head, torch.from_numpy(train), torch.from_numpy(labels))
    seconds = {}
    for name, (fit, score) in found.items():
        if name in skip:
            continue
        began = time.perf_counter()
        if fit is not None:
            fit()
        with torch.no_grad():
            for one in parts:
                for start in range(0, len(one), 1024):
                    score(one[start : start + 1024])
        seconds[name] = time.perf_counter() - began
        print(f"  pytorch-ood {name:22s} {seconds[name]:8.2f} s", flush=True)
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--skip", nargs="*", default=[], help="peer's detectors to leave out")
    parser.add_argument("--alone", action="store_true", help="also each of ours by itself")
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
    if args.alone:
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
