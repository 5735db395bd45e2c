"""Reads which images lie in a tree of folders; opens no image."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from featcache.errors import DatasetError

EXTENSIONS = frozenset(
    [
        *(
            ".jpg",
            ".jpeg",
            ".jpe",
            ".jfif",
            ".mpo",
            ".png",
            ".apng",
            ".webp",
            ".gif",
            ".bmp",
            ".dib",
        ),
        *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".j2c", ".jpf", ".jpx"),
        *(".avif", ".heic", ".heif", ".ico", ".qoi", ".pcx", ".sgi", ".dds", ".psd"),
    ]
)
"""What counts as an image, in any case; one that cannot be decoded becomes a row with a reason."""

HIDDEN = "hidden"
"""Stands for the extension of a hidden file among the ignored ones."""

_SYSTEM_FOLDERS = {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "__pycache__"}

_Inode = tuple[int, int]


@dataclass(slots=True)
class Folder:
    """A folder: the images right inside, and its folders, sorted by name."""

    path: str
    direct: list[str] = field(default_factory=list)
    folders: dict[str, Folder] = field(default_factory=dict)
    ignored: Counter[str] = field(default_factory=Counter)
    """Extension, or `HIDDEN`, to how many files right inside were passed over."""

    def images(self) -> Iterator[str]:
        """Yield all images, here and below, relative to this folder, with `/`."""
        yield from self.direct
        for name, folder in self.folders.items():
            yield from (f"{name}/{image}" for image in folder.images())

    def is_empty(self) -> bool:
        """Tell whether there is no image here or below."""
        return next(self.images(), None) is None

    def all_ignored(self) -> Counter[str]:
        """Return how many files were passed over here and below."""
        return sum((folder.all_ignored() for folder in self.folders.values()), self.ignored)


def scan(path: str, above: frozenset[_Inode] = frozenset()) -> Folder:
    """Read the names of all images below a folder.

    Links are followed, except to a folder that holds the link. Hidden files and folders, and
    those that systems leave behind, are passed over.

    Args:
        path: The folder.
        above: Folders that hold this one.

    Raises:
        DatasetError: If a folder cannot be read.
    """
    found = Folder(path)
    for name, is_folder in _entries(path, found.ignored):
        inner = os.path.join(path, name)  # noqa: PTH118  a hot loop over str
        if not is_folder:
            extension = os.path.splitext(name)[1].lower()  # noqa: PTH122
            if extension in EXTENSIONS:
                found.direct.append(name)
            else:
                found.ignored[extension] += 1
        elif _inode(inner) not in (seen := above | {_inode(path)}):
            found.folders[name] = scan(inner, seen)
    return found


def _entries(path: str, ignored: Counter[str]) -> list[tuple[str, bool]]:
    """Return (name, is a folder) of what is not hidden, sorted by name."""
    kept = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                is_folder = _is_folder(entry)
                if is_folder and entry.name in _SYSTEM_FOLDERS:
                    continue
                if entry.name.startswith("."):
                    ignored[HIDDEN] += not is_folder
                else:
                    kept.append((entry.name, is_folder))
    except OSError as error:
        raise DatasetError(
            f"Each folder of a dataset must be readable; {path!r}: {error.strerror}. "
            "Change its permissions or move it away."
        ) from error
    return sorted(kept)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _inode(path: str) -> _Inode:
    found = os.stat(path)  # noqa: PTH116
    return found.st_dev, found.st_ino
