"""Images with captions, in the splits of Karpathy and Fei-Fei (`caption_datasets.zip`).

    ROOT/dataset_coco.json  {"images": [{"filepath": "val2014", "filename": "COCO_val2014_….jpg",
                             "split": "restval", "sentences": [{"raw": "A man ..."}, ...]}, ...]}
    ROOT/val2014/COCO_val2014_….jpg

The tables of Flickr8k and Flickr30k have no `filepath`. Arguments of a split: `table` (the file),
`parts` (which values of `split` belong to it) and `images` (where paths start, or several places of
which the first that is there is taken). Ids are the paths; there are no classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from featcache.datasets.dataset import Split
from featcache.datasets.listed import Listed, existing, listed_split, refuse
from featcache.datasets.recorded import Record


def read(record: Record, root: Path, split: str) -> Split:
    """Read the images of a split; rows are in the order of the table.

    Raises:
        DatasetError: If a file is missing, or if the table is not of that form.
    """
    places = record.splits[split].get("images", ".")
    folder = existing(record, root, *([places] if isinstance(places, str) else places))
    return listed_split(record, split, folder, map(Listed, captions(record, root, split)))


def captions(record: Record, root: Path, split: str) -> dict[str, tuple[str, ...]]:
    """Return the captions of each image of a split as they were written, in the table's order.

    Raises:
        DatasetError: If the table is missing, or not of that form.
    """
    given = record.splits[split]
    file = existing(record, root, str(given["table"]))
    try:
        images = json.loads(file.read_bytes())["images"]
        found = [_image(one) for one in images if one["split"] in given["parts"]]
    except (ValueError, KeyError, TypeError) as error:
        refuse(record, root, f"{file.name!r} is no table of captions ({error!r})")
    return dict(found)


def _image(entry: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    folder = entry.get("filepath", "")
    name = f"{folder}/{entry['filename']}" if folder else str(entry["filename"])
    sentences: Sequence[Mapping[str, Any]] = entry["sentences"]
    return name, tuple(str(one["raw"]) for one in sentences)
