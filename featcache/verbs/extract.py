"""Embed splits of a dataset once: names what is asked for, and computes only what is missing."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from featcache.digest import Json, sha256_json
from featcache.errors import CorruptError, OptionError, ProtocolError
from featcache.extraction.options import Extracted, Options
from featcache.spec import (
    FORMAT,
    BackboneIdentity,
    ComputeDtype,
    DatasetIdentity,
    ExtractionSpec,
    Numerics,
    StoredDtype,
)
from featcache.store.cache import Cache
from featcache.store.feature_set import FeatureSet, is_sealed
from featcache.store.files import disk_errors, json_bytes, read_json, write_replacing
from featcache.verbs.networks import NetworkRequest, Networks
from featcache.verbs.share import Sources

if TYPE_CHECKING:
    from featcache.backbone import Backbone
    from featcache.datasets.dataset import DigestMemo, Split
    from featcache.extraction.progress import Progress
    from featcache.probes.protocol import Protocol

FILE_SCHEMES = ("imagefolder", "csv", "wds")
"""Sources whose name in the cache says nothing of where they lie."""

DIGESTS = "digests.jsonl"
"""File in a cache that remembers the content digests of image files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneRequest:
    """Which backbone to load, and how."""

    name: str
    checkpoint: Path | None = None
    renamer: str | None = None
    protocol: str | None = None
    """Protocol whose required transform, tap and precision apply."""
    precision: ComputeDtype = "fp32"
    stored: StoredDtype = "float16"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Resolved:
    """What of a backbone goes into a spec; remembered, so that a cached set needs no network."""

    identity: BackboneIdentity
    transform: Mapping[str, Json]
    taps: tuple[str, ...]
    default_tap: str


def extract(
    *,
    backbone: str | BackboneRequest,
    dataset: str,
    splits: Sequence[str] = (),
    taps: Sequence[str] = (),
    cache: Path | str | None = None,
    options: Options | None = None,
    progress: Progress | None = None,
    remotes: Sequence[str] | None = (),
    networks: Networks | None = None,
) -> list[Extracted]:
    """Embed splits of a dataset once; sets that are sealed already return at once.

    What is neither here nor half done here is fetched from a remote that has it.

    Args:
        backbone: A name, or a request with checkpoint, protocol and precision.
        dataset: `imagefolder:DIR`, `csv:FILE`, `hf:…`, `torchvision:…` or an embedded name.
        splits: Splits to embed; all of the dataset's if empty.
        taps: Taps, all embedded in one pass; the protocol's or the backbone's default if empty.
        cache: Root of the cache.
        options: Device, batch size and workers.
        progress: Receives events.
        remotes: Where to look before computing; None: those of the configuration.
        networks: Has the network of an extraction before, and keeps this one for the next; None:
            it is let go.

    Returns:
        One record per split and tap.

    Raises:
        FeatcacheError: With what must hold, what was got and what to do.
    """
    from featcache.datasets.catalog import open_dataset
    from featcache.datasets.memo import FileDigestMemo
    from featcache.datasets.source import check_split
    from featcache.extraction.progress import Silent

    request = BackboneRequest(name=backbone) if isinstance(backbone, str) else backbone
    store = Cache(cache)
    source = open_dataset(dataset)
    progress = progress or Silent()
    sources = Sources(remotes, note=progress.note)
    options, networks = options or Options(), networks or Networks()
    job = _Job(store, request, tuple(taps), options, progress, sources, dataset, networks)
    for name in splits:
        check_split(source, name)
    job.check()
    done: list[Extracted] = []
    with FileDigestMemo(store.root / DIGESTS) as memo:
        for name in splits or source.splits:
            split = source.load(name)
            identity = split.identity(memo)
            memo.save()
            done += job.extract(split, identity, memo)
    return done


_ANY = DatasetIdentity(name="any", split="any", rows=1, fingerprint="", label_set="")
"""Stands for the dataset where only the recipe counts."""


