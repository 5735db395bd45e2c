"""What a sealed feature set says of itself: every file with its hash, and one content digest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from featcache.digest import Json, blake3_bytes, blake3_file, sha256_json
from featcache.spec import ExtractionSpec
from featcache.store.arrays import SmallArrays
from featcache.store.layout import Layout

GROUP_FILE = "zarr.json"


def content_digest(
    spec: ExtractionSpec, layout: Layout, shards: Sequence[str], arrays: SmallArrays
) -> str:
    """Return the SHA-256 that names what is stored: features, labels, ids and ledger.

    It depends on values alone, not on when, where or with which Zarr library they were written.

    Args:
        spec: The set's spec.
        layout: Geometry of the features.
        shards: BLAKE3 of every shard file, in order.
        arrays: Labels, ids and ledger.
    """
    return sha256_json(
        {
            "key": spec.key,
            "features": {
                "rows": layout.rows,
                "row_shape": layout.row_shape,
                "dtype": layout.dtype,
                "chunk_rows": layout.chunk_rows,
                "shards": list(shards),
            },
            "labels": blake3_bytes(arrays.labels.astype("<i8").tobytes()),
            "class_names": list(arrays.class_names),
            "ids": sha256_json(arrays.ids.tolist()),
            "status": blake3_bytes(arrays.status.tobytes()),
            "reasons": {str(row): why for row, why in sorted(arrays.reasons.items())},
        }
    )


def list_files(root: Path, known: Mapping[str, str]) -> list[dict[str, Json]]:
    """List every file of a set but its own group metadata, with size and BLAKE3, by path.

    Args:
        root: The set's directory.
        known: BLAKE3 by path of the files whose digest was taken when they were written.
    """
    return [
        {
            "path": name,
            "bytes": path.stat().st_size,
            "blake3": known.get(name) or blake3_file(path),
        }
        for path in sorted(root.rglob("*"))
        if path.is_file() and (name := path.relative_to(root).as_posix()) != GROUP_FILE
    ]


def group_metadata(
    spec: ExtractionSpec, *, provenance: Mapping[str, Any] | None, sealed: Mapping[str, Any] | None
) -> dict[str, Json]:
    """Return the group's `zarr.json`; a sealed one carries a checksum over its attributes."""
    attributes: dict[str, Json] = {
        "spec": spec.to_json(),
        "provenance": dict(provenance) if provenance is not None else None,
        "sealed": dict(sealed) if sealed is not None else None,
    }
    if sealed is not None:
        attributes["checksum"] = sha256_json(attributes)
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}
