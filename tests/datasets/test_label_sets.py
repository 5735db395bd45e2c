"""Sets of labels as labels."""

import pytest

from featcache.datasets.label_sets import label_sets, set_labels, set_name


def test_a_set_has_one_name_in_any_order():
    assert set_name(["dog", "cat", "dog"]) == set_name(("cat", "dog")) == "cat|dog"
    assert set_name([]) == "|"


def test_the_sets_of_all_splits_are_the_classes():
    train, test = [["b", "a"], []], [["a"], ["a", "b"]]
    names = label_sets(train, test)
    assert names == ("a", "a|b", "|")
    assert set_labels(train, names) == [1, 2]
    assert set_labels(test, names) == [0, 1]
    with pytest.raises(KeyError, match="c"):
        set_labels([["c"]], names)
