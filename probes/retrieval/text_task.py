"""The task `imagetext`: captions to images and images to captions, as an Outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from featcache.datasets.captions import parse_caption_id
from featcache.digest import Json
from featcache.errors import ShapeError
from featcache.probes.retrieval.ranking import Ranked, Truth, score_rankings
from featcache.probes.retrieval.row_lists import RowLists
from featcache.probes.retrieval.search import cosine_scorer
from featcache.probes.retrieval.text_options import ImageTextOptions
from featcache.probes.tables import by_id
from featcache.result_store import Outcome
from featcache.statistics import Interval

if TYPE_CHECKING:
    from featcache.probes.protocol import Protocol
    from featcache.probes.tasks import TaskInputs
    from featcache.store.table import Table

TO_TEXT, TO_IMAGE = "image_to_text", "text_to_image"
_RESAMPLES = 1000  # as `bootstrap_mean_interval`


def run_imagetext(protocol: Protocol, inputs: TaskInputs) -> Outcome:
    """Rank all captions for each image, and all images for each caption, by cosine.

    An image has found its captions at k if any of them is among the first k; a caption has found
    its image if that is. `mean_recall` is the mean of the recalls at every k in both directions.
    Captions of images without features, and images without captions, are left out and counted.
    Intervals resample images, each with its captions.

    Raises:
        ShapeError: If there are no texts, if an id of a text names no image, or if no image has a
            caption.
    """
    options = cast(ImageTextOptions, protocol.parsed_options())
    images, texts, owner, details = _pairs(inputs, options.captions_per_image)
    n, m = len(images), len(texts)
    order = np.argsort(owner, kind="stable")  # captions of an image side by side
    sizes = np.bincount(owner, minlength=n)
    own = RowLists(pool=order, starts=np.cumsum(sizes) - sizes, sizes=sizes)
    theirs = RowLists(pool=owner, starts=np.arange(m), sizes=np.ones(m, np.intp))
    found = {}
    for name, asked, searched, lists in (
        (TO_TEXT, images, texts, own),
        (TO_IMAGE, texts, images, theirs),
    ):
        scorer = cosine_scorer(asked.features, searched.features, inputs.device)
        found[name] = score_rankings(
            scorer, Truth(relevant=lists), n_rows=len(searched), k=options.k, ties=options.ties
        )
    metrics, intervals = _recalls(found, owner, options, np.random.default_rng(inputs.seed))
    for name, ranked in found.items():
        metrics[f"{name}.median_rank"] = float(np.median(ranked.columns["first_hit"]))
    best = found[TO_IMAGE].columns["first_hit"]
    return Outcome(
        metrics=metrics,
        primary="mean_recall",
        n=n,
        predictions={
            "id": images.ids,
            "n_captions": sizes,
            "caption_rank": found[TO_TEXT].columns["first_hit"].astype(np.int64),
            "mean_image_rank": np.bincount(owner, weights=best, minlength=n) / sizes,
        },
        intervals=intervals,
        details={"images": n, "captions": m, **details},
    )


def _pairs(inputs: TaskInputs, most: int) -> tuple[Table, Table, NDArray[np.intp], dict[str, Json]]:
    """Return images and captions by id, the row of each caption's image, and counts."""
    if inputs.texts is None:
        raise ShapeError("This task needs the captions of the images; got none. Embed them first.")
    images, texts = by_id(inputs.test), by_id(inputs.texts)
    parsed = [parse_caption_id(str(name)) for name in texts.ids]
    if None in parsed:
        raise ShapeError(
            "An id of a caption must be its image's, `#` and a number; got "
            f"{str(texts.ids[parsed.index(None)])!r}. Name them as `captions` does."
        )
    rows = {str(name): row for row, name in enumerate(images.ids)}
    owner = np.array([rows.get(one[0], -1) for one in parsed if one], np.intp)
    number = np.array([one[1] for one in parsed if one], np.int64)
    is_taken = (owner >= 0) & (_place(owner, number) < (most or len(texts)))
    if not is_taken.any():
        raise ShapeError(
            f"At least one image must have a caption; got {len(images)} images and {len(texts)} "
            "captions of others. Take both from one split."
        )
    with_any = np.unique(owner[is_taken])
    details: dict[str, Json] = {
        "dropped_captions_of_other_images": int((owner < 0).sum()),
        "dropped_further_captions": int(((owner >= 0) & ~is_taken).sum()),
        "dropped_images_without_caption": len(images) - len(with_any),
    }
    kept = np.searchsorted(with_any, owner[is_taken])
    return images.take(with_any), texts.take(is_taken), kept, details


def _place(owner: NDArray[np.intp], number: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return for each caption how many of its image come before it, by number."""
    order = np.lexsort((number, owner))
    ordered = owner[order]
    first = np.searchsorted(ordered, ordered, side="left")
    place = np.empty(len(owner), np.intp)
    place[order] = np.arange(len(owner)) - first
    return place


def _recalls(
    found: dict[str, Ranked],
    owner: NDArray[np.intp],
    options: ImageTextOptions,
    rng: np.random.Generator,
) -> tuple[dict[str, float], dict[str, Interval]]:
    """Return the recalls and their intervals, by resampled images."""
    n = len(found[TO_TEXT].queries)
    weight = {TO_TEXT: np.ones(n, np.intp), TO_IMAGE: np.bincount(owner, minlength=n)}
    hits: dict[str, NDArray[np.number]] = {}  # (N,): how many queries of an image found theirs
    for k in options.k:
        hits[f"{TO_TEXT}.recall@{k}"] = found[TO_TEXT].columns[f"hit_rate@{k}"]
        per_caption = found[TO_IMAGE].columns[f"hit_rate@{k}"]
        hits[f"{TO_IMAGE}.recall@{k}"] = np.bincount(owner, weights=per_caption, minlength=n)

    def recalls(times: NDArray[np.int64]) -> dict[str, float]:
        shares = {
            name: float(times @ column / (times @ weight[name.partition(".")[0]]))
            for name, column in hits.items()
        }
        return {"mean_recall": float(np.mean(list(shares.values()))), **shares}

    drawn = [recalls(np.bincount(rng.integers(n, size=n), minlength=n)) for _ in range(_RESAMPLES)]
    metrics = recalls(np.ones(n, np.int64))
    intervals = {}
    for name in metrics:
        low, high = np.percentile([one[name] for one in drawn], [2.5, 97.5])
        intervals[name] = (float(low), float(high))
    return metrics, intervals
