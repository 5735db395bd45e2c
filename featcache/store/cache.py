"""A cache is a directory; this module knows where everything in it lies."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featcache.errors import FeatcacheError, OptionError, StoreError
from featcache.spec import KEY_DIGITS, ExtractionSpec
from featcache.store.feature_set import FeatureSet, read_group
from featcache.store.files import disk_errors

_UNSAFE = re.compile(r"[^A-Za-z0-9._=-]+")
_LONGEST_NAME = 80


def slug(name: str) -> str:
    """Return a file name for `name`: portable characters, at most 80, never empty or hidden.

    A name that had to be cut ends in a digest of the whole, so that two long names stay apart.
    """
    safe = _UNSAFE.sub("_", name).strip("._") or "_"
    if len(safe) <= _LONGEST_NAME:
        return safe
    return f"{safe[: _LONGEST_NAME - 13]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def default_root() -> Path:
    """Return `$FEATCACHE_CACHE`, or the platform's cache directory for featcache."""
    if chosen := os.environ.get("FEATCACHE_CACHE"):
        return Path(chosen).expanduser()
    import platformdirs

    return platformdirs.user_cache_path("featcache")


@dataclass(frozen=True, slots=True)
class Stored:
    """One feature set in the cache as a listing shows it, sealed or not."""

    path: Path
    spec: ExtractionSpec
    provenance: dict[str, Any] | None
    sealed: dict[str, Any] | None

    @property
    def bytes(self) -> int:
        """Bytes of all files of a sealed set; 0 while it is not sealed."""
        return sum(file["bytes"] for file in self.sealed["files"]) if self.sealed else 0

    def open(self) -> FeatureSet:
        """Open the set, which must be sealed."""
        return FeatureSet(self.path)


class Cache:
    """Paths and listings below one root directory."""

    def __init__(self, root: Path | str | None = None) -> None:
        """Use `root`, or `default_root()`; nothing is created yet."""
        self.root = Path(root).expanduser().absolute() if root is not None else default_root()

    def create(self) -> None:
        """Make the root directory.

        Raises:
            StoreError: If it cannot be made or written.
        """
        with disk_errors(self.root, "create the cache"):
            self.root.mkdir(parents=True, exist_ok=True)
        if not os.access(self.root, os.W_OK):
            raise StoreError(
                f"The cache must be writable; {self.root} is not. "
                "Choose another with --cache or FEATCACHE_CACHE."
            )

    def path_of(self, spec: ExtractionSpec) -> Path:
        """Return where the feature set of `spec` lies, whether or not it exists."""
        folder = self.folder(spec.dataset.name, spec.dataset.split, spec.backbone.name)
        return folder / f"{slug(spec.view)}-{spec.key[:KEY_DIGITS]}.zarr"

    def folder(self, dataset: str, split: str, backbone: str) -> Path:
        """Return the directory of all sets of one dataset split and backbone."""
        return self.root / "features" / slug(dataset) / slug(split) / slug(backbone)

    def paths(self, pattern: str = "*/*/*") -> list[Path]:
        """Return the directories of all sets whose dataset/split/backbone match, sorted."""
        return sorted((self.root / "features").glob(f"{pattern}/*.zarr"))

    def stored(self, pattern: str = "*/*/*") -> Iterator[Stored]:
        """Yield the sets whose dataset/split/backbone match, by path.

        A directory whose metadata cannot be read is passed over; `cache verify` names it.
        """
        for path in self.paths(pattern):
            try:
                group = read_group(path)
                spec = ExtractionSpec.from_json(group["spec"])
                yield Stored(path, spec, group["provenance"], group["sealed"])
            except FeatcacheError:
                continue

    def matching(self, pattern: str) -> list[Stored]:
        """Return the sets whose dataset/split/backbone fit a shell pattern, by path.

        Names and directories are looked at; the start of a key fits too.
        """
        features = self.root / "features"

        def fits(one: Stored) -> bool:
            data = one.spec.dataset
            name = f"{data.name}/{data.split}/{one.spec.backbone.name}"
            folder = one.path.parent.relative_to(features).as_posix()
            return any(fnmatch.fnmatchcase(text, pattern) for text in (name, folder))

        return [one for one in self.stored() if fits(one) or one.spec.key.startswith(pattern)]

    def find(
        self, *, dataset: str, split: str, backbone: str, tap: str | None = None
    ) -> list[Stored]:
        """Return the sealed sets of a dataset split and backbone, by key."""
        found = self.stored(f"{slug(dataset)}/{slug(split)}/{slug(backbone)}")
        return [
            one
            for one in found
            if one.sealed is not None
            and (one.spec.dataset.name, one.spec.dataset.split) == (dataset, split)
            and one.spec.backbone.name == backbone
            and tap in (None, one.spec.tap)
        ]

    def splits(self, dataset: str, backbone: str) -> set[str]:
        """Return the splits of a dataset for which `backbone` has a sealed set."""
        found = self.stored(f"{slug(dataset)}/*/{slug(backbone)}")
        return {one.spec.dataset.split for one in found if one.sealed is not None}

    def path_by_key(self, reference: str) -> Path:
        """Return the set with this key or key prefix, or at this path.

        Raises:
            OptionError: If no set, or more than one, fits.
        """
        as_path = Path(reference).expanduser()
        if as_path.suffix == ".zarr" and as_path.is_dir():
            return as_path
        fitting = [one.path for one in self.stored() if one.spec.key.startswith(reference)]
        if len(fitting) == 1 and reference:
            return fitting[0]
        got = f"{len(fitting)} do" if fitting else "none does"
        raise OptionError(
            f"One feature set in {self.root} must have a key that starts with {reference!r}; "
            f"{got}. List the keys with: featcache ls features"
        )

    def open(self, reference: str) -> FeatureSet:
        """Open the set with this key prefix or at this path."""
        return FeatureSet(self.path_by_key(reference))
