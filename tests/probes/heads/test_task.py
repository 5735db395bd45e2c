import dataclasses

import numpy as np
import pytest

from featcache.errors import ShapeError
from featcache.head_store import StoredHead
from featcache.probes.catalog import default_protocol
from featcache.probes.run import run_task
from featcache.probes.tasks import TaskInputs
from featcache.spec import BackboneIdentity
from featcache.store.table import Table

NAMES = tuple(f"n{c:02d}" for c in range(20))


def head(**given):
    rng = np.random.default_rng(1)
    fields = {
        "kind": "native",
        "weights": rng.normal(size=(8, 20)).astype(np.float32),
        "bias": rng.normal(size=20).astype(np.float32),
        "class_names": NAMES,
        "backbone": BackboneIdentity(name="b", architecture="a", weights="w"),
        "tap": "pooled",
    }
    return StoredHead(**{**fields, **given})


def table(n=300, classes=(7, 2, 11, 5, 19, 0, 13), *, dtype=np.float32):
    """Rows that lean towards their class, of some of the head's classes in another order."""
    rng = np.random.default_rng(2)
    labels = rng.integers(0, len(classes), n)
    directions = head().weights[:, list(classes)].T
    rows = (rng.normal(size=(n, 8)) + 0.4 * directions[labels]).astype(dtype)
    return Table(
        features=rows,
        labels=labels,
        ids=np.array([f"{i:04d}" for i in range(n)]),
        class_names=tuple(NAMES[c] for c in classes),
    )


def run(stored, test, **options):
    protocol = dataclasses.replace(default_protocol("head"), options=options)
    return run_task(protocol, TaskInputs(test=test, head=stored))


def brute_force(stored, test):
    """Masked top-1, unmasked top-1, masked top-5, mean per class, one row after the other."""
    columns = [stored.class_names.index(name) for name in test.class_names]
    masked, free, five = [], [], []
    for row, label in zip(test.features.astype(float), test.labels, strict=True):
        x = row / np.linalg.norm(row) if stored.is_unit_norm else row
        logits = [
            stored.scale * (sum(x * stored.weights[:, c].astype(float)) + stored.bias[c])
            for c in range(len(stored.class_names))
        ]
        among = [logits[c] for c in columns]
        masked.append(int(np.argmax(among)) == label)
        five.append(label in np.argsort(among)[-5:])
        free.append(int(np.argmax(logits)) == columns[label])
    per_class = [np.mean(np.array(masked)[test.labels == c]) for c in np.unique(test.labels)]
    return np.mean(masked), np.mean(free), np.mean(five), np.mean(per_class)


@pytest.mark.parametrize(
    "stored", [head(), head(kind="text", is_unit_norm=True, scale=10.0, bias=np.zeros(20))]
)
def test_accuracies_are_those_of_a_brute_force(stored):
    test = table()
    outcome = run(stored, test)
    got = [outcome.metrics[m] for m in ("top1", "top1_unmasked", "top5", "mean_per_class")]
    assert got == pytest.approx(brute_force(stored, test), abs=1e-12)
    assert outcome.metrics["top1_unmasked"] < outcome.metrics["top1"]  # the mask matters here
    low, high = outcome.intervals["top1_unmasked"]
    assert low < outcome.metrics["top1_unmasked"] < high
    assert outcome.predictions["is_right_unmasked"].mean() == outcome.metrics["top1_unmasked"]
    assert outcome.predictions["prediction"].max() < 7


def test_without_mask_the_primary_metric_is_that_of_all_classes():
    outcome = run(head(), table(), mask="none")
    assert outcome.metrics["top1"] == outcome.metrics["top1_unmasked"]
    outside = outcome.predictions["prediction"] >= 7
    assert outside.sum() == outcome.details["predicted_outside_dataset"] > 0


def test_a_head_of_exactly_the_datasets_classes_needs_no_mask():
    test = table(classes=tuple(range(20)))
    outcome = run(head(), test)
    assert outcome.metrics["top1"] == outcome.metrics["top1_unmasked"]
    assert outcome.details["predicted_outside_dataset"] == 0


def test_the_order_of_the_heads_classes_changes_nothing():
    order = np.random.default_rng(4).permutation(20)
    one = head()
    other = head(
        weights=one.weights[:, order],
        bias=one.bias[order],
        class_names=tuple(NAMES[c] for c in order),
    )
    first, second = run(one, table()), run(other, table())
    assert first.metrics == pytest.approx(second.metrics, abs=1e-6)
    np.testing.assert_array_equal(first.predictions["prediction"], second.predictions["prediction"])


