"""`imagefolder:DIR`: folders of images, one per class, with or without folders for splits.

    DIR/cat/1.jpg              one split `all`, the classes are the folders
    DIR/train/cat/1.jpg        splits train, val, test (their usual names are known)
    DIR/1.jpg                  one split `all` without labels

Classes may hold folders of their own. Ids are paths relative to the split's folder, sorted by
code point, so that they are the same on each machine.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from featcache.datasets.dataset import NO_LABEL, Dataset, Split
from featcache.datasets.folders import Folder, scan
from featcache.datasets.images import FileImages
from featcache.datasets.source import (
    SPLIT_ALIASES,
    LoadedDataset,
    Source,
    class_facts,
    order_splits,
    path_name,
    some_of,
    text_id,
)
from featcache.errors import DatasetError


def open_imagefolder(rest: str) -> Dataset:
    """Open a folder of images; all names are read at once, no image is.

    Args:
        rest: The folder; `~` is the home directory.

    Raises:
        DatasetError: If it is no folder, holds no image, mixes layouts or has empty classes.
    """
    root = os.path.abspath(Path(rest).expanduser())  # noqa: PTH100  links stay as they are
    if not rest or not Path(root).is_dir():
        got = "an empty path" if not rest else "a file" if Path(root).exists() else "nothing"
        raise DatasetError(
            f"`imagefolder:DIR` must name a folder; got {got} at {root!r}. Check the path"
            f"{', or write csv:FILE for a table' if got == 'a file' else ''}."
        )
    splits = _splits(scan(root))
    labelled = {split: folder for split, folder in splits.items() if not folder.direct}
    _refuse_empty_classes(labelled)
    classes = sorted({name for folder in labelled.values() for name in folder.folders})
    name = path_name(rest)
    return LoadedDataset(
        name, order_splits(set(splits)), lambda split: _split(name, split, splits[split], classes)
    )


def _split(dataset: str, name: str, folder: Folder, classes: list[str]) -> Split:
    index = {label: i for i, label in enumerate(classes)}
    rows = [(path, NO_LABEL) for path in folder.direct]
    for label, inner in folder.folders.items():
        rows += [(f"{label}/{path}", index[label]) for path in inner.images()]
    rows.sort()
    ignored = folder.all_ignored()
    return Split(
        dataset=dataset,
        name=name,
        ids=tuple(text_id(path) for path, _ in rows),
        labels=np.array([label for _, label in rows], dtype=np.int64),
        class_names=tuple(text_id(label) for label in classes),
        images=FileImages(folder.path, tuple(path for path, _ in rows)),
        facts=class_facts(len(classes))
        | {"ignored_files": ignored.total(), "ignored_extensions": sorted(ignored)},
    )


def _splits(top: Folder) -> dict[str, Folder]:
    """Tell splits from classes.

    A class may be called `train` (the vehicle): such a folder is a split if it holds its images
    in folders, or if only splits lie beside it.
    """
    if top.is_empty():
        ignored = top.all_ignored()
        found = f" among {ignored.total()} files ({some_of(sorted(ignored))})" if ignored else ""
        raise DatasetError(
            f"A folder of images must hold at least one; {top.path!r} holds none{found}. "
            "Check the path."
        )
    _refuse_mixture(top)
    filled = [name for name, folder in top.folders.items() if not folder.is_empty()]
    named = [name for name in filled if name.lower() in SPLIT_ALIASES]
    others = [name for name in filled if name not in named]
    nested = [name for name in named if not top.folders[name].direct]
    if nested and others:
        raise DatasetError(
            f"The folders must be all splits or all classes; got the split {nested[0]!r} beside "
            f"{some_of(others)}. Move the others away, or rename the class."
        )
    return {"all": top} if others or not named else _by_alias(top)


def _by_alias(top: Folder) -> dict[str, Folder]:
    splits: dict[str, Folder] = {}
    for name, folder in top.folders.items():
        split = SPLIT_ALIASES.get(name.lower())
        if split is None:
            continue  # a folder without images
        if split in splits or folder.is_empty():
            got = "is empty" if folder.is_empty() else f"is a second {split!r}"
            raise DatasetError(
                f"Each split must have one folder with images; {folder.path!r} {got}. "
                "Remove, merge or rename it."
            )
        _refuse_mixture(folder)
        splits[split] = folder
    return splits


def _refuse_mixture(folder: Folder) -> None:
    filled = [name for name, inner in folder.folders.items() if not inner.is_empty()]
    if folder.direct and filled:
        raise DatasetError(
            "Images must lie in folders, one per class, or all directly in the folder; "
            f"{folder.path!r} has both: {len(folder.direct)} directly ({folder.direct[0]!r}) and "
            f"more in {some_of(filled)}. Move them into one layout."
        )


def _refuse_empty_classes(splits: dict[str, Folder]) -> None:
    empty = [
        name if split == "all" else f"{split}/{name}"
        for split, folder in splits.items()
        for name, inner in folder.folders.items()
        if inner.is_empty()
    ]
    if empty:
        raise DatasetError(
            f"Each class folder must hold at least one image; these are empty: {some_of(empty)}. "
            "Remove the folders or add images."
        )


SOURCE = Source(name=path_name, open=open_imagefolder)
