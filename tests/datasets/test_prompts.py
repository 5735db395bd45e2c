"""Published prompts: each list is whole, and fits the datasets that it is for."""

import pytest

from featcache.datasets.imagenet import imagenet_wnids
from featcache.datasets.named import named
from featcache.datasets.prompts import (
    FALLBACK,
    IMAGENET,
    Prompts,
    list_names,
    prompts_for,
    prompts_of,
    spoken,
    templates_of,
)
from featcache.datasets.prompts import _lists as lists
from featcache.errors import MissingDependencyError, OptionError


@pytest.mark.parametrize("name", list_names())
def test_each_template_has_one_place_and_stands_once(name):
    if IMAGENET in (name, lists().get(name, {}).get("templates")):
        pytest.importorskip("open_clip")
    templates = templates_of(name)
    assert [text.count("{}") for text in templates] == [1] * len(templates)
    assert len(set(templates)) == len(templates) >= 1


def owners():
    return [(key, name) for key, row in lists().items() for name in row.get("for", ())]


@pytest.mark.parametrize(("key", "dataset"), owners())
def test_a_list_is_for_a_dataset_there_is_and_names_no_more_classes(key, dataset):
    known = {name.removeprefix("torchvision:"): facts for name, facts in named().items()}
    classes, names = known[dataset]["classes"], lists()[key].get("names", {})
    assert set(lists()[key]) <= {"for", "source", "templates", "names", "slashes"}
    assert len(names) == classes if isinstance(names, list) else len(names) <= classes + 1
    if key == "eurosat":
        assert len(names) == classes


def test_a_dataset_has_one_list():
    datasets = [dataset for _, dataset in owners()]
    assert len(set(datasets)) == len(datasets)


def test_every_dataset_meant_for_zero_shot_has_a_list_or_is_known_to_have_none():
    meant = {
        name.removeprefix("torchvision:")
        for name, facts in named().items()
        if "zeroshot" in facts["tasks"]
    }
    without = meant - {dataset for _, dataset in owners()}
    by_wordnet_ids = {f"imagenet{part}" for part in ("", "-a", "-r", "-c", "-v2", "-sketch")}
    assert without - by_wordnet_ids <= {"Caltech256"}


@pytest.mark.parametrize(
    ("dataset", "name", "prompt"),
    [
        ("cifar10", "automobile", "a photo of a automobile."),
        ("cifar100-500", "aquarium_fish", "a photo of a aquarium fish."),
        ("dtd-part-64", "braided", "a photo of a braided texture."),
        ("sun397", "apartment_building/outdoor", "a photo of a apartment building outdoor."),
        ("fgvc-aircraft", "F-16A/B", "a photo of a F-16A/B, a type of aircraft."),
        ("oxford-pets", "american_bulldog", "a photo of a american bulldog, a type of pet."),
        ("food101", "baby_back_ribs", "a photo of baby back ribs, a type of food."),
        ("flowers102", "ball moss", "a photo of a air plant, a type of flower."),
        ("eurosat", "SeaLake", "a centered satellite photo of lake or sea."),
        ("caltech101", "yin_yang", "a photo of a yin and yang symbol."),
        ("dtd", "polka-dotted", "a photo of a polka-dotted texture."),
        ("stanford-cars", "Ram C/V Cargo Van Minivan 2012", "a photo of a Ram C/V Cargo Van M"),
        ("fashion-mnist", "T-shirt/top", "a photo of a t-shirt or top, a type of clothing."),
        ("my-birds", "001.Black_footed_Albatross", "a photo of a Black footed Albatross."),
    ],
)
def test_prompts_are_the_published_ones(dataset, name, prompt):
    assert prompts_for(dataset, [name]).texts().texts[0].startswith(prompt)


def test_classes_that_are_numbers_get_the_names_of_their_places():
    digits = tuple(str(digit) for digit in range(10))
    assert prompts_for("digits", digits).texts().texts[3] == 'a photo of the number: "3".'
    mnist = prompts_for("MNIST", [f"{digit} - name" for digit in digits])
    assert mnist.texts().texts[3] == 'a photo of the number: "3".'
    assert prompts_for("SVHN", digits).names[:2] == ("zero", "one")
    signs = prompts_for("GTSRB", [str(sign) for sign in range(43)])
    assert signs.names[14] == "stop"
    assert signs.names[42].endswith("no passing for trucks has ended")


def test_countries_are_in_the_order_of_their_codes():
    names = lists()["country211"]["names"]
    assert (names[0], names[49], names[-1], len(set(names))) == (
        "Andorra",
        "Germany",
        "Zimbabwe",
        211,
    )


