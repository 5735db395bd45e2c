"""What a sealed feature set says of itself: every file with its hash, and one content digest."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from featcache.digest import Json, blake3_bytes, blake3_file, sha256_json
from featcache.spec import ExtractionSpec
from featcache.store.arrays import SmallArrays
from featcache.store.codes import CODE_DTYPE
from featcache.store.layout import CRC_BYTES, Layout
from featcache.store.shard import ShardDigests

GROUP_FILE = "zarr.json"
_DIGEST = re.compile(r"[0-9a-f]{64}")


def is_digest(value: Json) -> bool:
    """Tell whether a value is a SHA-256 or BLAKE3, 64 hex digits."""
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


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
    coded = {}
    if arrays.decoder is not None:
        coded = {"decoder": blake3_bytes(arrays.decoder.astype("<f4").tobytes())}
    return sha256_json(
        {
            **coded,
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


def list_files(root: Path, shards: Mapping[str, ShardDigests]) -> list[dict[str, Json]]:
    """List every file of a set but its own group metadata, with size and BLAKE3, by path.

    Args:
        root: The set's directory.
        shards: Digests by path of the shards, taken when they were written.
    """
    return [
        {
            "path": name,
            "bytes": path.stat().st_size,
            **(_digests(shards[name]) if name in shards else {"blake3": blake3_file(path)}),
        }
        for path in sorted(root.rglob("*"))
        if path.is_file() and (name := path.relative_to(root).as_posix()) != GROUP_FILE
    ]


def _digests(shard: ShardDigests) -> dict[str, Json]:
    return {"blake3": shard.file, "chunks": list(shard.chunks)}


MAX_ID_BYTES = 1 << 12
"""Longest id in UTF-8: as long as a path may be."""
MAX_METADATA_BYTES = 64 << 20
MAX_DECODER_BYTES = 64 << 20
"""Room for 256 centroids of 65,536 dimensions."""


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
    if layout.dtype == CODE_DTYPE:
        yield "decoder/c/0/0", 1, MAX_DECODER_BYTES
        yield "decoder/zarr.json", 1, MAX_METADATA_BYTES


def check_files(files: Json, layout: Layout) -> str | None:
    """Say what is wrong with a manifest's list of files; None if nothing is.

    A list that passes names exactly the files of a set, so no path can lead anywhere else, and
    each with a size that the set's shape allows.
    """
    expected = layout.n_shards + (9 if layout.dtype == CODE_DTYPE else 7)
    if not isinstance(files, list) or not all(isinstance(file, dict) for file in files):
        return "lists no files"
    if len(files) != expected:
        return f"lists {len(files)} files instead of {expected}"
    listed = {str(file.get("path")): file for file in files}
    for name, least, most in file_bounds(layout):
        if name not in listed:
            return f"does not list {name}"
        size, digest = listed[name].get("bytes"), listed[name].get("blake3")
        if type(size) is not int or not least <= size <= most:
            return f"gives {name} {size!r} bytes, outside {least} to {most}"
        if not is_digest(digest):
            return f"gives {name} no BLAKE3 digest"
    return _check_chunks(listed, layout)


def _check_chunks(listed: Mapping[str, Mapping[str, Json]], layout: Layout) -> str | None:
    for shard in range(layout.n_shards):
        name = f"features/{layout.shard_path(shard)}"
        chunks = listed[name].get("chunks")
        if not isinstance(chunks, list) or len(chunks) != layout.n_chunks(shard):
            return f"gives {name} not one digest per chunk"
        if not all(map(is_digest, chunks)):
            return f"gives a chunk of {name} no BLAKE3 digest"
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
