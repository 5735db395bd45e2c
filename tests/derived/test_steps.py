"""Each step against a reference that shares no code with it."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler, normalize

from featcache.derived.recipe import Step
from featcache.derived.steps import PQ_ROWS, Quantise, fit_step
from featcache.errors import ShapeError
from featcache.store.codes import LEVELS, check_decoder, decode, encode

DIM = 12


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(DIM, DIM)) * np.geomspace(3, 0.1, DIM)
    return (rng.normal(size=(900, DIM)) @ mixing + 5).astype(np.float32)


def fit(name, rows, size=0, widths=(DIM,), blocks=7):
    return fit_step(Step(name, size), lambda: iter(np.array_split(rows, blocks)), widths, 0)


def test_rows_get_unit_length_and_zeros_stay(rows):
    rows = np.concatenate([rows, np.zeros((1, DIM), np.float32)])
    np.testing.assert_allclose(fit("l2", rows)(rows), normalize(rows), atol=1e-6)


def test_each_part_gets_unit_length(rows):
    unit = fit("l2each", rows, widths=(5, DIM - 5))(rows)
    np.testing.assert_allclose(np.linalg.norm(unit[:, :5], axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(unit[:, 5:], axis=1), 1, rtol=1e-6)


def test_zscore_and_center_are_scikit_learns(rows):
    scaler = StandardScaler().fit(rows)
    np.testing.assert_allclose(fit("zscore", rows)(rows), scaler.transform(rows), atol=1e-5)
    np.testing.assert_allclose(fit("center", rows)(rows), rows - rows.mean(0), atol=1e-4)


def test_a_constant_dimension_becomes_zero(rows):
    rows = rows.copy()
    rows[:, 3] = 1e4 + 0.1
    assert not fit("zscore", rows)(rows)[:, 3].any()


@pytest.mark.parametrize("name", ["pca", "whiten"])
def test_axes_are_scikit_learns_up_to_sign(rows, name):
    reference = PCA(5, whiten=name == "whiten", svd_solver="full").fit_transform(rows)
    if name == "whiten":  # it divides by n - 1
        reference *= np.sqrt(len(rows) / (len(rows) - 1))
    found = fit(name, rows, 5)(rows)
    np.testing.assert_allclose(np.abs(found), np.abs(reference), rtol=1e-3, atol=1e-3)


def test_axes_do_not_depend_on_the_order_of_rows(rows):
    shuffled = np.random.default_rng(1).permutation(rows)
    first, second = fit("pca", rows, 6)(rows), fit("pca", shuffled, 6, blocks=3)(rows)
    np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-4)


def test_whitened_rows_are_uncorrelated_with_variance_one(rows):
    covariance = np.cov(fit("whiten", rows, DIM)(rows).T, bias=True)
    np.testing.assert_allclose(covariance, np.eye(DIM), atol=1e-3)


def test_truncation_keeps_the_first_values(rows):
    np.testing.assert_array_equal(fit("truncate", rows, 4)(rows), rows[:, :4])


def test_int8_is_within_half_a_level(rows):
    quantise = fit("int8", rows)
    levels = np.ptp(rows, axis=0) / (LEVELS - 1)
    assert (np.abs(quantise(rows) - rows) <= levels / 2 + 1e-5).all()
    far = np.full((1, DIM), 1e9, np.float32)
    np.testing.assert_allclose(quantise(far)[0], rows.max(0), rtol=1e-5)
    assert quantise.encode(rows).dtype == np.uint8


def test_product_codes_are_the_nearest_centroids(rows):
    quantise = fit("pq", rows, 3)
    codes = quantise.encode(rows)
    assert codes.shape == (len(rows), 3)
    for part in range(3):
        columns = slice(part * 4, part * 4 + 4)
        centroids = quantise.decoder[:, columns]
        distances = ((rows[:, None, columns] - centroids[None]) ** 2).sum(-1)  # (n, 256)
        chosen = np.take_along_axis(distances, codes[:, part, None].astype(int), 1)[:, 0]
        np.testing.assert_allclose(chosen, distances.min(1), atol=1e-4)
        np.testing.assert_array_equal(
            decode(codes, quantise.decoder)[:, columns], centroids[codes[:, part]]
        )


def test_product_quantisation_is_as_good_as_faiss_own(rows):
    import torch  # noqa: F401, I001

    import faiss

    reference = faiss.ProductQuantizer(DIM, 3, 8)
    reference.train(rows)
    theirs = ((reference.decode(reference.compute_codes(rows)) - rows) ** 2).mean()
    ours = ((fit("pq", rows, 3)(rows) - rows) ** 2).mean()
    assert ours <= theirs * 1.1


def test_a_fit_is_the_same_every_time(rows):
    first, second = fit("pq", rows, 3), fit("pq", rows, 3, blocks=2)
    np.testing.assert_array_equal(first.decoder, second.decoder)
    assert PQ_ROWS == 65536


@pytest.mark.parametrize(
    ("name", "size", "n", "message"),
    [
        ("pca", 13, 900, "at most the 12 dimensions"),
        ("truncate", 13, 900, "at most the 12 dimensions"),
        ("whiten", 12, 5, "at most the 4 dimensions in which"),
        ("pq", 5, 900, "5 does not divide 12"),
        ("pq", 3, 255, "at least 256 rows"),
        ("zscore", 0, 0, "at least one row"),
        ("int8", 0, 0, "at least one row"),
    ],
)
def test_a_size_that_does_not_fit_is_one_message(rows, name, size, n, message):
    with pytest.raises(ShapeError, match=message):
        fit(name, rows[:n], size, blocks=1 if n else 0) if n else fit_step(
            Step(name, size), lambda: iter([]), (DIM,), 0
        )


@pytest.mark.parametrize(
    ("shape", "row_shape", "is_right"),
    [
        ((2, 8), (8,), True),
        ((2, 8), (4,), False),
        ((256, 8), (4,), True),
        ((256, 8), (3,), False),
        ((256, 8), (16,), False),
        ((256, 8), (4, 4), False),
        ((3, 8), (8,), False),
        ((2, 0), (0,), True),
    ],
)
def test_a_decoder_must_fit_its_codes(shape, row_shape, is_right):
    assert (check_decoder(np.zeros(shape, np.float32), row_shape) is None) == is_right


def test_a_decoder_must_be_there_and_finite():
    assert check_decoder(None, (8,)) == "is missing"
    assert "finite" in check_decoder(np.full((2, 8), np.nan, np.float32), (8,))


def test_a_dimension_without_spread_is_coded_as_its_value():
    rows = np.full((4, DIM), 2.5, np.float32)
    quantise = fit("int8", rows, blocks=1)
    assert isinstance(quantise, Quantise)
    np.testing.assert_array_equal(quantise(rows), rows)
    assert not encode(rows, quantise.decoder, DIM).any()
