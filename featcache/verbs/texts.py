"""Embed texts once: an ordinary feature set at the tap `text`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featcache.digest import Json, sha256_json
from featcache.errors import CorruptError, ExtractionError, OptionError, StoreError
from featcache.spec import (
    FORMAT,
    BackboneIdentity,
    DatasetIdentity,
    ExtractionSpec,
    Numerics,
    StoredDtype,
)
from featcache.store.cache import Cache
from featcache.store.claims import Owner
from featcache.store.feature_set import FeatureSet, is_sealed
from featcache.store.files import disk_errors, json_bytes, read_json, write_replacing
from featcache.store.spool import Batch
from featcache.store.writer import SetWriter, cost_of
from featcache.verbs.extract import BackboneRequest

if TYPE_CHECKING:
    from featcache.backbones.request import Request
    from featcache.backbones.text import TextTower
    from featcache.datasets.texts import TextSplit

BATCH = 256
"""Texts per forward pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Resolved:
    """What of a tower and of the tokens goes into a spec; remembered between runs."""

    identity: BackboneIdentity
    transform: Mapping[str, Json]


def embed_texts(
    backbone: str | BackboneRequest,
    texts: TextSplit,
    *,
    images: BackboneIdentity | None = None,
    cache: Path | str | None = None,
    stored: StoredDtype = "float32",
    device: str = "auto",
) -> FeatureSet:
    """Embed texts with the text tower of a model, or return them from the cache.

    Without `images`, weights of a tag are recognised only after the model is loaded; a file's or
    random ones before. A killed run goes on where it stopped.

    Args:
        backbone: An open_clip name, or a request with a checkpoint.
        texts: What to embed; at least one.
        images: Identity of the image tower whose features the vectors are for, from the features'
            spec. A set of the text tower trained with it is taken without loading the model.
        cache: Root of the cache.
        stored: Type of the stored vectors.
        device: 'auto', 'cpu' or 'cuda'.

    Returns:
        The sealed set at the tap `text`, one row per text, vectors of any norm. Its provenance
        has `scale` and `offset`, what the model makes logits of cosines with.

    Raises:
        BackboneError: If the backbone has no text tower, or its tokenizer cannot be had.
        OptionError: If the model's image tower is not `images`.
        ExtractionError: If a vector cannot be stored.
        StoreError: If the disk refuses, or if another process writes the same set.
        FeatcacheError: As `load_backbone`.
    """
    from featcache.backbones.factory import backbone_request
    from featcache.backbones.text import open_text_tower, refuse_without_text

    one = BackboneRequest(name=backbone) if isinstance(backbone, str) else backbone
    request = backbone_request(one.name, checkpoint=one.checkpoint, renamer=one.renamer)
    refuse_without_text(request)
    store, identity = Cache(cache), texts.identity()
    if images is not None and (found := _made_with(images, identity, store, stored)):
        return found
    memo = _memo_path(store, request, identity)
    known = _recall(memo) if memo is not None else None
    if known is not None and is_sealed(path := store.path_of(_spec(identity, known, stored))):
        _refuse_other(known.identity, images)
        return FeatureSet(path)
    tower = open_text_tower(request)
    _refuse_other(tower.identity, images)
    resolved = _Resolved(identity=tower.identity, transform=tower.transform(texts.texts))
    spec = _spec(identity, resolved, stored)
    if not is_sealed(store.path_of(spec)):
        _write(store, spec, texts, tower, device)
    if memo is not None and resolved != known:
        _remember(memo, resolved)
    return FeatureSet(store.path_of(spec))


def _made_with(
    images: BackboneIdentity, texts: DatasetIdentity, cache: Cache, stored: StoredDtype
) -> FeatureSet | None:
    """Return the set of these texts that the partner of an image tower made, if one is there."""
    from featcache.backbones.text import TAP

    sets = cache.find(dataset=texts.name, split=texts.split, backbone=images.name, tap=TAP)
    found = [
        one
        for one in sets
        if one.spec.dataset == texts
        and one.spec.numerics.stored == stored
        and is_partner(one.spec.backbone, images)
    ]
    return found[0].open() if len(found) == 1 else None  # of two, loading tells the tokenizer's


def is_partner(text: BackboneIdentity, images: BackboneIdentity) -> bool:
    """Tell whether a text tower was trained with an image tower."""
    from featcache.backbones.text import image_tower_of

    one = image_tower_of(text)
    return (one.weights, one.architecture) == (images.weights, images.architecture)


