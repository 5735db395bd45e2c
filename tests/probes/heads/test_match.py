import numpy as np
import pytest

from featcache.errors import OptionError, ShapeError
from featcache.probes.heads.match import match_classes
from featcache.probes.heads.options import HeadOptions

NAMES = ("n1", "n2", "n3", "n4")
WORDS = ("tench", "crane", "crane", "n1")


def test_classes_are_found_by_name_in_any_order():
    assert match_classes(["n3", "n1"], NAMES).tolist() == [2, 0]
    assert match_classes(NAMES, NAMES).tolist() == [0, 1, 2, 3]


def test_a_description_stands_for_a_class_if_it_is_its_alone():
    assert match_classes(["tench", "n3"], NAMES, WORDS).tolist() == [0, 2]
    with pytest.raises(ShapeError, match=r"1 of 1 are not: 'crane'"):
        match_classes(["crane"], NAMES, WORDS)


def test_a_name_goes_before_a_description():
    assert match_classes(["n1"], NAMES, WORDS).tolist() == [0]


def test_a_class_map_goes_before_everything():
    columns = match_classes(["a", "n1"], NAMES, WORDS, {"a": "tench", "n1": "n4"})
    assert columns.tolist() == [0, 3]


def test_classes_that_the_head_lacks_are_named_three_of_them():
    with pytest.raises(
        ShapeError,
        match=r"among the head's 4, such as 'n1', 'n2', 'n3' and 1 more; 5 of 6 are not: "
        r"'a', 'b', 'c' and 2 more\. Name their classes in the protocol's `class_map`",
    ):
        match_classes(["a", "b", "n2", "c", "d", "e"], NAMES)


def test_two_classes_of_one_head_class_are_refused():
    with pytest.raises(ShapeError, match=r"'a', 'n1' share 'n1'"):
        match_classes(["a", "n1", "n2"], NAMES, class_map={"a": "n1"})


def test_a_class_map_about_other_classes_is_refused():
    with pytest.raises(ShapeError, match=r"about classes of the dataset; it has 'x'"):
        match_classes(["n1"], NAMES, class_map={"x": "n1"})


def test_a_class_map_is_lines_with_an_arrow():
    options = HeadOptions(class_map="great white -> n1\n\n  0->n2 \n")
    assert options.mapping() == {"great white": "n1", "0": "n2"}
    assert HeadOptions().mapping() == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a n1", "got 'a n1'. Correct the line"),
        ("-> n1", "got '-> n1'"),
        ("a ->", "got 'a ->'"),
        ("a -> b\na -> c", "a second line for its class"),
    ],
)
def test_lines_that_cannot_be_read_are_refused(text, message):
    with pytest.raises(OptionError, match=message):
        HeadOptions(class_map=text)


def test_an_unknown_mask_is_refused():
    with pytest.raises(OptionError, match="`mask` must be one of dataset, none; got 'all'"):
        HeadOptions(mask="all")


def test_a_permuted_dataset_permutes_its_columns():
    names = [f"c{i}" for i in range(50)]
    chosen = np.random.default_rng(0).permutation(50)[:20]
    columns = match_classes([names[c] for c in chosen], names)
    np.testing.assert_array_equal(columns, chosen)
