"""Recipes as text."""

import pytest

from featcache.derived import recipe
from featcache.derived.recipe import KINDS, Recipe
from featcache.errors import OptionError


@pytest.mark.parametrize(
    ("text", "written", "is_fitted", "gives_codes"),
    [
        ("", "", False, False),
        ("l2", "l2", False, False),
        (" pca:8 | l2 ", "pca:8|l2", True, False),
        ("truncate:08", "truncate:8", False, False),
        ("l2each|zscore|pq:4", "l2each|zscore|pq:4", True, True),
        ("int8", "int8", True, True),
    ],
)
def test_a_recipe_is_read_into_one_form(text, written, is_fitted, gives_codes):
    read = Recipe.parse(text)
    assert str(read) == written
    assert Recipe.parse(str(read)) == read
    assert (read.is_fitted, read.gives_codes) == (is_fitted, gives_codes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pcs:8", "Did you mean 'pca'"),
        ("l2||l2", "must be one of"),
        ("l2:3", "takes no size"),
        ("pca", "needs a size"),
        ("pca:0", "needs a size"),
        ("pca:-1", "needs a size"),
        ("pca:1e3", "needs a size"),
        ("pca:٣", "needs a size"),
        (f"pca:{'9' * 5000}", "needs a size"),
        ("int8|l2", "must be the last"),
        ("pq:4|int8", "must be the last"),
        ("l2|l2each", "must be the first"),
    ],
)
def test_a_wrong_recipe_is_one_message(text, message):
    with pytest.raises(OptionError, match=message):
        Recipe.parse(text)


def test_every_step_is_described():
    described = {line.split()[0].partition(":")[0] for line in recipe.__doc__.splitlines()[2:]}
    assert described == set(KINDS)
