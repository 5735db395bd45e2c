from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import logsumexp, softmax
from sklearn.covariance import EmpiricalCovariance
from sklearn.neighbors import NearestNeighbors

from featcache.errors import ShapeError
from featcache.head_store import StoredHead
from featcache.probes.linear.options import LinearOptions
from featcache.probes.ood.catalog import DEFAULT, DETECTORS
from featcache.probes.ood.detectors import fit_detectors
from featcache.probes.ood.options import OodOptions
from featcache.spec import BackboneIdentity

ALL = list(DETECTORS)
HEAD = LinearOptions(strengths=(0.1,))
N, DIM, C = 240, 12, 4
OPTIONS = {"k": 7, "gen_top": 3, "subspace": 5, "neco_dims": 4, "nnguide_k": 6}


@pytest.fixture(scope="module")
def world():
    """Non-negative features, as the shaping detectors want them."""
    from tests.probes.conftest import clusters

    train, labels = clusters(N, DIM, C, spread=1.5, seed=1)
    test, _ = clusters(90, DIM, C, spread=1.5, seed=2)
    far, _ = clusters(80, DIM, C, spread=1.5, seed=3, world=8)
    lift = [np.maximum(rows + 2, 0).astype(np.float32) for rows in (train, test, far)]
    return lift[0], labels, np.concatenate(lift[1:])


def fitted_on(train, labels, names=DEFAULT, *, given=None, earlier=None, **options):
    fields = {"head": HEAD, "k_class_share": 9.0, **options}
    chosen = OodOptions(detectors=tuple(names), primary=names[0], **fields)
    return fit_detectors(
        train,
        labels,
        chosen,
        np.random.default_rng(0),
        given=given,
        class_names=tuple(f"class{c}" for c in range(C)),
        earlier=earlier,
    )


def stored(weights, bias, *, names=tuple(f"class{c}" for c in range(C)), **others):
    return StoredHead(
        **{
            "kind": "native",
            "weights": weights,
            "bias": bias,
            "class_names": names,
            "backbone": BackboneIdentity(name="b", architecture="a", weights="w"),
            "tap": "pooled",
            **others,
        }
    )


@pytest.fixture(scope="module")
def head(world):
    """A fitted head, moved so that its columns do not sum to zero: then everything is unique."""
    found = fitted_on(*world[:2], ("msp",)).head
    rng = np.random.default_rng(5)
    return stored(found.weights + 0.02 * rng.normal(size=(DIM, 1)), found.bias + 0.1)


@pytest.fixture(scope="module")
def fitted(world, head):
    return fitted_on(*world[:2], given=head, **OPTIONS)


@pytest.fixture(scope="module")
def scores(fitted, world):
    return fitted.scores(world[2])


@pytest.fixture(scope="module")
def numbers(fitted, world):
    """Head and features in float64 numpy, for closed forms."""
    weights, bias = fitted.head.weights, fitted.head.bias
    train, labels, rows = (part.astype(np.float64) for part in world)
    return weights, bias, train, labels.astype(int), rows


def rank_agreement(ours, theirs):
    return stats.spearmanr(ours, -np.asarray(theirs, dtype=np.float64)).statistic


def peer_head(weights, bias):
    head = torch.nn.Linear(*weights.shape).double()
    head.weight.data, head.bias.data = torch.tensor(weights.T.copy()), torch.tensor(bias)
    return head.requires_grad_(False)


