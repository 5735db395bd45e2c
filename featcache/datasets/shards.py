"""Which archives a source of shards means, and which split each belongs to.

    DIR                             all *.tar in it and below
    DIR/train-{000000..000009}.tar  each of these must be there; {a,b} are alternatives
    DIR/*.tar                       what a shell would find

A shard belongs to the split that the folder right in DIR is called (`train/0.tar`), or that a word
of its own name says (`pets-train-0001.tar`); all belong to `all` if none says a split.
"""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from featcache.datasets.source import SPLIT_ALIASES, path_name, safe_name, some_of
from featcache.datasets.tar import COMPRESSED
from featcache.errors import DatasetError

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"([0-9]{1,9})\.\.([0-9]{1,9})")
_SPECIAL = re.compile(r"[{*?\[]")
_GROUPS = re.compile(r"\{[^{}]*\}|\[[^\]]*\]|[*?]")
_SUFFIX = ".tar"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shards:
    """Archives by split."""

    root: str
    """The folder, or that part of a pattern that stands before the first special character."""
    splits: dict[str, tuple[str, ...]]
    """Split to archives, absolute, sorted by code point."""
    names: dict[str, str]
    """Archive to what ids call it: its path below the folder of its split, with `/`."""


def find_shards(pattern: str) -> Shards:
    """Return the archives of a folder or a pattern; none is opened.

    Args:
        pattern: As the module says; `~` is the home directory.

    Raises:
        DatasetError: If there is none, if one that braces name is missing, if one is called like a
            compressed one, or if only some are named after a split.
    """
    path = os.path.abspath(Path(pattern).expanduser()) if pattern else ""  # noqa: PTH100
    is_folder = bool(path) and Path(path).is_dir()
    root = path if is_folder else _literal_folder(path)
    files = _below(path) if is_folder else _matching(path) if path else []
    if not files:
        got = "an empty path" if not path else f"none in {path!r}"
        raise DatasetError(
            "`wds:PATTERN` must name tar archives: a folder of them, or a pattern such as "
            f"shard-{{000000..000009}}.tar; got {got}. Check the path."
        )
    if packed := [file for file in files if file.lower().endswith(COMPRESSED)]:
        raise DatasetError(
            "Shards must be plain tar archives, in which an image can be found without reading all "
            f"before it; got {some_of(packed, 3)}. Uncompress them first."
        )
    if other := [file for file in files if not file.lower().endswith(_SUFFIX)]:
        raise DatasetError(
            f"Shards must be archives called *.tar; got {some_of(other, 3)}. Check the pattern."
        )
    return _by_split(root, files)


def shards_name(pattern: str) -> str:
    """Return the dataset's name in the cache; touches no file but to tell a folder.

    That of the folder; of a pattern its folder and what its last part says beside numbers and
    splits: `pets` for pets/train-{00..99}.tar, `pets-cats` for pets/cats-*.tar.
    """
    if not _SPECIAL.search(pattern) and not pattern.lower().endswith(_SUFFIX):
        return path_name(pattern)
    head, _, last = pattern.replace("\\", "/").rpartition("/")
    while _SPECIAL.search(head):
        head = head.rpartition("/")[0]
    words = re.split(r"[-_.]", _GROUPS.sub("", last.removesuffix(_SUFFIX)))
    kept = [word for word in words if word and word.lower() not in SPLIT_ALIASES]
    folder = path_name(head or ".")
    return safe_name("-".join([folder, *kept]))


def expand_braces(pattern: str) -> Iterator[str]:
    """Yield what `{000..009}` and `{a,b}` stand for, each in turn, as a shell does.

    Numbers keep the width that they are written with; other braces stay as they are.
    """
    parts = _BRACES.split(pattern)  # texts and insides of braces in turn
    choices = [[part] if i % 2 == 0 else _choices(part) for i, part in enumerate(parts)]
    for chosen in itertools.product(*choices):
        yield "".join(chosen)


def _choices(inside: str) -> list[str]:
    if found := _RANGE.fullmatch(inside):
        first, last = found[1], found[2]
        is_padded = any(len(end) > 1 and end.startswith("0") for end in (first, last))
        width = max(len(first), len(last)) if is_padded else 1
        step = 1 if int(first) <= int(last) else -1
        return [f"{n:0{width}d}" for n in range(int(first), int(last) + step, step)]
    return inside.split(",") if "," in inside else [f"{{{inside}}}"]


def _literal_folder(path: str) -> str:
    folder = os.path.dirname(path)  # noqa: PTH120  text, not a path: it may hold braces
    while _SPECIAL.search(folder):
        folder = os.path.dirname(folder)  # noqa: PTH120
    return folder


def _matching(path: str) -> list[str]:
    """Return the files of a pattern; those that braces alone name must be there."""
    found, missing = set(), []
    for one in expand_braces(path):
        if Path(one).exists():
            found.add(one)
        elif glob.has_magic(one):
            found.update(glob.glob(one, recursive=True))  # noqa: PTH207  the pattern is absolute
        else:
            missing.append(one)
    if missing and (found or len(missing) > 1):
        raise DatasetError(
            f"Each shard that braces name must be there; {len(missing)} of "
            f"{len(missing) + len(found)} are missing: {some_of(missing, 3)}. Fetch them, or name "
            "those that are there."
        )
    return sorted(found)


def _below(folder: str) -> list[str]:
    """Return the archives in a folder and below, hidden ones passed over."""
    found = []
    for base, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            os.path.join(base, name)  # noqa: PTH118
            for name in files
            if not name.startswith(".") and name.lower().endswith((_SUFFIX, *COMPRESSED))
        ]
    return sorted(found)


def _by_split(root: str, files: Sequence[str]) -> Shards:
    splits: dict[str, list[str]] = {}
    names: dict[str, str] = {}
    for file in files:
        inner = PurePosixPath(Path(os.path.relpath(file, root)).as_posix())
        folder = SPLIT_ALIASES.get(inner.parts[0].lower()) if len(inner.parts) > 1 else None
        said = [
            SPLIT_ALIASES[w] for w in re.split(r"[-_.]", inner.stem.lower()) if w in SPLIT_ALIASES
        ]
        splits.setdefault(folder or (said[-1] if said else "all"), []).append(file)
        names[file] = str(PurePosixPath(*inner.parts[1:])) if folder else str(inner)
    if "all" in splits and len(splits) > 1:
        others = ", ".join(sorted(splits.keys() - {"all"}))
        raise DatasetError(
            f"Each shard must be named after its split, or none; got {splits['all'][0]!r} beside "
            f"the splits {others}. Move or rename it, for example into a folder train/."
        )
    for name, of in splits.items():
        if len({names[file] for file in of}) < len(of):
            raise DatasetError(
                f"Each split must have one folder of shards; in {root!r}, two are called "
                f"{name!r}. Merge or rename one."
            )
    return Shards(root=root, splits={name: tuple(of) for name, of in splits.items()}, names=names)
