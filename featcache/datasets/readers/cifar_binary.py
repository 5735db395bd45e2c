"""CIFAR-10 and CIFAR-100 in the binary version, which needs no unpickling.

    ROOT/data_batch_1.bin ... data_batch_5.bin, test_batch.bin, batches.meta.txt
    ROOT/train.bin, test.bin, coarse_label_names.txt, fine_label_names.txt

A row is the bytes of its labels (CIFAR-100: coarse, then fine), then 32 x 32 pixels of red, of
green and of blue. Arguments of a split: `files`, `names` (the file of the class names) and `labels`
(how many bytes of labels there are; the last one counts).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featcache.datasets.dataset import Split
from featcache.datasets.images import ArrayImages
from featcache.datasets.listed import existing, read_lines, refuse
from featcache.datasets.recorded import Record

_SIDE = 32


def read(record: Record, root: Path, split: str) -> Split:
    """Read a split; rows are in the order of the files, with ids `train/00000` and so on.

    Raises:
        DatasetError: If a file is missing or cut off, or if a label is that of no class.
    """
    given = record.splits[split]
    width = int(given["labels"])
    files = [existing(record, root, name) for name in given["files"]]
    rows = np.concatenate([_rows(record, file, width) for file in files])  # (N, width + 3072)
    names = tuple(read_lines(existing(record, root, str(given["names"]))))
    labels = rows[:, width - 1].astype(np.int64)
    if labels.max(initial=0) >= len(names):
        refuse(record, root, f"a label is {labels.max()}, with {len(names)} classes")
    pixels = rows[:, width:].reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
    return Split(
        dataset=record.name,
        name=split,
        ids=tuple(f"{split}/{row:05d}" for row in range(len(rows))),
        labels=labels,
        class_names=names,
        images=ArrayImages(np.ascontiguousarray(pixels)),
        facts=record.facts,
    )


def _rows(record: Record, file: Path, width: int) -> NDArray[np.uint8]:
    data, each = np.fromfile(file, dtype=np.uint8), width + 3 * _SIDE * _SIDE
    if len(data) % each:
        refuse(record, file.parent, f"{file.name!r} has {len(data)} bytes, no multiple of {each}")
    return data.reshape(-1, each)