def test_another_number_of_classes_stands_by_its_own_names():
    some = prompts_for("GTSRB", ["no_entry", "yield"])
    assert (some.list_name, some.names) == ("gtsrb", ("no entry", "yield"))


def test_a_dataset_without_a_list_gets_the_plain_prompt_and_says_so():
    prompts = prompts_for("mine", ["big_cat", "dog"])
    assert (prompts.list_name, prompts.names) == (FALLBACK, ("big cat", "dog"))
    assert prompts.origin() == {
        "templates": ["a photo of a {}."],
        "prompt_names": ["big cat", "dog"],
    }
    assert "prompt_names" not in prompts_for("mine", ["cat"]).origin()


def test_imagenet_has_a_thousand_names_and_eighty_templates_of_open_clip():
    pytest.importorskip("open_clip")
    prompts = prompts_for("imagenet", imagenet_wnids())
    assert (len(prompts.names), len(prompts.templates)) == (1000, 80)
    assert (prompts.names[0], prompts.names[134], prompts.names[517]) == (
        "tench",
        "crane bird",
        "construction crane",
    )
    assert prompts.templates[0] == "a bad photo of a {}."


def test_datasets_of_some_classes_of_imagenet_have_its_names():
    pytest.importorskip("open_clip")
    classes = named()["imagenet-a"]["class_subset"]["classes"]
    prompts = prompts_for("imagenet-a", classes)
    assert (prompts.list_name, len(prompts.names)) == (IMAGENET, 200)
    assert prompts.names[:2] == ("stingray", "goldfinch")
    own = prompts_for("mine", ["n02123045", "n01440764"])
    assert own.names == ("tabby cat", "tench")
    assert prompts_for("mine", ["n02123045", "n99999999"]).list_name == FALLBACK
    assert len(prompts_for("Imagenette", list("abcdefghij")).templates) == 80
    imagenette = ["n01440764", "n02102040", "n02979186", "n03000684", "n03028079"]
    assert list(prompts_for("any", imagenette).names) == lists()["imagenette"]["names"][:5]


def test_imagenet_without_open_clip_names_what_to_install(monkeypatch):
    import sys

    from featcache.datasets import prompts

    prompts._imagenet.cache_clear()
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(MissingDependencyError, match=r"prompts of ImageNet.*\[open-clip\]"):
        prompts_for("imagenet", ["n01440764"])


def test_rows_of_prompts_are_named_by_class_and_template():
    prompts = Prompts(
        list_name="given", class_names=("a", "b"), names=("A", "{}"), templates=("x {}", "{}!")
    )
    texts = prompts.texts()
    assert (texts.name, texts.split) == ("prompts", "given")
    assert texts.ids == ("0/0", "0/1", "1/0", "1/1")
    assert texts.texts == ("x A", "A!", "x {}", "{}!")
    assert texts.labels.tolist() == [0, 0, 1, 1]
    assert texts.class_names == ("a", "b")


@pytest.mark.parametrize(
    ("name", "said"),
    [("a_b", "a b"), ("1.", "1."), ("_", "_"), ("F-16A/B", "F-16A/B"), ("707-320", "707-320")],
)
def test_names_are_said_without_underscores_and_never_empty(name, said):
    assert spoken(name) == said


def test_the_seven_templates_are_those_that_open_clip_ships():
    open_clip = pytest.importorskip("open_clip")
    theirs = [one("X") for one in open_clip.SIMPLE_IMAGENET_TEMPLATES]
    assert prompts_of("X", templates_of("openai7")) == theirs


@pytest.mark.parametrize(
    ("classes", "templates", "message"),
    [
        ("ab", (), "got None"),
        ("ab", ("a photo",), "got 'a photo'"),
        ("ab", ("{} and {}",), "got '{} and {}'"),
        ("aa", ("{}",), "Class names must differ"),
        ("a ", ("{}",), "none may be empty"),
        ("", ("{}",), "got 0 for 0 classes"),
    ],
)
def test_prompts_that_cannot_be_made_are_refused(classes, templates, message):
    names = tuple(classes)
    with pytest.raises(OptionError, match=message):
        Prompts(list_name="given", class_names=names, names=names, templates=templates)


def test_as_many_names_as_classes_are_needed_and_none_empty():
    given = {"list_name": "given", "class_names": ("a", "b"), "templates": ("{}",)}
    with pytest.raises(OptionError, match="got 1 for 2 classes"):
        Prompts(names=("a",), **given)
    with pytest.raises(OptionError, match="none may be empty"):
        Prompts(names=("cat", ""), **given)
