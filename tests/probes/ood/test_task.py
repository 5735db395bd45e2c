from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from featcache.errors import OptionError, ShapeError
from featcache.probes.catalog import default_protocol, load_protocol
from featcache.probes.ood.metrics import POSITIVE, detection_metrics
from featcache.probes.ood.warnings import contamination
from featcache.probes.run import run_task
from featcache.probes.tasks import TaskInputs

HEAD = {"strengths": [0.1]}


@pytest.fixture
def inputs(make_table):
    return TaskInputs(
        train=make_table(160, seed=1, name="train"),
        test=make_table(90, seed=2, name="test"),
        ood={
            "near": make_table(60, seed=3, world=8, name="near"),
            "far": make_table(50, seed=4, world=9, name="far"),
            "shifted": make_table(40, seed=6, name="shifted"),
        },
        seed=5,
    )


def protocol(**options):
    base = default_protocol("ood")
    few = {"detectors": ["msp", "knn", "gen"], "head": {**base.options["head"], **HEAD}}
    return replace(base, options={**base.options, **few, **options})


def of(outcome, detector, name):
    kept = outcome.predictions["dataset"] == name
    return outcome.predictions[detector][kept]


def test_groups_average_their_sets(inputs):
    groups = {"close": ["near", "shifted"], "distant": ["far"], "none": ["other"]}
    outcome = run_task(protocol(groups=groups), inputs)
    single = [outcome.metrics[f"knn.{name}.auroc"] for name in ("near", "shifted")]
    assert outcome.metrics["knn.close.auroc"] == pytest.approx(np.mean(single))
    assert outcome.metrics["knn.distant.auroc"] == outcome.metrics["knn.far.auroc"]
    assert "knn.none.auroc" not in outcome.metrics


def test_full_spectrum_counts_shifted_rows_as_inside(inputs):
    outcome = run_task(protocol(full_spectrum=["shifted"]), inputs)
    assert "knn.shifted.auroc" not in outcome.metrics
    inside = np.concatenate([of(outcome, "knn", "test"), of(outcome, "knn", "shifted")])
    expected = detection_metrics(inside, of(outcome, "knn", "far"))
    for metric in POSITIVE:
        assert outcome.metrics[f"fs.knn.far.{metric}"] == pytest.approx(expected[metric])
    assert outcome.predictions["is_ood"].sum() == 110


def test_tuning_is_beside_the_defaults_and_leaves_its_sets_out(inputs):
    outcome = run_task(protocol(tune="openood", tuning_sets=["near"]), inputs)
    assert not any(".near." in name for name in outcome.metrics)
    assert outcome.metrics["auroc"] == outcome.metrics["knn.auroc"]
    tried = outcome.details["tuning"]["gen"]["auroc"]
    assert len(tried) == 7 * 6
    best = max(score for _, score in tried)
    first = next(point for point, score in tried if score == best)
    assert outcome.details["tuning"]["gen"]["chosen"] == first
    assert 0 <= outcome.metrics["tuned.gen.auroc"] <= 1
    assert "tuned.msp.auroc" not in outcome.metrics  # nothing to tune
    plain = run_task(
        protocol(), replace(inputs, ood={n: inputs.ood[n] for n in ("far", "shifted")})
    )
    assert plain.metrics["knn.auroc"] == outcome.metrics["knn.auroc"]


def test_failed_assumptions_are_said(inputs):
    outcome = run_task(protocol(detectors=["react", "mahalanobis", "knn"]), inputs)
    said = " ".join(outcome.details["warnings"])
    assert "react were made for activations that are never negative" in said
    assert "knn looks at 4 neighbours, not 50" in said
    lifted = replace(
        inputs,
        **{
            side: replace(getattr(inputs, side), features=np.abs(getattr(inputs, side).features))
            for side in ("train", "test")
        },
    )
    assert "never negative" not in " ".join(
        run_task(protocol(detectors=["react", "knn"]), lifted).details["warnings"]
    )
    few = replace(inputs, train=inputs.train.take(np.arange(9)))
    said = " ".join(run_task(protocol(detectors=["mahalanobis", "knn"]), few).details["warnings"])
    assert "The covariance is singular" in said


def test_contamination_is_told_by_names():
    assert "ImageNet-21k" in contamination("ImageNet_21k", "ssb_hard")
    assert contamination("imagenet-1k", "ssb_hard") == ""
    assert contamination("laion-2b", "textures")
    assert "from ImageNet" in contamination("vit_b16; ImageNet-1k", "torchvision:STL10")


def test_what_the_backbone_may_know_is_a_warning(inputs):
    known = replace(inputs, pretraining="clip_vitb16; LAION-2B", ood={"dtd": inputs.ood["near"]})
    details = run_task(protocol(detectors=["knn"]), known).details
    assert details["contaminated"] == {"dtd": "Web-scale data holds images of these classes."}
    assert any(said.startswith("The backbone may know dtd") for said in details["warnings"])
    told = run_task(protocol(detectors=["knn"], contaminated={"dtd": "Seen."}), known).details
    assert told["contaminated"] == {"dtd": "Seen."}
    unknown = replace(known, pretraining="my own")
    assert run_task(protocol(detectors=["knn"]), unknown).details["contaminated"] == {"dtd": None}


def test_datasets_that_are_not_there_are_asked_for(inputs):
    with pytest.raises(OptionError, match="must hold elsewhere too; got near, far, shifted"):
        run_task(protocol(tune="openood", tuning_sets=["elsewhere"]), inputs)
    with pytest.raises(OptionError, match="another OOD dataset to test on"):
        run_task(protocol(full_spectrum=["near", "far", "shifted"]), inputs)
    with pytest.raises(OptionError, match="must come together"):
        protocol(tune="openood")
    with pytest.raises(OptionError, match="must be a list of datasets"):
        protocol(groups={"near": "textures"})
    with pytest.raises(ShapeError, match="mcm must have a text head"):
        run_task(protocol(detectors=["mcm", "knn"]), inputs)


def test_one_ood_row_has_an_interval_that_knows_nothing(inputs):
    alone = replace(inputs, ood={"far": inputs.ood["far"].take(np.arange(1))})
    outcome = run_task(protocol(), alone)
    assert outcome.intervals["auroc"] == (0.0, 1.0)


def test_openoods_protocol_has_its_groups_and_published_numbers(inputs):
    chosen = load_protocol("openood-v1.5@1")
    assert chosen.options["groups"]["near"] == ["ssb_hard", "ninco"]
    assert len(chosen.published) == 6
    outcome = run_task(chosen, inputs)
    assert outcome.metrics["auroc"] == outcome.metrics["msp.auroc"]
