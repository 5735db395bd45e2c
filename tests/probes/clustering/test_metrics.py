from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn import metrics as sk

from featcache.errors import ShapeError
from featcache.probes.clustering.metrics import (
    agreement,
    contingency,
    matched,
    standard_intervals,
)


def random_pair(seed, n=80, n_classes=4, n_clusters=5, noise=0.4):
    rng = np.random.default_rng(seed)
    labels = rng.integers(n_classes, size=n)
    clusters = np.where(rng.random(n) < noise, rng.integers(n_clusters, size=n), labels)
    return labels, clusters


SKLEARN = {
    "ami": sk.adjusted_mutual_info_score,
    "ari": sk.adjusted_rand_score,
    "nmi": sk.normalized_mutual_info_score,
    "homogeneity": sk.homogeneity_score,
    "completeness": sk.completeness_score,
    "v_measure": sk.v_measure_score,
}


@pytest.mark.parametrize("noise", [0.0, 0.4, 1.0])
@pytest.mark.parametrize(("n_classes", "n_clusters"), [(2, 2), (4, 5), (7, 3), (12, 12)])
def test_scikit_learn_agrees(n_classes, n_clusters, noise):
    for seed in range(5):
        labels, clusters = random_pair(
            seed, n_classes=n_classes, n_clusters=n_clusters, noise=noise
        )
        got = agreement(contingency(labels, clusters))
        for name, function in SKLEARN.items():
            assert got[name] == pytest.approx(function(labels, clusters), abs=1e-9), name


@pytest.mark.parametrize(
    ("labels", "clusters"),
    [
        ([0, 0, 0], [0, 0, 0]),
        ([0, 0, 0], [0, 1, 1]),
        ([0, 1, 1], [0, 0, 0]),
        ([0, 1, 2], [2, 0, 1]),
        ([0], [0]),
        ([0, 1], [0, 0]),
    ],
)
def test_degenerate_tables_agree_too(labels, clusters):
    got = agreement(contingency(np.array(labels), np.array(clusters)))
    for name, function in SKLEARN.items():
        assert got[name] == pytest.approx(function(labels, clusters), abs=1e-9), name


@pytest.mark.parametrize(("n_classes", "n_clusters"), [(4, 4), (5, 3), (3, 5)])
def test_accuracy_is_that_of_the_best_of_all_permutations(n_classes, n_clusters):
    for seed in range(6):
        labels, clusters = random_pair(seed, n_classes=n_classes, n_clusters=n_clusters, noise=0.8)
        width = max(n_classes, n_clusters)
        best = max(
            (np.array(order)[clusters] == labels).mean()
            for order in itertools.permutations(range(width))
        )
        counts = contingency(labels, clusters)
        assert agreement(counts)["accuracy"] == pytest.approx(best)
        classes, right = matched(counts)
        used = classes[classes >= 0]
        assert len(set(used)) == len(used) == min(counts.shape)
        assert right.sum() == round(best * len(labels))


def test_purity_counts_the_most_frequent_class():
    labels, clusters = np.array([0, 0, 1, 1, 2]), np.array([0, 0, 0, 1, 1])
    assert agreement(contingency(labels, clusters))["purity"] == pytest.approx(3 / 5)


def test_names_of_classes_and_clusters_change_nothing():
    labels, clusters = random_pair(1)
    first = agreement(contingency(labels, clusters))
    second = agreement(contingency(7 - labels, (clusters * 3 + 1) % 17))
    assert first == pytest.approx(second)


def test_random_clusters_have_no_adjusted_agreement():
    rng = np.random.default_rng(0)
    got = [
        agreement(contingency(rng.integers(8, size=60), rng.integers(8, size=60)))
        for _ in range(40)
    ]
    assert abs(np.mean([one["ami"] for one in got])) < 0.03
    assert abs(np.mean([one["ari"] for one in got])) < 0.03
    assert np.mean([one["nmi"] for one in got]) > 0.15  # why nmi is not the primary metric


def test_intervals_hold_the_value_and_shrink_with_rows():
    rng = np.random.default_rng(0)
    few, many = (contingency(*random_pair(3, n=n)) for n in (60, 2000))
    narrow, wide = standard_intervals(many, rng), standard_intervals(few, rng)
    for name, (low, high) in narrow.items():
        assert low <= agreement(many)[name] <= high
        assert high - low < wide[name][1] - wide[name][0]
    spread = (wide["accuracy"][1] - wide["accuracy"][0]) / 2
    share = agreement(few)["accuracy"]
    assert spread == pytest.approx(1.96 * np.sqrt(share * (1 - share) / 60), rel=0.25)


def test_columns_that_do_not_fit_are_refused():
    with pytest.raises(ShapeError, match="columns of one length"):
        contingency(np.arange(3), np.arange(4))
    with pytest.raises(ShapeError, match="at least one row"):
        contingency(np.arange(0), np.arange(0))
