"""Queries and gallery from folders of classes, by the rule of Battle of the Backbones.

In each class folder the file names are sorted, the first `limit` are kept, and the first fifth of
those, rounded down, are queries; the rest is the gallery. Arguments of a split: `folder` (one, or
several of which the first that is there is taken), `part` (`query` or `gallery`) and `limit` (0
for none). Class names are those of the folders. Only what lies right in a class folder counts.

Source: hsouri/bob-retrieval, retrieval/utils.py, at 9db15f5.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from featcache.datasets.dataset import Split
from featcache.datasets.folders import scan
from featcache.datasets.listed import Listed, existing, listed_split, refuse
from featcache.datasets.recorded import Record

ENDINGS = (".JPG", ".JPEG", ".jpg", ".png", ".PNG")
"""What the original takes for an image; `.jpeg` is not among them."""

QUERY_SHARE = 0.2


def read(record: Record, root: Path, split: str) -> Split:
    """Read the queries or the gallery; rows are ordered by class and file name.

    Raises:
        DatasetError: If there is no such folder, or no class in it.
    """
    given = record.splits[split]
    names = given.get("folder", ".")
    folder = existing(record, root, *([names] if isinstance(names, str) else names))
    folders = scan(str(folder)).folders
    if not folders:
        refuse(record, folder, "there are no class folders")
    rows: list[Listed] = []
    for label, (name, found) in enumerate(folders.items()):
        queries, gallery = divide(found.direct, limit=given.get("limit", 0))
        chosen = queries if given["part"] == "query" else gallery
        rows += _rows(name, chosen, label)
    return listed_split(record, split, folder, rows, tuple(folders))


def divide(files: Sequence[str], *, limit: int = 0) -> tuple[list[str], list[str]]:
    """Return the queries and the gallery among the files of a class.

    A class of fewer than five images has no query.

    Args:
        files: Names in any order; those without an ending of an image are passed over.
        limit: How many are kept; 0 for all.
    """
    kept = sorted(name for name in files if name.endswith(ENDINGS))
    kept = kept[:limit] if limit else kept
    n_queries = int(QUERY_SHARE * len(kept))
    return kept[:n_queries], kept[n_queries:]


def _rows(folder: str, files: Sequence[str], label: int) -> Iterator[Listed]:
    for file in files:
        yield Listed(f"{folder}/{file}", label)
