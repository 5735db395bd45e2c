"""What every classification task answers: accuracies, calibration, columns per sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from featcache.digest import Json
from featcache.errors import ShapeError
from featcache.probes.arrays import row_blocks
from featcache.probes.calibration.errors import (
    BINS,
    brier_scores,
    class_wise_error,
    debiased_error,
    expected_error,
    mass_bins,
    null_band,
    width_bins,
)
from featcache.probes.calibration.risk import aurc, excess_aurc
from featcache.probes.calibration.temperature import fit_temperature
from featcache.probes.metrics import mean_per_class, top1
from featcache.result_store import Outcome
from featcache.statistics import balanced_interval, wilson_interval

if TYPE_CHECKING:
    from featcache.store.table import Table

_TOP = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """What a classifier says of M rows: a distribution over the classes it knows."""

    classes: NDArray[np.int64]
    """Shape (C,), class indices, rising."""
    log_probabilities: NDArray[np.float32]
    """Shape (M, C)."""
    has_zeros: bool = False
    """Whether probabilities are exact zeros by design, as shares of a vote are."""

    @classmethod
    def of_logits(cls, classes: NDArray[np.int64], logits: NDArray[np.floating]) -> Self:
        """Normalise logits, shape (M, C), in float64."""
        found = np.empty(logits.shape, dtype=np.float32)
        for rows in row_blocks(len(logits), 24 * logits.shape[1]):
            wide = logits[rows].astype(np.float64)
            wide -= wide.max(axis=1, keepdims=True)
            found[rows] = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
        return cls(classes=classes, log_probabilities=found)

    @classmethod
    def of_shares(cls, classes: NDArray[np.int64], shares: NDArray[np.floating]) -> Self:
        """Take shares of a vote, shape (M, C), rows summing to 1."""
        with np.errstate(divide="ignore"):
            return cls(
                classes=classes, log_probabilities=np.log(shares, dtype=np.float32), has_zeros=True
            )

    def predictions(self) -> NDArray[np.int64]:
        """Return the likeliest class of each row, shape (M,), the smaller one on a tie."""
        return np.asarray(self.classes[self.log_probabilities.argmax(axis=1)])

    def confidences(self) -> NDArray[np.float32]:
        """Return the likeliest class's probability, shape (M,)."""
        return np.asarray(np.exp(self.log_probabilities.max(axis=1)))


def classification(
    test: Table,
    found: Distribution,
    *,
    details: Mapping[str, Json],
    seed: int,
    metrics: Mapping[str, float] | None = None,
    held_out: tuple[NDArray[np.floating], NDArray[np.int64], NDArray[np.floating]] | None = None,
) -> Outcome:
    """Score distributions over classes.

    Rows whose class the classifier does not know are wrong in the accuracies, and left out of the
    metrics of probabilities, for which nothing finite can be said of them; details count them.

    Args:
        test: M labelled rows.
        found: What was said of them.
        details: How it came about.
        seed: Of intervals and null bands.
        metrics: Others, such as accuracies at other k.
        held_out: Logits (H, C) and labels (H,), columns of them, of rows that were not fitted, and
            the logits (M, C) of the test rows: temperature scaling is then reported too.
    """
    _check_labels(test)
    predictions, confidences = found.predictions(), found.confidences()
    is_right = predictions == test.labels
    scores = {
        "top1": top1(test.labels, predictions),
        "mean_per_class": mean_per_class(test.labels, predictions),
        **(_top_five(test.labels, found) if len(found.classes) > _TOP else {}),
        **(metrics or {}),
    }
    known = np.flatnonzero(np.isin(test.labels, found.classes))
    by_row, more, about = _probabilities(test.labels, found, known, confidences, is_right, seed)
    scores |= more
    if held_out is not None and len(held_out[1]) and len(known):
        scaled, temperature = _scaled(test.labels, found.classes, known, held_out)
        scores, about = {**scores, **scaled}, {**about, **temperature}
    right = int(is_right.sum())
    return Outcome(
        metrics=scores,
        primary="top1",
        n=len(test),
        predictions={
            "id": test.ids,
            "label": test.labels,
            "prediction": predictions,
            "confidence": confidences,
            **by_row,
        },
        intervals={
            "top1": wilson_interval(right, len(test)),
            "mean_per_class": balanced_interval(test.labels, is_right, np.random.default_rng(seed)),
        },
        details={**details, **_one_class(test, details), "calibration": about},
    )


