import dataclasses

import pytest

from featcache.digest import canonical_json
from featcache.errors import SpecError
from featcache.spec import (
    BackboneIdentity,
    DatasetIdentity,
    ExtractionSpec,
    Numerics,
    TransformSpec,
    explain,
)


def spec(**changes):
    fields = {
        "dataset": DatasetIdentity(
            name="digits", split="train", rows=10, fingerprint="f", label_set="l"
        ),
        "backbone": BackboneIdentity(name="pixels", architecture="pixels", weights=""),
        "transform": TransformSpec(resize=256, crop=224).to_json(),
        "tap": "pooled",
    }
    return ExtractionSpec(**{**fields, **changes})


def test_the_key_is_stable_across_versions_of_this_code():
    assert spec().key == "b2f13091008508c1ec0e6790873b0eaa22b0eee8632c9f25854b1ba0c61169c8"


def test_a_spec_survives_its_json():
    assert ExtractionSpec.from_json(spec().to_json()) == spec()
    assert ExtractionSpec.from_json(spec().to_json()).key == spec().key


@pytest.mark.parametrize(
    "changes",
    [
        {"tap": "cls"},
        {"numerics": Numerics(compute="bf16")},
        {"numerics": Numerics(stored="float32")},
        {"transform": TransformSpec(resize=224, crop=224).to_json()},
        {"transform": TransformSpec(resize=256, crop=224, interpolation="bilinear").to_json()},
        {"transform": TransformSpec(resize=256, crop=224, mean=(0.5, 0.5, 0.5)).to_json()},
        {"backbone": BackboneIdentity(name="pixels", architecture="pixels", weights="other")},
        {"backbone": BackboneIdentity(name="pixel", architecture="pixels", weights="")},
        {"dataset": dataclasses.replace(spec().dataset, fingerprint="g")},
        {"dataset": dataclasses.replace(spec().dataset, label_set="m")},
        {"dataset": dataclasses.replace(spec().dataset, split="test")},
    ],
)
def test_whatever_changes_a_feature_changes_the_key(changes):
    assert spec(**changes).key != spec().key


def test_explain_names_exactly_the_fields_that_differ():
    other = spec(tap="cls", numerics=Numerics(compute="bf16"))
    assert explain(spec().to_json(), other.to_json()) == [
        ("numerics.compute", "fp32", "bf16"),
        ("tap", "pooled", "cls"),
    ]
    assert explain(spec().to_json(), spec().to_json()) == []


def test_canonical_json_has_one_form_per_value():
    assert canonical_json({"b": 1.0, "a": (1, 2)}) == '{"a":[1,2],"b":1}'
    assert canonical_json("é") == '"é"'


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), {1: 2}, object(), b"bytes"])
def test_values_that_are_not_plain_json_are_refused(bad):
    with pytest.raises(SpecError, match="Spec (values|keys) must be"):
        canonical_json({"x": bad})


def test_a_newer_format_is_refused_with_advice():
    with pytest.raises(SpecError, match=r"reads format 1.*has format 99.*Upgrade"):
        ExtractionSpec.from_json({**spec().to_json(), "format": 99})


@pytest.mark.parametrize("field", ["dataset", "backbone", "transform", "tap", "views", "numerics"])
def test_a_stored_spec_without_a_field_is_refused(field):
    data = spec().to_json()
    del data[field]
    with pytest.raises(SpecError, match="all fields of a spec"):
        ExtractionSpec.from_json(data)


def test_an_unknown_precision_is_refused():
    with pytest.raises(SpecError, match="`compute` must be one of fp32.*got 'fp31'"):
        Numerics(compute="fp31")


def test_an_empty_split_is_refused():
    with pytest.raises(SpecError, match="at least one row"):
        DatasetIdentity(name="x", split="train", rows=0, fingerprint="", label_set="")
