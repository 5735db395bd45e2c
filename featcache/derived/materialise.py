"""Write a derived set down as a sealed feature set; a kill at any instant is resumed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.derived.steps import Quantise
from featcache.derived.view import DerivedSet
from featcache.errors import StoreError
from featcache.store.cache import Cache
from featcache.store.claims import Owner
from featcache.store.feature_set import BLOCK_ROWS, FeatureSet
from featcache.store.files import disk_errors
from featcache.store.spool import Batch
from featcache.store.writer import SetWriter


def materialise(
    view: DerivedSet, cache: Cache, *, advance: Callable[[int], None] = lambda _: None
) -> FeatureSet:
    """Return the stored form of a view, written now unless it is there.

    A recipe that ends in codes is stored as codes with their decoder, another one as float16 or
    float32 like its sources.

    Args:
        view: What to write.
        cache: Where to.
        advance: Told the rows that were written.

    Raises:
        StoreError: If a value does not fit the stored type, if the disk refuses, or if another
            process writes the same set.
    """
    cache.create()
    path = cache.path_of(view.spec)
    with disk_errors(path, "write"):
        writer = SetWriter(path, view.spec, (_width(view),))
        for shard in range(writer.layout.n_shards):
            if not writer.is_done(shard):
                _write_shard(view, writer, shard)
            start, stop = writer.layout.bounds(shard)
            advance(stop - start)
        if not writer.is_sealed:
            owner = writer.seal(
                labels=view.labels,
                ids=view.ids,
                class_names=view.class_names,
                provenance=view.provenance,
                decoder=_decoder(view),
            )
            _refuse(owner, writer)
    return FeatureSet(path)


def _write_shard(view: DerivedSet, writer: SetWriter, shard: int) -> None:
    claim = writer.claim(shard)
    if isinstance(claim, Owner):
        _refuse(claim, writer)
        return
    try:
        if writer.is_done(shard):
            return
        spool = writer.open_spool(shard)
        try:
            while not spool.is_complete:
                start, began = spool.next_row, time.perf_counter()
                rows = slice(start, min(start + BLOCK_ROWS, spool.stop))
                bad = {r: why for r, why in view.reasons.items() if rows.start <= r < rows.stop}
                values = _values(view, rows, writer.layout.dtype)
                values[[row - start for row in bad]] = 0
                seconds = time.perf_counter() - began
                spool.append(Batch(start=start, features=values, unreadable=bad, seconds=seconds))
                claim.keep_alive()
            writer.finish_shard(shard, spool, {})
        finally:
            spool.close()
    finally:
        claim.release()


def _values(view: DerivedSet, rows: slice, dtype: str) -> NDArray[Any]:
    if view.fitted.recipe.gives_codes:
        return view.codes(rows)
    values = view.features(rows)
    limit = float(np.finfo(dtype).max)
    if not (np.abs(values) <= limit).all():
        raise StoreError(
            f"Derived values must be finite and at most {limit:g} to be stored as {dtype}; "
            f"rows {rows.start} to {rows.stop - 1} are not. Extract with --stored float32."
        )
    return values.astype(dtype)


def _width(view: DerivedSet) -> int:
    first = slice(0, 1)
    row = view.codes(first) if view.fitted.recipe.gives_codes else view.features(first)
    return int(row.shape[1])


def _decoder(view: DerivedSet) -> NDArray[np.float32] | None:
    last = view.fitted.steps[-1] if view.fitted.steps else None
    return last.decoder if isinstance(last, Quantise) else None


def _refuse(owner: Owner | None, writer: SetWriter) -> None:
    if owner is not None:
        raise StoreError(
            f"One process must write a derived set; {owner} writes {writer.path}. Wait for it."
        )
