"""See sets of the cache through a recipe, and write down what is seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from featcache.derived.materialise import materialise
from featcache.derived.recipe import Recipe
from featcache.derived.view import DerivedSet, fit_recipe
from featcache.errors import OptionError
from featcache.spec import without_dataset
from featcache.store.cache import Cache
from featcache.store.feature_set import FeatureSet

TRAIN = "train"


def derive(
    reference: str,
    recipe: str = "",
    *,
    concat: Sequence[str] = (),
    learn_from: Sequence[str] = (),
    cache: Path | str | None = None,
) -> DerivedSet:
    """Return a lazy view of a set: nothing is computed before it is read, but what it learns.

    Args:
        reference: Key (prefix) or path of a sealed set.
        recipe: Steps from left to right, such as 'pca:128|l2' (`featcache.derived.recipe`).
        concat: Sets of the same images whose features are put beside it.
        learn_from: Sets that the recipe learns from, one for `reference` and one for each of
            `concat`; by default those of the dataset's split 'train' that were made alike.
        cache: Root of the cache.

    Raises:
        OptionError: If a set or the recipe is not there or not understood.
        ShapeError: If the recipe does not fit, or if the sets are not of the same images.
    """
    store, steps = Cache(cache), Recipe.parse(recipe)
    if not (steps.steps or concat):
        raise OptionError(
            "A derived set needs a recipe or another set beside it; got neither. "
            "Give for instance 'pca:128|l2'."
        )
    sources = [store.open(one) for one in (reference, *concat)]
    learn = sources
    if learn_from:
        learn = [store.open(one) for one in learn_from]
    elif steps.is_fitted:
        learn = [_train_of(one, store, recipe) for one in sources]
    _check_learners(sources, learn)
    return DerivedSet(sources, fit_recipe(steps, learn))


def store_view(
    view: DerivedSet,
    *,
    cache: Path | str | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> FeatureSet:
    """Write a view down as a sealed set, unless it is there, and return that.

    Args:
        view: What `derive` gave.
        cache: Root of the cache.
        advance: Told the rows that were written.

    Raises:
        StoreError: If it cannot be written, or if another process writes it.
    """
    return materialise(view, Cache(cache), advance=advance)


def _train_of(one: FeatureSet, store: Cache, recipe: str) -> FeatureSet:
    spec = one.spec
    found = store.find(
        dataset=spec.dataset.name, split=TRAIN, backbone=spec.backbone.name, tap=spec.tap
    )
    alike = [other for other in found if without_dataset(other.spec) == without_dataset(spec)]
    if len(alike) != 1:
        raise OptionError(
            f"'{recipe}' learns from one training set; {store.root} has {len(alike)} of "
            f"{spec.dataset.name}/{TRAIN} made like {spec.key[:12]}. Extract it, or name the set "
            "with --learn-from."
        )
    return alike[0].open()


def _check_learners(sources: Sequence[FeatureSet], learn: Sequence[FeatureSet]) -> None:
    """Refuse to apply what was learnt from features of another kind."""
    if [without_dataset(one.spec) for one in sources] != [
        without_dataset(one.spec) for one in learn
    ]:
        raise OptionError(
            "What a recipe learns from must be made like what it is applied to, in the same "
            f"order: {', '.join(one.key[:12] for one in sources)}; got "
            f"{', '.join(one.key[:12] for one in learn)}. `featcache cache explain` tells how two "
            "differ."
        )