def _refuse_other(text: BackboneIdentity, images: BackboneIdentity | None) -> None:
    """Refuse a text tower that was trained with other images' weights."""
    from featcache.backbones.text import image_tower_of

    if images is not None and not is_partner(text, images):
        one = image_tower_of(text)
        raise OptionError(
            "Texts must go through the tower trained with the images' features, which have weights "
            f"{images.weights[:12]!r} ({images.architecture}); {text.name!r} loads "
            f"{one.weights[:12]!r} ({one.architecture}). Give the same weights: --checkpoint FILE "
            "with `featcache head text`."
        )


def _spec(data: DatasetIdentity, resolved: _Resolved, stored: StoredDtype) -> ExtractionSpec:
    from featcache.backbones.text import TAP

    return ExtractionSpec(
        dataset=data,
        backbone=resolved.identity,
        transform=resolved.transform,
        tap=TAP,
        numerics=Numerics(compute="fp32", stored=stored),
    )


def _write(
    cache: Cache, spec: ExtractionSpec, texts: TextSplit, tower: TextTower, device: str
) -> None:
    """Fill a set and seal it."""
    from featcache.extraction.embedding import resolve_device

    on = resolve_device(device)
    tower.to(on)
    cache.create()
    path = cache.path_of(spec)
    with disk_errors(path, "write"):
        writer = SetWriter(path, spec, tower.encode(texts.texts[:1]).shape[1:])
        for shard in range(writer.layout.n_shards):
            if not writer.is_done(shard):
                _write_shard(writer, shard, texts, tower, on)
        if writer.is_sealed:
            return
        owner = writer.seal(
            labels=texts.labels,
            ids=np.asarray(texts.ids, np.str_),
            class_names=texts.class_names,
            provenance=_provenance(tower, writer, on),
        )
        _refuse(owner, writer)


def _write_shard(
    writer: SetWriter, shard: int, texts: TextSplit, tower: TextTower, device: str
) -> None:
    from featcache.extraction.provenance import environment

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
                values = _vectors(tower, texts, start, min(start + BATCH, spool.stop), writer)
                seconds = time.perf_counter() - began
                spool.append(Batch(start=start, features=values, unreadable={}, seconds=seconds))
                claim.keep_alive()
            record = {"batch_size": BATCH, "environment": environment(device)}
            writer.finish_shard(shard, spool, record)
        finally:
            spool.close()
    finally:
        claim.release()


def _vectors(
    tower: TextTower, texts: TextSplit, start: int, stop: int, writer: SetWriter
) -> NDArray[np.floating]:
    """Return vectors as they are stored; each must be finite in the stored type."""
    dtype = writer.layout.dtype
    values = tower.encode(texts.texts[start:stop])
    limit = float(np.finfo(dtype).max)
    is_fine = (np.abs(values) <= limit).all(axis=1)
    if not is_fine.all():
        row = start + int(np.flatnonzero(~is_fine)[0])
        raise ExtractionError(
            f"Vectors of texts must be finite and at most {limit:g} to be stored as {dtype}; that "
            f"of {texts.texts[row]!r} (row {row}) is not. Check the text tower's weights."
        )
    return values.astype(dtype)


def _provenance(tower: TextTower, writer: SetWriter, device: str) -> dict[str, Json]:
    from featcache.backbones.text import TAP
    from featcache.extraction.provenance import environment

    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "default_tap": TAP,
        "scale": tower.scale,
        "offset": tower.offset,
        "batch_size": BATCH,
        "environment": environment(device),
        **cost_of(writer.done().values()),
    }


def _refuse(owner: Owner | None, writer: SetWriter) -> None:
    if owner is not None:
        raise StoreError(
            f"One process must embed the same texts; {owner} writes {writer.path}. Wait for it."
        )


def _memo_path(cache: Cache, request: Request, texts: DatasetIdentity) -> Path | None:
    """Return where a tower and the tokens of these texts are remembered.

    None where only loading tells which weights a request means.
    """
    from featcache.backbones.factory import request_identity

    identity = request_identity(
        request.name, checkpoint=request.checkpoint, renamer=request.renamer
    )
    if identity is None:
        return None
    name = sha256_json([FORMAT, "text", identity, texts.fingerprint])
    return cache.root / "requests" / f"{name}.json"


def _recall(path: Path) -> _Resolved | None:
    """Return what is remembered; None if there is nothing, or if the file is damaged."""
    try:
        stored = read_json(path)
        return _Resolved(
            identity=BackboneIdentity(**stored["identity"]), transform=stored["transform"]
        )
    except (FileNotFoundError, CorruptError, KeyError, TypeError):
        return None


def _remember(path: Path, resolved: _Resolved) -> None:
    record = {"identity": asdict(resolved.identity), "transform": dict(resolved.transform)}
    with disk_errors(path.parent, "remember a text tower in"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_replacing(path, json_bytes(record))
