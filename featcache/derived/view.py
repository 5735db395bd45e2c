"""Feature sets that are computed from others when read, with keys of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featcache.derived.recipe import Recipe
from featcache.derived.steps import Fitted, Quantise, fit_step
from featcache.digest import Json, sha256_json
from featcache.errors import OptionError, ShapeError
from featcache.spec import BackboneIdentity, ExtractionSpec, StoredDtype, explain, without_dataset
from featcache.store.feature_set import BLOCK_ROWS, FeatureSet
from featcache.store.table import Table

FIT_SEED = 0
"""Of everything random in a fit; it is not an option, so that a recipe means one thing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedRecipe:
    """A recipe with what its steps learnt."""

    recipe: Recipe
    steps: tuple[Fitted, ...]
    learnt_from: Mapping[str, Json] | None = None
    """Keys, content digests, dataset and split of the training rows; None if it learnt nothing."""

    def __call__(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """Apply every step, shape (n, D) to (n, d), float32."""
        for step in self.steps:
            values = step(values.astype(np.float32, copy=False))
        return values.astype(np.float32, copy=False)

    def codes(self, values: NDArray[np.floating]) -> NDArray[np.uint8]:
        """Apply every step but decode nothing, shape (n, codes).

        Raises:
            OptionError: If the recipe gives no codes.
        """
        *first, last = self.steps or (None,)
        if not isinstance(last, Quantise):
            raise OptionError(f"Recipe '{self.recipe}' must give codes; it does not.")
        for step in first:
            values = step(values.astype(np.float32, copy=False))
        return last.encode(values.astype(np.float32, copy=False))


def fit_recipe(
    recipe: Recipe,
    sources: Sequence[FeatureSet],
    *,
    rows: NDArray[np.intp] | None = None,
    part: Mapping[str, Json] | None = None,
) -> FittedRecipe:
    """Learn what the steps of a recipe need, one after the other.

    Args:
        recipe: The steps.
        sources: The training set; several are concatenated. If the recipe learns nothing, any set
            made like those it will be applied to.
        rows: Rows to learn from; None: all readable ones.
        part: How `rows` were chosen, for the key.

    Raises:
        ShapeError: If a step's size does not fit, or if the sets are not of the same rows.
    """
    _check_alike(sources)
    widths = tuple(_width(one) for one in sources)
    chosen = np.flatnonzero(_valid(sources)) if rows is None else rows
    fitted: list[Fitted] = []

    def blocks() -> Iterator[NDArray[np.floating]]:
        for start in range(0, len(chosen), BLOCK_ROWS):
            values = _concatenated(sources, chosen[start : start + BLOCK_ROWS])
            for step in fitted:
                values = step(values.astype(np.float32, copy=False))
            yield values

    for step in recipe.steps:
        fitted.append(fit_step(step, blocks, widths, FIT_SEED))
        if step.name in {"pca", "whiten", "truncate"}:
            widths = (step.size,)
    learnt = _learnt_from(sources, part) if recipe.is_fitted else None
    return FittedRecipe(recipe=recipe, steps=tuple(fitted), learnt_from=learnt)


class DerivedSet:
    """One or several sealed sets seen through a recipe. Nothing is computed before it is read."""

    def __init__(self, sources: Sequence[FeatureSet], fitted: FittedRecipe) -> None:
        """See `sources` side by side through a fitted recipe.

        Raises:
            ShapeError: If the sets are not of the same rows, or do not hold vectors.
        """
        _check_alike(sources)
        self.sources = tuple(sources)
        self.fitted = fitted
        self.spec = _spec(self.sources, fitted)

    @property
    def key(self) -> str:
        """The spec key, 64 hex digits."""
        return self.spec.key

    @property
    def digest(self) -> str:
        """Names what is seen: the contents of the sources and of the training rows."""
        learnt = self.fitted.learnt_from
        return sha256_json(
            {
                "key": self.key,
                "sources": [one.digest for one in self.sources],
                "learnt_from": learnt["digests"] if learnt else None,
            }
        )

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Facts about the sources, licences and citations among them."""
        first = self.sources[0].provenance
        kept = {name: first[name] for name in ("dataset", "backbone") if name in first}
        named = [
            {"key": one.key, "digest": one.digest, "backbone": one.provenance.get("backbone", {})}
            for one in self.sources
        ]
        return {**kept, "derived_from": named, "view": self.digest}

    @property
    def rows(self) -> int:
        """Number of rows, unreadable ones included."""
        return self.sources[0].rows

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.rows

    @property
    def labels(self) -> NDArray[np.int64]:
        """Shape (N,), indices into `class_names`, -1 without a label."""
        return self.sources[0].labels

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.sources[0].class_names

    @property
    def ids(self) -> NDArray[np.str_]:
        """Shape (N,), unique."""
        return self.sources[0].ids

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Shape (N,), false where a source could not read the image."""
        return _valid(self.sources)

    @property
    def reasons(self) -> Mapping[int, str]:
        """Row to reason, for each unreadable row."""
        return {row: why for one in reversed(self.sources) for row, why in one.reasons.items()}

    def features(self, rows: ArrayLike | slice | None = None) -> NDArray[np.float32]:
        """Compute features.

        Args:
            rows: As in `FeatureSet.features`.

        Returns:
            Shape (n, d), float32.
        """
        return self.fitted(_concatenated(self.sources, rows))

    def codes(self, rows: ArrayLike | slice | None = None) -> NDArray[np.uint8]:
        """Compute codes, shape (n, codes); the recipe must end in a step that gives them."""
        return self.fitted.codes(_concatenated(self.sources, rows))

    def batches(self, size: int = BLOCK_ROWS) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Stream all rows in blocks of `size`, each with its first row."""
        for start in range(0, self.rows, size):
            yield start, self.features(slice(start, start + size))

    def table(self) -> Table:
        """Return the readable rows in memory, as a probe takes them."""
        rows = np.flatnonzero(self.valid)
        parts = [
            self.features(rows[start : start + BLOCK_ROWS])
            for start in range(0, len(rows), BLOCK_ROWS)
        ]
        return Table(
            features=np.concatenate(parts),
            labels=self.labels[rows],
            ids=self.ids[rows],
            class_names=self.class_names,
        )


def _spec(sources: Sequence[FeatureSet], fitted: FittedRecipe) -> ExtractionSpec:
    specs = [one.spec for one in sources]
    first = specs[0]
    learnt = fitted.learnt_from
    derived = {
        "recipe": str(fitted.recipe),
        "parts": [without_dataset(spec) for spec in specs],
        "learnt_from": {k: v for k, v in learnt.items() if k != "digests"} if learnt else None,
    }
    stored: StoredDtype = "uint8" if fitted.recipe.gives_codes else _widest(specs)
    named = first.backbone
    if len(specs) > 1:
        named = BackboneIdentity(
            name="+".join(spec.backbone.name for spec in specs),
            architecture="+".join(spec.backbone.architecture for spec in specs),
            weights=sha256_json([spec.backbone.weights for spec in specs]),
        )
    return replace(
        first,
        backbone=named,
        tap="+".join(dict.fromkeys(spec.tap for spec in specs)),
        numerics=replace(first.numerics, stored=stored),
        derived=derived,
    )


def _widest(specs: Sequence[ExtractionSpec]) -> StoredDtype:
    return "float32" if any(one.numerics.stored != "float16" for one in specs) else "float16"


def _learnt_from(sources: Sequence[FeatureSet], part: Mapping[str, Json] | None) -> dict[str, Json]:
    one = sources[0].spec.dataset
    return {
        "keys": [source.key for source in sources],
        "digests": [source.digest for source in sources],
        "dataset": one.name,
        "split": one.split,
        "part": dict(part) if part else None,
    }


def _check_alike(sources: Sequence[FeatureSet]) -> None:
    """Refuse sets whose rows are not the same images in the same order.

    Raises:
        ShapeError: If they differ; the message names the fields.
    """
    first = sources[0].spec.dataset
    for one in sources[1:]:
        if one.spec.dataset != first:
            differ = explain(asdict(first), asdict(one.spec.dataset))
            raise ShapeError(
                "Sets must hold the same images in the same order to be put side by side; "
                f"{sources[0].spec.backbone.name} and {one.spec.backbone.name} differ in "
                f"{', '.join(name for name, _, _ in differ)}. Extract both from one version."
            )


def _width(one: FeatureSet) -> int:
    shape = one.row_shape
    if len(shape) != 1:
        raise ShapeError(
            f"A recipe takes one vector per image; tap {one.spec.tap!r} gives {shape}. "
            "Extract a pooled tap."
        )
    return shape[0]


def _valid(sources: Sequence[FeatureSet]) -> NDArray[np.bool_]:
    valid: NDArray[np.bool_] = np.all([one.valid for one in sources], axis=0)
    return valid


def _concatenated(
    sources: Sequence[FeatureSet], rows: ArrayLike | slice | None
) -> NDArray[np.floating]:
    parts = [one.features(rows) for one in sources]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