def decisions(
    test: Table,
    predictions: NDArray[np.int64],
    scores: NDArray[np.floating],
    *,
    details: Mapping[str, Json],
    seed: int,
) -> Outcome:
    """Score predictions that come with no distribution but with a score, shape (M,)."""
    _check_labels(test)
    is_right = predictions == test.labels
    return Outcome(
        metrics={
            "top1": top1(test.labels, predictions),
            "mean_per_class": mean_per_class(test.labels, predictions),
        },
        primary="top1",
        n=len(test),
        predictions={
            "id": test.ids,
            "label": test.labels,
            "prediction": predictions,
            "score": scores,
        },
        intervals={
            "top1": wilson_interval(int(is_right.sum()), len(test)),
            "mean_per_class": balanced_interval(test.labels, is_right, np.random.default_rng(seed)),
        },
        details={**details, **_one_class(test, details)},
    )


def _one_class(test: Table, details: Mapping[str, Json]) -> dict[str, Json]:
    """Return the warnings again, with one more where the test rows have one class only."""
    classes = np.unique(test.labels)
    if len(classes) != 1:
        return {}
    said = f"all {len(test)} test rows have the class {test.class_names[classes[0]]!r}; a score "
    said += "says nothing of how well classes are told apart"
    return {"warnings": [*details.get("warnings", []), said]}


def _check_labels(test: Table) -> None:
    if len(test) and test.labels.max() >= len(test.class_names):
        raise ShapeError(
            f"Labels must be below the number of classes, {len(test.class_names)}; got "
            f"{int(test.labels.max())}. Extract the dataset again."
        )


def _top_five(labels: NDArray[np.int64], found: Distribution) -> dict[str, float]:
    first = np.argsort(-found.log_probabilities, axis=1, kind="stable")[:, :_TOP]
    return {"top5": float((found.classes[first] == labels[:, None]).any(axis=1).mean())}


def _probabilities(
    labels: NDArray[np.int64],
    found: Distribution,
    known: NDArray[np.intp],
    confidences: NDArray[np.float32],
    is_right: NDArray[np.bool_],
    seed: int,
) -> tuple[dict[str, NDArray[np.generic]], dict[str, float], dict[str, Json]]:
    """Return columns per row, metrics, and what is to be known about them."""
    if not len(known):
        return {}, {}, {"rows": 0}
    columns = np.searchsorted(found.classes, labels[known])
    shares = np.exp(found.log_probabilities[known])
    sure, right = confidences[known].astype(np.float64), is_right[known]
    width, mass = width_bins(sure), mass_bins(sure)
    brier = brier_scores(shares, columns)
    scores = {
        "ece15": expected_error(sure, right, width),
        "ece15_mass": expected_error(sure, right, mass),
        "ece15_debiased": debiased_error(sure, right, width),
        "cw_ece15": class_wise_error(shares, columns),
        "brier": float(brier.mean()),
        "aurc": aurc(sure, right),
        "e_aurc": excess_aurc(sure, right),
    }
    by_row: dict[str, NDArray[np.generic]] = {"brier": _spread(brier, known, len(labels))}
    if not found.has_zeros:
        nll = -found.log_probabilities[known, columns].astype(np.float64)
        scores["nll"] = float(nll.mean())
        by_row["nll"] = _spread(nll, known, len(labels))
    about: dict[str, Json] = {
        "bins": BINS,
        "rows": len(known),
        "ece15_null95": null_band(sure, width, np.random.default_rng(seed)),
    }
    return by_row, scores, about


def _spread(values: NDArray[np.float64], rows: NDArray[np.intp], count: int) -> NDArray[np.float64]:
    """Put values at their rows among `count`, NaN elsewhere."""
    full = np.full(count, np.nan)
    full[rows] = values
    return full


def _scaled(
    labels: NDArray[np.int64],
    classes: NDArray[np.int64],
    known: NDArray[np.intp],
    held_out: tuple[NDArray[np.floating], NDArray[np.int64], NDArray[np.floating]],
) -> tuple[dict[str, float], dict[str, Json]]:
    """Return the metrics after a temperature was fitted on held-out rows, and the temperature."""
    held_logits, held_labels, logits = held_out
    temperature = fit_temperature(held_logits, held_labels)
    scaled = Distribution.of_logits(classes, logits[known] / temperature.value)
    columns = np.searchsorted(classes, labels[known])
    sure = scaled.confidences().astype(np.float64)
    right = scaled.predictions() == labels[known]
    own = scaled.log_probabilities[np.arange(len(columns)), columns]
    metrics = {
        "nll_ts": -float(own.mean(dtype=np.float64)),
        "ece15_ts": expected_error(sure, right, width_bins(sure)),
        "brier_ts": float(brier_scores(np.exp(scaled.log_probabilities), columns).mean()),
    }
    return metrics, {"temperature": temperature.value, "is_capped": temperature.is_capped}