def test_the_order_of_the_datasets_classes_changes_nothing():
    test, order = table(), np.random.default_rng(5).permutation(7)
    other = dataclasses.replace(
        test,
        labels=np.argsort(order)[test.labels],
        class_names=tuple(test.class_names[c] for c in order),
    )
    first, second = run(head(), test), run(head(), other)
    assert first.metrics == pytest.approx(second.metrics, abs=1e-6)


def test_float16_features_are_read_in_double_precision():
    test = table(dtype=np.float16)
    wide = dataclasses.replace(test, features=test.features.astype(np.float64))
    assert run(head(), test).metrics == run(head(), wide).metrics
    huge = dataclasses.replace(test, features=np.full_like(test.features, 60000))
    assert np.isfinite(list(run(head(weights=1e4 * head().weights), huge).metrics.values())).all()


def test_a_tie_goes_to_the_datasets_class():
    stored = head(weights=np.zeros((8, 20)), bias=np.zeros(20))
    test = table(classes=(7, 2))
    outcome = run(stored, test)
    assert (outcome.predictions["prediction"] == 0).all()
    assert outcome.metrics["top1_unmasked"] == outcome.metrics["top1"] == np.mean(test.labels == 0)


def test_classes_are_matched_through_a_map():
    test = dataclasses.replace(table(classes=(7, 2)), class_names=("cat", "dog"))
    with pytest.raises(ShapeError, match="2 of 2 are not: 'cat', 'dog'"):
        run(head(), test)
    outcome = run(head(), test, class_map="cat -> n07\ndog -> n02")
    assert outcome.metrics == run(head(), table(classes=(7, 2))).metrics
    assert outcome.details["classes_mapped"] == 2


def test_unlabelled_rows_are_dropped_and_counted():
    test = table()
    blank = dataclasses.replace(test, labels=np.where(np.arange(300) < 9, -1, test.labels))
    outcome = run(head(), blank)
    assert outcome.n == 291
    assert outcome.details["dropped_unlabelled_test"] == 9
    none = dataclasses.replace(test, labels=np.full(300, -1))
    with pytest.raises(ShapeError, match="`test` must have labelled rows; got 300"):
        run(head(), none)


def test_a_head_that_is_missing_or_of_another_width_is_refused():
    with pytest.raises(ShapeError, match=r"Task 'head' needs a classifier; got none\. .*--head"):
        run(None, table())
    with pytest.raises(ShapeError, match="the head reads 5 dimensions and test has 8"):
        run(head(weights=np.ones((5, 20))), table())


def test_a_zero_row_is_refused_by_a_head_on_unit_rows():
    test = table()
    test.features[3] = 0
    run(head(), test)
    with pytest.raises(ShapeError, match="must have rows of non-zero norm"):
        run(head(kind="text", is_unit_norm=True), test)


def test_the_details_name_the_head():
    stored = head()
    assert run(stored, table()).details["head"]["key"] == stored.key


def test_rows_of_a_class_that_had_no_train_row_are_wrong():
    """The head knows the class by name, and that it never saw it."""
    test = table()
    seen = [c for c in range(20) if c not in (2, 19)]
    whole = head()
    part = head(
        weights=whole.weights[:, seen],
        bias=whole.bias[seen],
        class_names=tuple(NAMES[c] for c in seen),
        origin={"absent": [NAMES[2], NAMES[19], "another"]},
    )
    outcome = run(part, test)
    inside = np.isin(test.labels, [0, 2, 3, 5, 6])
    known = dataclasses.replace(
        test,
        features=test.features[inside],
        labels=np.unique(test.labels[inside], return_inverse=True)[1],
        ids=test.ids[inside],
        class_names=tuple(test.class_names[c] for c in (0, 2, 3, 5, 6)),
    )
    right = brute_force(part, known)
    assert outcome.metrics["top1"] == pytest.approx(right[0] * inside.mean(), abs=1e-12)
    assert outcome.metrics["top1_unmasked"] == pytest.approx(right[1] * inside.mean(), abs=1e-12)
    assert outcome.details["rows_of_classes_without_train_rows"] == (~inside).sum()
    assert not np.isin(outcome.predictions["prediction"], [1, 4]).any()
    with pytest.raises(ShapeError, match="2 of 7 are not: 'n02', 'n19'"):
        run(dataclasses.replace(part, origin={}), test)
