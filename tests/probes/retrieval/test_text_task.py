"""Retrieval between images and captions: against a plain loop over the full matrix."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from featcache.errors import OptionError, ShapeError
from featcache.probes.catalog import default_protocol
from featcache.probes.run import run_task
from featcache.probes.tasks import TaskInputs
from featcache.statistics import bootstrap_mean_interval
from featcache.store.table import Table


def table(rows, ids):
    return Table(
        features=np.asarray(rows, np.float32),
        labels=np.full(len(ids), -1),
        ids=np.array(ids),
        class_names=(),
    )


def run(images, texts, *, seed=0, **options):
    protocol = dataclasses.replace(default_protocol("imagetext"), options=options)
    return run_task(protocol, TaskInputs(test=images, texts=texts, seed=seed))


@pytest.fixture
def pairs():
    """40 images with 3 to 7 captions each, in no order; captions 0 are near, later ones farther."""
    rng = np.random.default_rng(3)
    features = rng.normal(size=(40, 16))
    images = table(features, [f"i{n:02d}.jpg" for n in rng.permutation(40)])
    rows, ids = [], []
    for row in range(40):
        for number in range(rng.integers(3, 8)):
            rows.append(features[row] + rng.normal(size=16) * (1.6 + 0.5 * number))
            ids.append(f"{images.ids[row]}#{number}")
    order = rng.permutation(len(rows))
    return images, table(np.array(rows)[order], np.array(ids)[order])


def by_hand(images, texts, most, ks=(1, 5, 10)):
    """Count, for each image and each caption, what lies above the best that it should find."""
    unit = [one.features / np.linalg.norm(one.features, axis=1)[:, None] for one in (images, texts)]
    owners = [str(name).rpartition("#")[0] for name in texts.ids]
    numbers = [int(str(name).rpartition("#")[2]) for name in texts.ids]
    taken = [row for row in range(len(texts)) if numbers[row] < most]
    similarity = np.zeros((len(images), len(taken)))
    for i in range(len(images)):
        for j, row in enumerate(taken):
            similarity[i, j] = float(unit[0][i].astype(np.float64) @ unit[1][row])
    is_pair = np.array([[owners[row] == name for row in taken] for name in images.ids])
    to_text, to_image = [], []
    for i in range(len(images)):
        best = max(similarity[i, j] for j in range(len(taken)) if is_pair[i, j])
        to_text.append(1 + int((similarity[i] > best).sum()))
    for j in range(len(taken)):
        own = float(similarity[:, j][is_pair[:, j]][0])
        to_image.append(1 + int((similarity[:, j] > own).sum()))
    found = {}
    for name, ranks in (("image_to_text", to_text), ("text_to_image", to_image)):
        found |= {f"{name}.recall@{k}": np.mean([rank <= k for rank in ranks]) for k in ks}
        found[f"{name}.median_rank"] = np.median(ranks)
    shares = [value for name, value in found.items() if "recall" in name]
    return {**found, "mean_recall": np.mean(shares)}, to_text


@pytest.mark.parametrize("most", [5, 2, 0])
def test_recalls_are_those_of_a_loop_over_the_full_matrix(pairs, most):
    outcome = run(*pairs, captions_per_image=most)
    expected, to_text = by_hand(*pairs, most or 99)
    assert outcome.metrics == pytest.approx(expected, abs=1e-12)
    assert 0.1 < outcome.metrics["mean_recall"] < 0.9
    rank = dict(zip(outcome.predictions["id"], outcome.predictions["caption_rank"], strict=True))
    assert [rank[name] for name in pairs[0].ids] == to_text
    assert outcome.primary == "mean_recall"
    assert outcome.n == outcome.details["images"] == 40


def test_the_first_captions_are_those_with_the_lowest_numbers(pairs):
    images, texts = pairs
    outcome = run(images, texts)
    numbers = np.array([int(str(name).rpartition("#")[2]) for name in texts.ids])
    first = run(images, texts.take(numbers < 5), captions_per_image=0)
    assert outcome.metrics == first.metrics
    assert outcome.details["dropped_further_captions"] == (numbers >= 5).sum() > 0
    gap = run(images, texts.take(numbers != 1))  # left out as blank: the next one takes its place
    counts = np.bincount([list(images.ids).index(str(n).rpartition("#")[0]) for n in texts.ids])
    assert gap.details["captions"] == np.minimum(counts - 1, 5).sum()


def test_the_best_ranked_of_an_image_s_captions_counts():
    images = table([[1, 0], [0, 1]], ["a", "b"])
    texts = table([[0.1, 1], [1, 0.01], [0.2, 1]], ["a#0", "a#1", "b#0"])
    outcome = run(images, texts, k=[1, 2])
    assert outcome.metrics["image_to_text.recall@1"] == 0.5  # of `b`, a#0 is nearer than its own
    assert outcome.metrics["text_to_image.recall@1"] == pytest.approx(2 / 3)
    assert outcome.metrics["image_to_text.median_rank"] == 1.5
    assert outcome.predictions["mean_image_rank"].tolist() == [1.5, 1]


def test_ties_go_by_id_or_against_what_is_sought():
    images = table([[1, 0]] * 4, list("dcba"))
    texts = table([[1, 0]] * 4, ["d#0", "a#0", "c#0", "b#0"])
    by_name = run(images, texts, k=[1, 2])
    assert by_name.predictions["caption_rank"].tolist() == [1, 2, 3, 4]
    assert by_name.metrics["text_to_image.recall@2"] == 0.5
    last = run(images, texts, k=[1, 2], ties="pessimistic")
    assert last.metrics["mean_recall"] == 0
    assert last.metrics["image_to_text.median_rank"] == 4


def test_order_and_norms_of_rows_change_nothing(pairs):
    images, texts = pairs
    rng = np.random.default_rng(0)
    images = images.take(rng.permutation(len(images)))
    scaled = texts.features * rng.uniform(0.5, 2, (len(texts), 1)).astype(np.float32)
    texts = dataclasses.replace(texts, features=scaled).take(rng.permutation(len(texts)))
    assert run(images, texts).metrics == pytest.approx(run(*pairs).metrics, abs=1e-12)


def test_captions_without_image_and_images_without_caption_are_counted(pairs):
    images, texts = pairs
    few = run(images.take(np.arange(30)), texts)
    lost = {str(name) for name in images.ids[30:]}
    dropped = sum(str(name).rpartition("#")[0] in lost for name in texts.ids)
    assert few.details["dropped_captions_of_other_images"] == dropped
    bare = run(images, texts.take(_not_of(images, texts)))
    assert bare.details["dropped_images_without_caption"] == 1
    assert bare.n == 39


def _not_of(images, texts):
    return np.array([not str(name).startswith(f"{images.ids[0]}#") for name in texts.ids])


def test_intervals_resample_images_with_their_captions(pairs):
    images, texts = pairs
    outcome = run(images, texts, seed=4)
    for name, (low, high) in outcome.intervals.items():
        assert low < outcome.metrics[name] < high, name
    for k in (1, 5, 10):
        hits = (outcome.predictions["caption_rank"] <= k).astype(float)
        expected = bootstrap_mean_interval(hits, np.random.default_rng(4))
        assert outcome.intervals[f"image_to_text.recall@{k}"] == pytest.approx(expected)
    assert run(images, texts, seed=4).intervals == outcome.intervals


def test_what_cannot_be_scored_is_refused(pairs):
    images, texts = pairs
    with pytest.raises(ShapeError, match="'imagetext' needs captions; got none"):
        run(images, None)
    with pytest.raises(ShapeError, match=r"`#` and a number; got 'x.jpg'"):
        run(images, table(np.eye(16)[:1], ["x.jpg"]))
    with pytest.raises(ShapeError, match="At least one image must have a caption.*1 captions of"):
        run(images, table(np.eye(16)[:1], ["x.jpg#0"]))
    with pytest.raises(ShapeError, match="test has 16 and 'captions' has 3"):
        run(images, table(np.ones((1, 3)), [f"{images.ids[0]}#0"]))
    with pytest.raises(ShapeError, match="non-zero norm.*1 rows of 'captions' are not"):
        run(images, table(np.zeros((1, 16)), [f"{images.ids[0]}#0"]))
    with pytest.raises(OptionError, match="`ties` must be"):
        run(images, texts, ties="average")
    with pytest.raises(OptionError, match="captions_per_image"):
        run(images, texts, captions_per_image=-1)
