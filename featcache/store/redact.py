"""Copies of a set without what must not leave: labels, or names of samples."""

from __future__ import annotations

import hashlib
import hmac
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from featcache.digest import Json, sha256_json
from featcache.errors import OptionError
from featcache.spec import DatasetIdentity
from featcache.store.arrays import SmallArrays, write_arrays
from featcache.store.cache import Cache
from featcache.store.feature_set import FeatureSet
from featcache.store.files import disk_errors, json_bytes
from featcache.store.manifest import GROUP_FILE, content_digest, group_metadata, list_files
from featcache.store.shard import ShardDigests

_ID_DIGITS = 32
_SHARED_FACTS = ("default_tap", "backbone", "dataset", "environment", "batch_size")
"""What of the provenance says nothing about single samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Redaction:
    """What to take out."""

    labels: bool = False
    """Labels and class names."""
    salt: bytes | None = None
    """Ids become their HMAC-SHA-256 under this secret, and reasons of unreadable rows are dropped.

    Without the secret nobody can tell whether an id they guess is in the set.
    """

    @property
    def is_empty(self) -> bool:
        """Whether nothing is taken out."""
        return not self.labels and self.salt is None


def redact(one: FeatureSet, redaction: Redaction, cache: Cache) -> FeatureSet:
    """Write a copy of a sealed set into another cache without some of what it says.

    Features are the same files (linked where the system can). The copy has a key of its own, as
    ids and labels are part of what a key names; the same salt gives the same key.

    Args:
        one: The set.
        redaction: What to take out.
        cache: Where the copy goes, another than the set's.

    Raises:
        OptionError: If labels are taken out and ids would tell them.
        StoreError: If it cannot be written.
        CorruptError: If labels, ids or ledger are damaged; features are not looked at.
    """
    if redaction.labels and redaction.salt is None:
        _refuse_telling_ids(one)
    arrays = _arrays(one.arrays, redaction)
    spec = replace(one.spec, dataset=_identity(one.spec.dataset, arrays, redaction))
    path = cache.path_of(spec)
    with disk_errors(path, "write"):
        shutil.rmtree(path, ignore_errors=True)
        for shard in range(one.layout.n_shards):
            name = f"features/{one.layout.shard_path(shard)}"
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            _link(one.path / name, path / name)
        shutil.copyfile(one.path / "features/zarr.json", path / "features/zarr.json")
        write_arrays(path, arrays)
        digests = {
            str(file["path"]): ShardDigests(file=file["blake3"], chunks=tuple(file["chunks"]))
            for file in one.sealed["files"]
            if "chunks" in file
        }
        shards = [
            digests[f"features/{one.layout.shard_path(shard)}"].file
            for shard in range(one.layout.n_shards)
        ]
        sealed = {
            "rows": one.rows,
            "readable": one.sealed["readable"],
            "digest": content_digest(spec, one.layout, shards, arrays),
            "files": list_files(path, digests),
        }
        provenance = _provenance(one.provenance, redaction)
        metadata = group_metadata(spec, provenance=provenance, sealed=sealed)
        (path / GROUP_FILE).write_bytes(json_bytes(metadata))
    return FeatureSet(path)


def _refuse_telling_ids(one: FeatureSet) -> None:
    """Refuse ids that name the class of their row, as of images in one folder per class."""
    for row in np.flatnonzero(one.labels >= 0).tolist():
        name = one.class_names[one.labels[row]]
        if name in one.ids[row].split("/"):
            raise OptionError(
                f"Ids must not tell labels that are left out; row {row} has {str(one.ids[row])!r}, "
                f"which names its class {name!r}. Add --hash-ids."
            )


def _arrays(arrays: SmallArrays, redaction: Redaction) -> SmallArrays:
    if redaction.labels:
        arrays = replace(arrays, labels=np.full_like(arrays.labels, -1), class_names=())
    if (salt := redaction.salt) is not None:
        hashed = [hmac.new(salt, one.encode(), hashlib.sha256).hexdigest() for one in arrays.ids]
        arrays = replace(
            arrays,
            ids=np.array([one[:_ID_DIGITS] for one in hashed]),
            reasons=dict.fromkeys(arrays.reasons, "unreadable"),
        )
    return arrays


def _identity(
    identity: DatasetIdentity, arrays: SmallArrays, redaction: Redaction
) -> DatasetIdentity:
    fingerprint, label_set = identity.fingerprint, identity.label_set
    if redaction.salt is not None:
        fingerprint = sha256_json({"ids": arrays.ids.tolist(), "rows": identity.rows})
    if redaction.labels:
        label_set = sha256_json({"classes": [], "labels": arrays.labels.tolist()})
    return replace(identity, fingerprint=fingerprint, label_set=label_set)


def _provenance(provenance: Mapping[str, Json], redaction: Redaction) -> dict[str, Json]:
    kept = {name: provenance[name] for name in _SHARED_FACTS if name in provenance}
    taken = [
        name for name, is_out in (("labels", redaction.labels), ("ids", redaction.salt)) if is_out
    ]
    return {**kept, "redacted": taken, "shards": []}


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