class _Job:
    """Extracts splits with one backbone, which is loaded only when a set is missing."""

    def __init__(
        self,
        cache: Cache,
        request: BackboneRequest,
        taps: tuple[str, ...],
        options: Options,
        progress: Progress,
        sources: Sources,
        dataset: str,
        networks: Networks,
    ) -> None:
        self._cache, self._request, self._taps = cache, request, taps
        self._sources = sources
        self._source = "" if _is_private(dataset) else dataset
        self._options, self._progress = options, progress
        self._protocol = _protocol(request.protocol)
        self._networks = networks
        self._network = NetworkRequest(
            name=request.name,
            checkpoint=request.checkpoint,
            renamer=request.renamer,
            transform_overrides=dict(self._protocol.requires.transform) if self._protocol else {},
            compute=request.precision,
        )
        self._loaded: Backbone | None = None

    def check(self) -> None:
        """Find out what is wrong with the backbone, taps and precision before images are read."""
        resolved = self._resolve()
        for tap in self._chosen_taps(resolved):
            self._refuse_misfit(self._spec(_ANY, resolved, tap))

    def _spec(self, dataset: DatasetIdentity, resolved: _Resolved, tap: str) -> ExtractionSpec:
        return ExtractionSpec(
            dataset=dataset,
            backbone=resolved.identity,
            transform=resolved.transform,
            tap=tap,
            numerics=Numerics(compute=self._request.precision, stored=self._request.stored),
        )

    def extract(self, split: Split, identity: DatasetIdentity, memo: DigestMemo) -> list[Extracted]:
        """Embed one split at the taps that are not sealed yet."""
        resolved = self._resolve()
        specs = [self._spec(identity, resolved, tap) for tap in self._chosen_taps(resolved)]
        missing = [spec for spec in specs if not (self._has(spec) or self._fetched(spec))]
        computed, began = 0, time.perf_counter()
        if missing:
            from featcache.extraction.run import Extraction

            self._refuse_size(missing)

            run = Extraction(
                self._cache, split, self._backbone(), missing, self._options, self._progress
            )
            run.run(
                self._provenance(resolved), is_unchanged=lambda: split.identity(memo) == identity
            )
            computed = run.computed
        seconds = time.perf_counter() - began
        return [self._record(spec, computed if spec in missing else 0, seconds) for spec in specs]

    def _record(self, spec: ExtractionSpec, computed: int, seconds: float) -> Extracted:
        one = FeatureSet(self._cache.path_of(spec))
        return Extracted(
            path=one.path,
            spec=spec,
            digest=one.digest,
            rows=one.rows,
            unreadable=one.rows - one.sealed["readable"],
            computed=computed,
            seconds=seconds if computed else 0.0,
        )

    def _has(self, spec: ExtractionSpec) -> bool:
        return is_sealed(self._cache.path_of(spec))

    def _fetched(self, spec: ExtractionSpec) -> bool:
        """Fetch a set that nobody has begun here; one that is begun is finished here."""
        is_begun = self._cache.path_of(spec).with_suffix(".work").exists()
        return not is_begun and self._sources.fetch(spec, self._cache)

    def _refuse_size(self, missing: Sequence[ExtractionSpec]) -> None:
        """Refuse to fill a disk unasked; what is begun already was asked for."""
        most = self._options.max_bytes
        shapes = self._backbone().taps
        sizes = {
            spec.tap: spec.dataset.rows
            * math.prod(shapes[spec.tap])
            * np.dtype(spec.numerics.stored).itemsize
            for spec in missing
            if not self._cache.path_of(spec).with_suffix(".work").exists()
        }
        if most is None or sum(sizes.values()) <= most:
            return
        data = missing[0].dataset
        parts = ", ".join(f"{tap} {size / 1e9:.3g} GB" for tap, size in sizes.items())
        root = next(path for path in (self._cache.root, *self._cache.root.parents) if path.exists())
        smallest = min(shapes, key=lambda tap: math.prod(shapes[tap]))
        raise OptionError(
            f"Features of one split must take at most {most / 1e9:.3g} GB unless that is meant; "
            f"{data.name}/{data.split} would take {parts}, and {root} has "
            f"{shutil.disk_usage(root).free / 1e9:.3g} GB left. Add --yes, choose another tap "
            f"({smallest} has the fewest values), or take a part: DATASET?rows=N."
        )

    def _refuse_misfit(self, spec: ExtractionSpec) -> None:
        """Refuse options that contradict the protocol they are given with."""
        from featcache.probes.protocol import check

        if self._protocol and (objections := check(self._protocol, spec)):
            raise ProtocolError(
                f"Features for protocol {self._protocol.name} must be what it requires: "
                f"{' '.join(objections)} Leave the option out that contradicts it."
            )

    def _provenance(self, resolved: _Resolved) -> dict[str, Json]:
        from featcache.backbones.catalog import BACKBONES

        name = self._request.name
        return {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "default_tap": resolved.default_tap,
            "backbone": dict(BACKBONES.get(name).facts) if name in BACKBONES else {},
            **({"dataset_source": self._source} if self._source else {}),
        }

    def _backbone(self) -> Backbone:
        if self._loaded is None:
            self._loaded = self._networks.load(self._network)
        return self._loaded

    def _resolve(self) -> _Resolved:
        """Return what names the backbone: remembered if the same request was seen, else loaded."""
        from featcache.datasets.decode import DECODE_POLICY

        if self._loaded is None:
            identity = self._network.fingerprint()
            path = (
                self._cache.root
                / "requests"
                / f"{sha256_json([FORMAT, DECODE_POLICY, identity])}.json"
            )
            if identity is not None and (known := _recall(path)):
                return known
            resolved = _resolve(self._backbone())
            if identity is not None:
                self._remember(path, resolved)
            return resolved
        return _resolve(self._loaded)

    def _remember(self, path: Path, resolved: _Resolved) -> None:
        one = resolved.identity
        record = {
            "identity": {
                "name": one.name,
                "architecture": one.architecture,
                "weights": one.weights,
                "options": dict(one.options),
            },
            "transform": dict(resolved.transform),
            "taps": list(resolved.taps),
            "default_tap": resolved.default_tap,
        }
        self._cache.create()
        with disk_errors(path.parent, "remember a backbone in"):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_replacing(path, json_bytes(record))

    def _chosen_taps(self, resolved: _Resolved) -> tuple[str, ...]:
        taps = self._taps
        if not taps and self._protocol and self._protocol.requires.taps:
            taps = tuple(t for t in self._protocol.requires.taps if t in resolved.taps)[:1]
            if not taps:
                raise OptionError(
                    f"Protocol {self._protocol.name} requires one of the taps "
                    f"{', '.join(self._protocol.requires.taps)}; {resolved.identity.name!r} has "
                    f"{', '.join(resolved.taps)}. Choose another protocol or backbone."
                )
        taps = tuple(dict.fromkeys(taps)) or (resolved.default_tap,)
        if unknown := [tap for tap in taps if tap not in resolved.taps]:
            raise OptionError(
                f"A tap of {resolved.identity.name!r} must be one of {', '.join(resolved.taps)}; "
                f"got {', '.join(unknown)}."
            )
        return taps


def _recall(path: Path) -> _Resolved | None:
    """Return a remembered backbone; None if there is none, or if the file is damaged."""
    try:
        stored = read_json(path)
        return _Resolved(
            identity=BackboneIdentity(**stored["identity"]),
            transform=stored["transform"],
            taps=tuple(stored["taps"]),
            default_tap=stored["default_tap"],
        )
    except (FileNotFoundError, CorruptError, KeyError, TypeError):
        return None


def _is_private(dataset: str) -> bool:
    """Tell whether a dataset is given by a path; where files lie is nobody else's business."""
    scheme, _, rest = dataset.partition(":")
    return scheme in FILE_SCHEMES or (bool(rest) and Path(rest.partition("?")[0]).exists())


def _resolve(backbone: Backbone) -> _Resolved:
    return _Resolved(
        identity=backbone.identity,
        transform=backbone.transform.spec,
        taps=tuple(backbone.taps),
        default_tap=backbone.default_tap,
    )


def _protocol(name: str | None) -> Protocol | None:
    from featcache.probes.catalog import load_protocol

    return load_protocol(name) if name is not None else None
