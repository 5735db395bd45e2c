"""What a sealed feature set says of itself: every file with its hash, and one content digest."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from featcache.digest import Json, blake3_bytes, blake3_file, sha256_json
from featcache.spec import ExtractionSpec
from featcache.store.arrays import SmallArrays
from featcache.store.layout import CRC_BYTES, Layout

GROUP_FILE = "zarr.json"
_DIGEST = re.compile(r"[0-9a-f]{64}")


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


MAX_ID_BYTES = 1 << 12
"""Longest id in UTF-8: as long as a path may be."""
MAX_METADATA_BYTES = 64 << 20


def file_bounds(layout: Layout) -> Iterator[tuple[str, int, int]]:
    """Yield (path, fewest bytes, most bytes) of every file that a set of this layout has."""
    yield "features/zarr.json", 1, MAX_METADATA_BYTES
    for shard in range(layout.n_shards):
        size = layout.shard_bytes(shard)
        yield f"features/{layout.shard_path(shard)}", size, size
    for name, least, most in (("ids", 1, MAX_ID_BYTES), ("labels", 8, 8), ("status", 1, 1)):
        chunk = f"{name}/c/0/0" if name == "ids" else f"{name}/c/0"
        yield chunk, least * layout.rows + CRC_BYTES, most * layout.rows + CRC_BYTES
        yield f"{name}/zarr.json", 1, MAX_METADATA_BYTES


def check_files(files: Sequence[Mapping[str, Json]], layout: Layout) -> str | None:
    """Say what is wrong with a manifest's list of files; None if nothing is.

    A list that passes names exactly the files of a set, so no path can lead anywhere else, and
    each with a size that the set's shape allows.
    """
    if len(files) != layout.n_shards + 7:
        return f"lists {len(files)} files instead of {layout.n_shards + 7}"
    listed = {str(file["path"]): file for file in files}
    for name, least, most in file_bounds(layout):
        if name not in listed:
            return f"does not list {name}"
        size, digest = listed[name]["bytes"], listed[name]["blake3"]
        if not isinstance(size, int) or not least <= size <= most:
            return f"gives {name} {size!r} bytes, outside {least} to {most}"
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            return f"gives {name} no BLAKE3 digest"
    return None


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
