"""Ridge with leave-one-out over a path of strengths, and LDA, against scikit-learn on one machine.

Usage: python -m benchmarks.closed_form [--rows N] [--dim N] [--classes N] [--strengths N]
                                        [--rounds N] [--device D]

Sides alternate within a round; the figures are medians over the rounds. scikit-learn gets the
float64 rows that it would make itself, already scaled; featcache scales its float16 rows as part
of its time.
"""

import argparse
import statistics
import time

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import RidgeClassifierCV
from sklearn.preprocessing import StandardScaler

from featcache.probes.closed_form.discriminant import fit_lda
from featcache.probes.closed_form.options import RidgeOptions
from featcache.probes.closed_form.ridge_probe import fit_ridge


def timed(function):
    """Return (seconds, result)."""
    began = time.perf_counter()
    result = function()
    return time.perf_counter() - began, result


def noisy_classes(n_rows, dim, n_classes):
    """Overlapping classes in dimensions of unequal variance, in float16."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, n_classes, n_rows)
    spread = np.logspace(0.5, -1.5, dim)
    means = rng.standard_normal((n_classes, dim)) * 0.3
    rows = (means[labels] + rng.standard_normal((n_rows, dim))) * spread + 0.5
    return rows.astype(np.float16), labels


def ridge_sides(rows, labels, strengths, device):
    options = RidgeOptions(strengths=strengths, extend_decades=0)
    scaled = StandardScaler().fit_transform(rows.astype(np.float64))
    path = RidgeClassifierCV(alphas=strengths[::-1], scoring="accuracy")
    return {
        "featcache": lambda: fit_ridge(rows, labels, options, device=device).details["strength"],
        "scikit-learn": lambda: path.fit(scaled, labels).alpha_,
    }


def lda_sides(rows, labels, shrinkage, device):
    wide = rows.astype(np.float64)
    amount = None if shrinkage == "none" else shrinkage
    plain = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=amount)

    def own():
        return fit_lda(rows, labels, shrinkage=shrinkage, device=device).logits(wide).argmax(axis=1)

    return {"featcache": own, "scikit-learn": lambda: plain.fit(wide, labels).predict(wide)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--strengths", type=int, default=45)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    rows, labels = noisy_classes(given.rows, given.dim, given.classes)
    strengths = tuple(np.logspace(-3, 8, given.strengths).tolist())
    works = {
        f"ridge, {given.strengths} strengths": ridge_sides(rows, labels, strengths, given.device),
        "LDA, shrinkage 0.1": lda_sides(rows, labels, 0.1, given.device),
        "LDA, no shrinkage": lda_sides(rows, labels, "none", given.device),
    }
    print(f"{given.rows} x {given.dim} float16, {given.classes} classes, {given.rounds} rounds")
    for name, sides in works.items():
        seconds = {side: [] for side in sides}
        for number in range(given.rounds):
            answers = {}
            for side in list(sides)[:: 1 if number % 2 == 0 else -1]:
                took, answers[side] = timed(sides[side])
                seconds[side].append(took)
        agree = float(np.mean(answers["featcache"] == answers["scikit-learn"]))
        own, other = (statistics.median(seconds[side]) for side in ("featcache", "scikit-learn"))
        print(
            f"{name:22} featcache {own:7.2f} s  scikit-learn {other:7.2f} s  "
            f"{other / own:5.2f} x  agreement {agree:.4f}"
        )


if __name__ == "__main__":
    main()
