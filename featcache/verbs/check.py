"""Prove a set by embedding some of its rows again, and extract anew only what is damaged."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featcache.digest import Json
from featcache.errors import CorruptError, FeatcacheError, OptionError, StoreError
from featcache.spec import explain
from featcache.store.arrays import read_ledger
from featcache.store.cache import Cache
from featcache.store.claims import living_owner
from featcache.store.equivalence import TOLERANCE, compare_rows
from featcache.store.feature_set import FeatureSet
from featcache.store.files import disk_errors
from featcache.store.layout import Layout, choose_layout
from featcache.store.manifest import GROUP_FILE
from featcache.store.verify import verify
from featcache.store.writer import SetWriter
from featcache.verbs.extract import DIGESTS

if TYPE_CHECKING:
    from featcache.backbone import Backbone
    from featcache.datasets.dataset import Split


@dataclass(frozen=True, slots=True, kw_only=True)
class Recomputed:
    """How rows computed here compare with those that are stored."""

    rows: int
    """Rows compared."""
    worst_row: int
    distance: float
    """Largest ‖new - stored‖₂ / ‖stored‖₂ of a row."""
    largest_difference: float
    """Largest |new - stored| of a value."""
    cosine: float
    """Smallest cosine of a row."""
    tolerance: float

    @property
    def is_equivalent(self) -> bool:
        """Whether every row is within the tolerance."""
        return self.distance <= self.tolerance


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """Where the images and weights of a set are, as far as its record does not say."""

    dataset: str | None = None
    """As given to `extract`; needed for folders and tables, whose place is not recorded."""
    checkpoint: Path | None = None
    renamer: str | None = None
    device: str = "auto"


def recompute(path: Path, cache: Cache, n_rows: int, means: Means, *, seed: int = 0) -> Recomputed:
    """Embed some readable rows of a sealed set again and compare.

    Args:
        path: The set's directory.
        cache: Remembers the digests of image files.
        n_rows: Rows to draw, at random without replacement; all if there are fewer.
        means: Dataset, checkpoint and device.
        seed: Seed of the draw.

    Raises:
        OptionError: If the images or weights at hand are not those of the set's key.
    """
    from featcache.extraction.embedding import Embedder, resolve_device
    from featcache.extraction.loader import load_images

    if n_rows < 1:
        raise OptionError(f"`--recompute` must be at least 1 row; got {n_rows}. Raise it.")
    one = FeatureSet(path)
    _refuse_derived(one)
    split, backbone = _split(one, means, cache), _backbone(one, means)
    valid = np.flatnonzero(one.valid)
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(valid, min(n_rows, len(valid)), replace=False))
    embedder = Embedder(backbone, [one.spec.tap], resolve_device(means.device))
    parts = []
    ranges = [(int(row), int(row) + 1) for row in rows]
    for images in load_images(
        split.images, backbone.transform, ranges, workers=0, pin_memory=False
    ):
        if images.unreadable:
            raise OptionError(
                f"Row {images.start} of {path} must be readable, as it was; now: "
                f"{images.unreadable[images.start]}. Restore the image."
            )
        parts.append(embedder.embed(images, one.spec.numerics.stored)[one.spec.tap])
    found = compare_rows(np.concatenate(parts), one.features(rows))
    return Recomputed(
        rows=found.rows,
        worst_row=int(rows[found.worst]),
        distance=found.distance,
        largest_difference=found.largest,
        cosine=found.cosine,
        tolerance=TOLERANCE[one.spec.numerics.compute],
    )


def repair(path: Path, cache: Cache, means: Means) -> int | None:
    """Extract what is damaged of a set again, and seal it.

    Returns the number of rows that were embedded, which is 0 where only labels, ids or metadata
    were damaged; None if the set is sound.

    Shards that are as they were sealed are kept. A set whose manifest or ledger is damaged is
    extracted as a whole, as nothing vouches for its parts.

    Raises:
        OptionError: If the images or weights at hand are not those of the set's key.
        StoreError: If another process works on it, or if the disk refuses.
        CorruptError: If the manifest does not even tell which set it was.
    """
    embedded = None
    for _ in range(_ROUNDS):
        problems = verify(path)
        if not problems:
            return embedded
        damaged = {problem.path for problem in problems}
        embedded = (embedded or 0) + _mend(_named(path, cache), damaged, cache, means)
    raise CorruptError(
        f"{path} must be sound after its repair; it is not: {problems[0]}. Check the disk."
    )


_ROUNDS = 3
"""A damaged layout hides damaged shards, so a second look is needed; a third finds a bad disk."""


def _mend(one: FeatureSet, damaged: set[str], cache: Cache, means: Means) -> int:
    from featcache.extraction.options import Options
    from featcache.extraction.progress import Silent
    from featcache.extraction.run import Extraction

    path, spec = one.path, one.spec
    _refuse_derived(one)
    if owner := living_owner(path.with_suffix(".work")):
        raise StoreError(f"A set must be idle to be repaired; {owner} has it. Wait for it.")
    split, backbone = _split(one, means, cache), _backbone(one, means)
    layout = choose_layout(one.rows, tuple(backbone.taps[spec.tap]), spec.numerics.stored)
    with disk_errors(path, "repair"):
        SetWriter.reopen(path, spec, layout, _sound_shards(one, layout, damaged), damaged)
    options = Options(device=means.device, batch_size=one.provenance["batch_size"])
    run = Extraction(cache, split, backbone, [spec], options, Silent())
    extra = {name: value for name, value in one.provenance.items() if name not in _OWN}
    run.run({**extra, "repaired_from": one.digest})
    return run.computed


def _refuse_derived(one: FeatureSet) -> None:
    if "tokenizer" in one.spec.transform:
        raise OptionError(
            f"Only images can be embedded again; {one.path} holds vectors of texts. Delete it, and "
            "run what made it again: `featcache head text` for prompts."
        )
    if one.spec.derived is not None:
        raise OptionError(
            f"Only what a network gave can be embedded again; {one.path} is derived by "
            f"'{one.spec.derived['recipe']}'. Delete it, and derive it from its sources again."
        )


def _named(path: Path, cache: Cache) -> FeatureSet:
    try:
        one = FeatureSet(path)
        if cache.path_of(one.spec) != path:
            raise CorruptError(f"it belongs at {cache.path_of(one.spec)}")
    except FeatcacheError as error:
        raise CorruptError(
            f"{path} must tell which set it is; its manifest is damaged: {error} Delete the "
            "directory and run the same `featcache extract` again."
        ) from error
    return one


_OWN = ("environment", "batch_size", "workers", "extraction_seconds", "shards", "dataset")
"""What an extraction writes into the provenance by itself."""


def _sound_shards(one: FeatureSet, layout: Layout, damaged: set[str]) -> list[dict[str, Json]]:
    """Return the records of the shards that are as they were sealed.

    None is if the manifest or the ledger is not: nothing vouches for them.
    """
    if damaged & {GROUP_FILE, "status/zarr.json", "status/c/0"}:
        return []
    listed = {file["path"]: file for file in one.sealed["files"]}
    times = {tuple(item["rows"]): item for item in one.provenance["shards"]}
    ledger = read_ledger(one.path, one.rows)
    records = []
    for shard in range(layout.n_shards):
        name = f"features/{layout.shard_path(shard)}"
        start, stop = layout.bounds(shard)
        if name in damaged:
            continue
        records.append(
            {
                "shard": shard,
                "rows": [start, stop],
                "bytes": layout.shard_bytes(shard),
                "blake3": listed[name]["blake3"],
                "chunks": listed[name]["chunks"],
                "unreadable": {str(row): why for row, why in ledger.items() if start <= row < stop},
                "seconds": times[start, stop]["seconds"],
                "batch_size": one.provenance["batch_size"],
                "environment": times[start, stop]["environment"],
            }
        )
    return records


def _split(one: FeatureSet, means: Means, cache: Cache) -> Split:
    from featcache.datasets.catalog import open_dataset
    from featcache.datasets.memo import FileDigestMemo

    source = means.dataset or one.provenance.get("dataset_source")
    if source is None:
        raise OptionError(
            f"The images of {one.spec.dataset.name!r} are needed; where they lie is not recorded. "
            "Give them as they were given to extract: --dataset imagefolder:DIR"
        )
    split = open_dataset(source).load(one.spec.dataset.split)
    with FileDigestMemo(cache.root / DIGESTS) as memo:
        found = split.identity(memo)
    if found != one.spec.dataset:
        raise OptionError(
            f"The images must be those of the set's key, {one.rows} rows with fingerprint "
            f"{one.spec.dataset.fingerprint[:12]}; {source} has {found.rows} rows with "
            f"{found.fingerprint[:12]}. Give the same version with --dataset."
        )
    return split


def _backbone(one: FeatureSet, means: Means) -> Backbone:
    from featcache.backbones.factory import load_backbone

    spec = one.spec
    given: dict[str, Any] = {
        "checkpoint": means.checkpoint,
        "renamer": means.renamer,
        "compute": spec.numerics.compute,
    }
    backbone = load_backbone(spec.backbone.name, **given)
    native = backbone.transform.spec
    changed: dict[str, Json] = {
        name: value for name, value in spec.transform.items() if native.get(name) != value
    }
    if changed:
        backbone = load_backbone(spec.backbone.name, transform_overrides=changed, **given)
    again = replace(spec, backbone=backbone.identity, transform=backbone.transform.spec)
    if again.key != spec.key:
        differ = ", ".join(name for name, _, _ in explain(spec.to_json(), again.to_json()))
        raise OptionError(
            f"The backbone must be the one of the set's key; {spec.backbone.name!r} now differs in "
            f"{differ}. Give the same weights with --checkpoint, or install the versions that "
            "`featcache cache info` shows."
        )
    return backbone