@pytest.fixture
def peer(numbers, monkeypatch):
    """pytorch-ood casts to float32; here it keeps float64, so ranks do not hang on rounding."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    weights, bias, train, labels, rows = numbers
    return (
        peer_head(weights, bias),
        torch.tensor(train),
        torch.tensor(labels),
        torch.tensor(rows),
    )


LOGIT_PEERS = {
    "msp": lambda d, logits: d.MaxSoftmax.score(logits),
    "maxlogit": lambda d, logits: d.MaxLogit.score(logits),
    "energy": lambda d, logits: d.EnergyBased.score(logits),
    "entropy": lambda d, logits: (
        d.Entropy(None).predict_logits(logits)
        if hasattr(d.Entropy, "predict_logits")
        else d.Entropy.score(logits)
    ),
    "gen": lambda d, logits: d.GEN.score(logits, gamma=0.1, M=3),
}


@pytest.mark.parametrize("name", list(LOGIT_PEERS))
def test_logit_detectors_rank_as_pytorch_ood_does(name, peer, scores):
    from pytorch_ood import detector

    head, _, _, rows = peer
    theirs = LOGIT_PEERS[name](detector, head(rows))
    assert rank_agreement(scores[name], theirs) >= 0.999999


def test_feature_detectors_rank_as_pytorch_ood_does(peer, scores):
    from pytorch_ood import detector

    head, train, labels, rows = peer
    built = {
        "knn": detector.KNN(None, k=7),
        "vim": detector.ViM(None, d=5, w=head.weight, b=head.bias),
        "she": detector.SHE(None, head),
        "fdbd": detector.fDBD(None, head=head),
        "nci": detector.NCI(None, head=head, alpha=1e-4),
        "nnguide": detector.NNGuide(None, head=head, k=6),
    }
    for name, one in built.items():
        one.fit_features(train, labels)
        theirs = one.predict_features(rows)
        assert rank_agreement(scores[name], theirs) >= 0.999999, name


def test_mahalanobis_is_that_of_scikit_learn(numbers, scores):
    _, _, train, labels, rows = numbers
    means = np.stack([train[labels == c].mean(axis=0) for c in range(C)])
    within = EmpiricalCovariance(assume_centered=True).fit(train - means[labels])
    distance = np.stack(
        [np.einsum("nd,de,ne->n", rows - m, within.precision_, rows - m) for m in means]
    ).min(axis=0)
    np.testing.assert_allclose(scores["mahalanobis"], -distance, rtol=1e-6)
    total = EmpiricalCovariance().fit(train)
    np.testing.assert_allclose(scores["gaussian"], -total.mahalanobis(rows), rtol=1e-6)
    relative = total.mahalanobis(rows) - distance
    np.testing.assert_allclose(scores["relative_mahalanobis"], relative, rtol=1e-5, atol=1e-6)


def test_knn_and_nnguide_are_those_of_brute_force(numbers, scores):
    weights, bias, train, _, rows = numbers
    bank = train / np.linalg.norm(train, axis=1, keepdims=True)
    queries = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    distance, _ = NearestNeighbors(n_neighbors=7).fit(bank).kneighbors(queries)
    np.testing.assert_allclose(scores["knn"], -(distance[:, -1] ** 2), atol=1e-6)
    energies = logsumexp(train @ weights + bias, axis=1)
    guided = np.sort(queries @ (bank * energies[:, None]).T, axis=1)[:, -6:].mean(axis=1)
    expected = guided * logsumexp(rows @ weights + bias, axis=1)
    np.testing.assert_allclose(scores["nnguide"], expected, rtol=1e-5)


def test_relation_is_the_sum_over_every_train_row(numbers, scores):
    weights, bias, train, _, rows = numbers
    bank = train / np.linalg.norm(train, axis=1, keepdims=True)
    queries = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    agree = softmax(rows @ weights + bias, axis=1) @ softmax(train @ weights + bias, axis=1).T
    near = np.maximum(queries @ bank.T, 0) * agree
    np.testing.assert_allclose(scores["relation"], (near * (near > 0.03)).sum(axis=1), rtol=1e-4)


def test_kl_matching_is_the_smallest_divergence(numbers, scores):
    weights, bias, train, _, rows = numbers
    shares = softmax(train @ weights + bias, axis=1)
    found = shares.argmax(axis=1)
    means = np.stack([shares[found == c].mean(axis=0) for c in range(C)])
    expected = [
        -min(stats.entropy(p, mean) for mean in means)
        for p in softmax(rows @ weights + bias, axis=1)
    ]
    np.testing.assert_allclose(scores["kl_matching"], expected, rtol=1e-6, atol=1e-9)


def test_gradnorm_is_the_norm_of_the_gradient_of_autograd(numbers, scores):
    weights, bias, _, _, rows = numbers
    for place in (0, 40, 120):
        head = torch.nn.Linear(DIM, C).double()
        head.weight.data, head.bias.data = torch.tensor(weights.T.copy()), torch.tensor(bias)
        loss = -torch.log_softmax(head(torch.tensor(rows[place])), dim=0).sum()
        loss.backward()
        expected = float(head.weight.grad.abs().sum())
        assert scores["gradnorm"][place] == pytest.approx(expected, rel=1e-9)


def test_vim_and_residual_are_the_full_projection(numbers, scores):
    weights, bias, train, _, rows = numbers
    origin = -np.linalg.pinv(weights.T) @ bias
    _, vectors = np.linalg.eigh((train - origin).T @ (train - origin))
    minor = vectors[:, : DIM - 5]
    norm = np.linalg.norm((rows - origin) @ minor, axis=1)
    np.testing.assert_allclose(scores["residual"], -norm, rtol=1e-8)
    alpha = (train @ weights + bias).max(axis=1).mean()
    alpha /= np.linalg.norm((train - origin) @ minor, axis=1).mean()
    expected = logsumexp(rows @ weights + bias, axis=1) - alpha * norm
    np.testing.assert_allclose(scores["vim"], expected, rtol=1e-8, atol=1e-8)


def test_neco_is_the_share_of_the_principal_components(numbers, scores):
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    _, _, train, _, rows = numbers
    scaler = StandardScaler().fit(train)
    inside = PCA(4).fit(scaler.transform(train)).transform(scaler.transform(rows))
    expected = np.linalg.norm(inside, axis=1) / np.linalg.norm(scaler.transform(rows), axis=1)
    np.testing.assert_allclose(scores["neco"], expected, rtol=1e-8)


def test_shaped_activations_are_those_of_the_definitions(numbers, scores):
    weights, bias, train, _, rows = numbers
    kept = DIM - round(DIM * 0.9)

    def energy(z):
        return logsumexp(z @ weights + bias, axis=1)

    threshold = np.sort(rows, axis=1)[:, -kept][:, None]
    pruned = np.where(rows >= threshold, rows, 0)
    total, rest = rows.sum(axis=1, keepdims=True), pruned.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(scores["ash_p"], energy(pruned), rtol=1e-9)
    np.testing.assert_allclose(scores["ash_b"], energy((pruned > 0) * total / kept), rtol=1e-9)
    np.testing.assert_allclose(scores["ash_s"], energy(pruned * np.exp(total / rest)), rtol=1e-9)
    largest = np.sort(rows, axis=1)[:, -(DIM - round(DIM * 0.85)) :].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(scores["scale"], energy(rows * np.exp(total / largest)), rtol=1e-9)
    ratio = (total / np.sort(rows, axis=1)[:, -1:]) ** 2
    np.testing.assert_allclose(
        scores["lts"], logsumexp(ratio * (rows @ weights + bias), axis=1), rtol=1e-9
    )
    shares = train.mean(axis=0)[:, None] * weights
    sparse = np.where(shares > np.percentile(shares, 90), weights, 0)
    np.testing.assert_allclose(scores["dice"], logsumexp(rows @ sparse + bias, axis=1), rtol=1e-8)
    low, high = np.percentile(train, [10, 90])
    np.testing.assert_allclose(scores["react"], energy(np.minimum(rows, high)), rtol=1e-6)
    np.testing.assert_allclose(scores["vra"], energy(np.clip(rows, low, high)), rtol=1e-6)


def test_openmax_revises_the_largest_logits(numbers, scores):
    weights, bias, train, labels, rows = numbers
    logits = train @ weights + bias
    right = logits.argmax(axis=1) == labels
    means, tails = [], []
    for c in range(C):
        own = logits[right & (labels == c)]
        means.append(own.mean(axis=0))
        apart = np.sort(np.linalg.norm(own - means[-1], axis=1))[-20:]
        shape, _, scale = stats.weibull_min.fit(apart - apart[0] + 1, floc=0)
        tails.append((shape, scale, apart[0]))
    for place in range(0, len(rows), 17):
        one = rows[place] @ weights + bias
        revised, unknown = one.copy(), 0.0
        for rank, c in enumerate(np.argsort(-one)[:3]):
            shape, scale, first = tails[c]
            moved = max(np.linalg.norm(one - means[c]) - first + 1, 0)
            cut = one[c] * stats.weibull_min.cdf(moved, shape, scale=scale) * (3 - rank) / 3
            revised[c] -= cut
            unknown += cut
        expected = logsumexp([*revised, unknown]) - unknown
        assert scores["openmax"][place] == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_pnml_is_that_of_pytorch_ood_on_unit_rows(peer, world):
    from pytorch_ood import detector

    _, train, labels, rows = peer
    unit = replace(HEAD, standardise="l2")
    options = OodOptions(detectors=("pnml",), primary="pnml", head=unit)
    fitted = fit_detectors(world[0], world[1], options, np.random.default_rng(0))
    theirs = detector.PNML if hasattr(detector, "PNML") else detector.pNML
    one = theirs(None, peer_head(fitted.head.weights, fitted.head.bias))
    one.fit_features(train, labels)
    ours = fitted.scores(world[2])["pnml"]
    assert rank_agreement(ours, one.predict_features(rows)) >= 0.999999


def test_the_temperature_leaves_ranks_of_single_logits_to_msp(fitted, scores):
    assert fitted.shared.temperature == 1.0  # one strength: no row was held out
    np.testing.assert_allclose(scores["temperature"], scores["msp"])


def test_mcm_reads_raw_cosines_of_a_text_head(world):
    train, labels, rows = world
    text = np.random.default_rng(0).normal(size=(DIM, 3))
    text /= np.linalg.norm(text, axis=0)
    head = stored(
        text, np.zeros(3), names=("a", "b", "c"), kind="text", is_unit_norm=True, scale=100.0
    )
    found = fitted_on(train, labels, ("mcm", "msp"), given=head)
    got = found.scores(rows)
    unit = rows.astype(np.float64) / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    np.testing.assert_allclose(got["mcm"], np.log(softmax(unit @ text, axis=1).max(axis=1)))
    sharp = np.log(softmax(100 * unit @ text, axis=1).max(axis=1))
    np.testing.assert_allclose(got["msp"], sharp, atol=1e-9)
    assert found.details["head"]["source"] == "text head"
    with pytest.raises(ShapeError, match="mcm must have a text head; got none"):
        fitted_on(train, labels, ("mcm",))


@pytest.mark.parametrize("name", DEFAULT)
def test_the_order_of_train_rows_and_the_numbers_of_classes_change_nothing(
    name, world, scores, head
):
    train, labels, rows = world
    order = np.random.default_rng(0).permutation(N)
    renumbered = np.array([2, 0, 3, 1])[labels]
    columns = np.argsort([2, 0, 3, 1])
    moved = stored(head.weights[:, columns], head.bias[columns])
    again = fitted_on(train[order], renumbered[order], (name,), given=moved, **OPTIONS)
    np.testing.assert_allclose(again.scores(rows)[name], scores[name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", DEFAULT)
def test_every_detector_tells_far_rows_from_near_ones_or_says_a_number(name, scores):
    found = scores[name]
    assert np.isfinite(found).all()
    assert len(np.unique(found)) > 1


@pytest.mark.parametrize("name", DEFAULT)
@pytest.mark.parametrize("case", ["float16", "single class", "fewer rows", "constant dimension"])
def test_every_detector_scores_odd_train_rows(name, case, world):
    train, labels, rows = world
    if case == "float16":
        train, rows = train.astype(np.float16), rows.astype(np.float16)
    elif case == "single class":
        train, labels = train[labels == 1], labels[labels == 1]
    elif case == "fewer rows":
        train, labels = train[:9], np.array([0, 1, 2, 3] * 2 + [0])
    else:
        train, rows = train.copy(), rows.copy()
        train[:, 3], rows[:, 3] = 1.0, 1.0
    found = fitted_on(train, labels, (name,)).scores(rows)[name]
    assert np.isfinite(found).all()
    assert found.shape == (170,)


def test_one_row_and_no_row_are_scored(fitted, world, scores):
    one = fitted.scores(world[2][5:6])
    for name in DEFAULT:
        np.testing.assert_allclose(one[name], scores[name][5:6], rtol=1e-5, atol=1e-6)
    assert all(part.shape == (0,) for part in fitted.scores(world[2][:0]).values())


def test_blocks_change_nothing(world, scores, head, monkeypatch):
    from featcache.probes.ood import detectors, neighbours, shared

    monkeypatch.setattr(detectors, "_BLOCK_ROWS", 13)
    monkeypatch.setattr(neighbours, "_BANK_BYTES", 4 * 13 * 50)
    monkeypatch.setattr(shared, "_BLOCK_BYTES", 24 * DIM * 31)
    again = fitted_on(*world[:2], given=head, **OPTIONS).scores(world[2])
    for name in DEFAULT:
        np.testing.assert_allclose(again[name], scores[name], rtol=1e-5, atol=1e-5)


def test_rows_that_do_not_fit_are_refused(fitted, world):
    with pytest.raises(ShapeError, match="same number of dimensions"):
        fitted.scores(world[2][:, :5])
    broken = world[2].copy()
    broken[3] = np.nan
    with pytest.raises(ShapeError, match="must be finite"):
        fitted.scores(broken)
    broken[3] = 0
    with pytest.raises(ShapeError, match="non-zero norm"):
        fitted.scores(broken)


def test_a_further_run_scores_alike_and_looks_at_train_rows_for_neighbours_alone(
    world, head, monkeypatch
):
    from featcache.probes.ood.shared import IdStatistics

    train, labels, rows = world
    first = fitted_on(train, labels, given=head, **OPTIONS)
    cold = first.scores(rows)
    walks = []
    blocks = IdStatistics.blocks
    monkeypatch.setattr(
        IdStatistics, "blocks", lambda self, *given: walks.append(1) or blocks(self, *given)
    )
    second = fitted_on(train, labels, given=head, earlier=first.fit, **OPTIONS)
    warm = second.scores(rows)
    for name in DEFAULT:
        np.testing.assert_array_equal(warm[name], cold[name], err_msg=name)
    assert len(walks) == 1  # the bank's unit rows
    assert second.fit.arrays.keys() == first.fit.arrays.keys()


def test_a_further_run_takes_the_head_that_was_fitted_before(world, monkeypatch):
    from featcache.probes.ood import own_head

    train, labels, rows = world
    several = replace(HEAD, strengths=(0.01, 0.1, 1.0))
    first = fitted_on(train, labels, ("msp", "knn"), head=several)
    cold = first.scores(rows)
    monkeypatch.setattr(own_head, "fit_and_hold_out", None)
    second = fitted_on(train, labels, ("temperature", "msp"), head=several, earlier=first.fit)
    np.testing.assert_array_equal(second.scores(rows)["msp"], cold["msp"])
    assert second.details["head"] == first.details["head"]
    assert second.shared.temperature == first.own.temperature != 1.0
    assert first.own.is_new
    assert not second.own.is_new


def test_other_hyper_parameters_are_not_served_from_an_earlier_run(world, head):
    train, labels, rows = world
    others = {"k": 3, "subspace": 2, "openmax_tail": 5, "eigenvalue_floor": 0.9}
    others |= {"react_percentile": 50.0, "dice_percentile": 40.0, "vra_low": 30.0, "gen_top": 2}
    first = fitted_on(train, labels, given=head, **OPTIONS)
    first.scores(rows)
    warm = fitted_on(train, labels, given=head, earlier=first.fit, **{**OPTIONS, **others})
    alone = fitted_on(train, labels, given=head, **{**OPTIONS, **others})
    expected, found = alone.scores(rows), warm.scores(rows)
    for name in DEFAULT:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    for name in ("knn", "vim", "openmax", "react", "dice", "vra", "mahalanobis"):
        assert not np.array_equal(found[name], first.scores(rows)[name]), name


def test_the_k_largest_of_many_columns_are_those_of_a_sort():
    from featcache.probes.ood.neighbours import _largest

    rng = np.random.default_rng(0)
    for columns, k in ((31, 3), (32 * 21, 5), (32 * 40 + 17, 7), (5000, 1), (5000, 50)):
        values = rng.normal(size=(9, columns)).astype(np.float32)
        values[0] = 1.0  # all tied
        values[1, -k:] = 9.0  # in the columns that fill no group
        expected = -np.sort(-values, axis=1)[:, :k]
        np.testing.assert_array_equal(_largest(torch.tensor(values), k).numpy(), expected)


@pytest.mark.parametrize("dim", [7, 33, 100])
def test_equal_rows_tie_wherever_they_stand(dim):
    """A product's last bits depend on that; a detector would rank rows by them."""
    rng = np.random.default_rng(0)
    train = rng.normal(size=(300, dim))
    fitted = fitted_on(train, np.repeat(np.arange(C), 300 // C))
    rows = rng.normal(size=(9, dim))
    which = rng.permutation(np.repeat(np.arange(9), 301))
    for name, scores in fitted.scores(rows[which]).items():
        assert len(np.unique(scores)) <= 9, name
        np.testing.assert_allclose(
            scores, fitted.scores(rows)[name][which], rtol=1e-5, err_msg=name
        )
