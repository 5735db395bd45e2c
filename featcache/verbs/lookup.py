"""Open what is stored: feature sets and results."""

from __future__ import annotations

from pathlib import Path

from featcache.result_store import Result, ResultStore
from featcache.store.cache import Cache
from featcache.store.feature_set import FeatureSet


def open_features(
    reference: str, *, cache: Path | str | None = None, remote: str | None = None
) -> FeatureSet:
    """Open the sealed feature set with this key (prefix) or at this path.

    Args:
        reference: Key prefix, or a path of a local set.
        cache: Root of the cache.
        remote: Name, URL or directory of a remote; the set is then read where it lies, chunk by
            chunk, and what was read is kept in the cache up to a bound.

    Raises:
        OptionError: If no set, or more than one, fits.
        UnsealedError: If it is not complete.
        RemoteError: If the remote cannot be reached.
    """
    if remote is None:
        return Cache(cache).open(reference)
    from featcache.verbs.share import open_remote

    return open_remote(remote, reference, cache=cache)


def results(pattern: str = "*", *, cache: Path | str | None = None) -> list[Result]:
    """Return stored results whose `dataset/task/backbone/protocol` matches, oldest first."""
    return ResultStore(Cache(cache).root).all(pattern)
