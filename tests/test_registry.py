from importlib import metadata

import pytest

from featcache.errors import FeatcacheError, UnknownNameError
from featcache.registry import Entry, Registry, load_target


def registry(*names):
    made = Registry("backbone", "featcache.none", list_command="featcache ls backbones")
    for name in names:
        made.register(name, Entry(target="math:sqrt"))
    return made


def test_a_typo_is_answered_with_the_nearest_names_and_how_to_list():
    with pytest.raises(
        UnknownNameError,
        match="'efficientnet_lit0' is not a known backbone. "
        "Did you mean 'efficientnet_lite0'.*featcache ls backbones",
    ):
        registry("efficientnet_lite0", "dino_vits16").get("efficientnet_lit0")


def test_a_name_without_its_tag_is_answered_with_the_tagged_ones_alone():
    names = ("net.a1", "net.tv", "my_net", "nets")
    with pytest.raises(UnknownNameError, match=r"mean 'net\.\w+' or 'net\.\w+'\? List"):
        registry(*names).get("net")


def test_nothing_near_gives_only_the_way_to_list():
    with pytest.raises(UnknownNameError, match=r"backbone\. List them"):
        registry("abc").get("zzzzzzzz")


def test_a_name_taken_by_another_target_raises_with_both():
    made = registry("a")
    made.register("a", Entry(target="math:sqrt"))
    with pytest.raises(FeatcacheError, match=r"math:sqrt.*again by math:cos"):
        made.register("a", Entry(target="math:cos"))


def test_names_are_filtered_by_shell_patterns():
    assert registry("dino_s", "dino_b", "mae").names("dino*") == ["dino_b", "dino_s"]


def test_a_broken_plug_in_is_named_and_the_rest_load(monkeypatch):
    class Point:
        def __init__(self, name, entries):
            self.name, self.value, self.entries = name, f"{name}:entries", entries

        def load(self):
            if self.entries is None:
                raise ImportError("no module named gone")
            return lambda: self.entries

    points = [Point("bad", None), Point("good", {"x": Entry(target="math:pi")})]
    monkeypatch.setattr(metadata, "entry_points", lambda group: points)
    made = Registry("dataset", "any", list_command="ls")
    with pytest.warns(UserWarning, match="plug-in 'bad'.*left out: no module named gone"):
        assert made.names() == ["x"]


@pytest.mark.parametrize("target", ["no_such_module:x", "math:no_such", "math"])
def test_a_target_that_does_not_exist_is_a_clear_error(target):
    with pytest.raises(UnknownNameError, match="must name an"):
        load_target(target)
