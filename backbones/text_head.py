"""Vectors of class prompts as a zero-shot classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featcache.backbones.text import IMAGE_TAP, image_tower_of
from featcache.digest import Json
from featcache.errors import BackboneError
from featcache.head_store import StoredHead

if TYPE_CHECKING:
    from featcache.store.feature_set import FeatureSet


def text_head(prompts: FeatureSet, origin: Mapping[str, Json]) -> StoredHead:
    """Return the classifier that a cached set of prompts is.

    Args:
        prompts: A set at the tap `text`, labelled by class; each class has a row at least.
        origin: What to say of the prompts; tower and tokenizer are added.

    Raises:
        BackboneError: If a prompt, or the mean of a class, has no direction.
    """
    spec, told = prompts.spec, prompts.provenance
    tokenizer = {"kind": spec.transform["tokenizer"], **spec.transform}
    del tokenizer["tokenizer"]
    names, scale = prompts.class_names, float(told["scale"])
    return StoredHead(
        kind="text",
        weights=class_vectors(prompts.features(), prompts.labels, names),
        bias=np.full(len(names), float(told["offset"]) / scale, np.float32),
        class_names=names,
        backbone=image_tower_of(spec.backbone),
        tap=IMAGE_TAP,
        is_unit_norm=True,
        scale=scale,
        origin={**origin, "text_tower": spec.backbone.weights, "tokenizer": tokenizer},
    )


def class_vectors(
    vectors: NDArray[np.floating], labels: NDArray[np.int64], names: Sequence[str]
) -> NDArray[np.float32]:
    """Return a unit vector per class: prompts are scaled to unit norm, averaged, scaled again.

    Args:
        vectors: Of prompts, shape (N, D), of any norm.
        labels: Class of each, shape (N,); each class has at least one.
        names: Of the C classes, for messages.

    Returns:
        Shape (D, C), float32, columns of unit norm.

    Raises:
        BackboneError: If a prompt, or the mean of a class, has no direction.

    Source: Radford et al. 2021, arXiv:2103.00020, section 3.1.4; checked against open_clip's
    `build_zero_shot_classifier`.
    """
    of_row = [names[label] for label in labels.tolist()]
    unit = _unit(vectors.astype(np.float64), of_row)  # (N, D)
    sums = np.zeros((len(names), unit.shape[1]))
    np.add.at(sums, labels, unit)  # (C, D)
    return np.ascontiguousarray(_unit(sums, names).T, dtype=np.float32)


def _unit(vectors: NDArray[np.float64], names: Sequence[str]) -> NDArray[np.float64]:
    norms = np.linalg.norm(vectors, axis=1)
    if bad := np.flatnonzero(~(np.isfinite(norms) & (norms > 0))).tolist():
        raise BackboneError(
            f"The vector of a class's prompt must have a direction; one of {names[bad[0]]!r} is "
            "zero or not finite. Check the text tower's weights, or change the templates."
        )
    return np.asarray(vectors / norms[:, None])
