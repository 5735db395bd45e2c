"""Open what is stored: feature sets and results."""

from __future__ import annotations

from pathlib import Path

from featcache.result_store import Result, ResultStore
from featcache.store.cache import Cache
from featcache.store.feature_set import FeatureSet


def open_features(reference: str, *, cache: Path | str | None = None) -> FeatureSet:
    """Open the sealed feature set with this key (prefix) or at this path.

    Raises:
        OptionError: If no set, or more than one, fits.
        UnsealedError: If it is not complete.
    """
    return Cache(cache).open(reference)


def results(pattern: str = "*", *, cache: Path | str | None = None) -> list[Result]:
    """Return stored results whose `dataset/task/backbone/protocol` matches, oldest first."""
    return ResultStore(Cache(cache).root).all(pattern)
