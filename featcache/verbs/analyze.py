"""Describe and compare cached features: transferability scores, representations, likeness.

What comes out is analysis, never a leaderboard column: it is stored apart from results, and no
report reads it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featcache.digest import Json, sha256_json
from featcache.errors import OptionError, ShapeError
from featcache.head_store import HeadStore, StoredHead, read_head
from featcache.spec import KEY_DIGITS
from featcache.store.cache import Cache, slug
from featcache.store.feature_set import FeatureSet
from featcache.store.files import disk_errors, json_bytes, read_json, write_replacing
from featcache.store.table import Table
from featcache.verbs.inputs import identity, read_fingerprint
from featcache.verbs.selection import WHOLE, Role, select

if TYPE_CHECKING:
    from featcache.probes.analysis.options import AnalysisOptions

ANALYSIS_FORMAT = 1
"""Bumped when a measure or the meaning of a field changes."""

CAPTION = (
    "Analysis of cached features on a sample of rows, never a leaderboard column: small changes of "
    "set-up reorder transferability scores (arXiv:2204.01403). Beside them stand what they must "
    "beat: leave-one-out probes, and the mere size of the network."
)

_SAMPLE, _SCORES, _REPRESENTATION, _COMPARISON = range(4)
"""Each part draws from a generator of its own, so that none depends on what ran before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """One stored analysis."""

    path: Path
    record: Mapping[str, Any]

    @property
    def id(self) -> str:
        """The id of its question."""
        return str(self.record["id"])


def analyze(
    *,
    backbones: Sequence[str],
    dataset: str,
    split: str | None = None,
    tap: str | None = None,
    heads: Mapping[str, StoredHead] | None = None,
    sample: int | None = None,
    seed: int = 0,
    device: str = "auto",
    cache: Path | str | None = None,
) -> tuple[Analysis, bool]:
    """Score, describe and compare the cached features of a dataset; no image is opened.

    Args:
        backbones: Names under which features are cached; one or more, each once.
        dataset: Dataset as given to `extract`, or its name.
        split: Split to look at. If None the first of train, all, val, test that all backbones
            have, since scores that choose a backbone must not see test labels.
        tap: Tap to read, if several are cached.
        heads: Backbone to its own classifier, for LEEP, NCE and energy; None: those that the
            cache has (`featcache head native`). They are skipped for
            others.
        sample: Rows looked at; the options' default if None.
        seed: Of the sample, and of everything random.
        device: 'auto', 'cpu' or 'cuda', of the cheap probes and the neighbour search.
        cache: Root of the cache.

    Returns:
        The analysis, and whether it was stored already.

    Raises:
        StoreError: If a feature set is missing; the message gives the `extract` command.
        OptionError: If several sets fit, or if a head is of other features.
        ShapeError: If sets share no row, or hold no vectors of finite values.
    """
    from featcache.probes.analysis.options import AnalysisOptions

    names = list(backbones)
    if not names or len(set(names)) < len(names):
        raise OptionError(f"`backbones` must be one or more, each once; got {names!r}. Drop some.")
    options = AnalysisOptions() if sample is None else AnalysisOptions(sample=sample)
    store = Cache(cache)
    sets = _find(store, names, dataset, split, tap)
    heads = _native_heads(store, sets) if heads is None else heads
    _check_heads(heads, sets)
    question = _question(sets, heads, options, seed)
    path = _path_of(store, question)
    if path.exists():
        return Analysis(path=path, record=read_json(path)), True
    from featcache.extraction.embedding import resolve_device
    from featcache.extraction.provenance import environment

    on, began = resolve_device(device), time.perf_counter()
    answer = _answer(sets, heads, options, seed, on)
    how = {
        "created": datetime.now(UTC).isoformat(timespec="microseconds"),
        "seconds": round(time.perf_counter() - began, 4),
        "environment": environment(on),
    }
    record = {"id": _id(question), **question, "caption": CAPTION, **answer, "how": how}
    with disk_errors(path.parent, "write an analysis to"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_replacing(path, json_bytes(record))
    return Analysis(path=path, record=record), False


def _find(
    cache: Cache, names: Sequence[str], source: str, split: str | None, tap: str | None
) -> dict[str, FeatureSet]:
    """Return the one set of each backbone."""
    from featcache.datasets.catalog import dataset_name

    name = dataset_name(source)
    available = [cache.splits(name, backbone) for backbone in names]
    shared = set.intersection(*available)
    if split is None:
        order = ("train", WHOLE, "val", "test")
        split = next((one for one in order if one in shared), min(shared, default="train"))
    role = Role(name="analysis", dataset=name, source=source, split=split)
    fingerprint = read_fingerprint(cache, role)
    found = {}
    for backbone in names:
        chosen = select(
            cache,
            [role],
            backbone=backbone,
            tap=tap,
            key=None,
            check=lambda _: [],
            protocol="",
            identify=lambda _: fingerprint,
        )
        found[backbone] = chosen[role.name].open()
    return found


def _native_heads(cache: Cache, sets: Mapping[str, FeatureSet]) -> dict[str, StoredHead]:
    """Return the networks' own classifiers of these features, as far as the cache has them."""
    found = {}
    for name, one in sets.items():
        wanted = (one.spec.backbone.weights, one.spec.tap)
        for entry in HeadStore(cache.root).entries(kind="native"):
            if (entry.backbone.weights, entry.tap) == wanted:
                found[name] = read_head(entry.path)
    return found


def _check_heads(heads: Mapping[str, StoredHead], sets: Mapping[str, FeatureSet]) -> None:
    for name, head in heads.items():
        if name not in sets:
            raise OptionError(
                f"`heads` must be of the backbones asked for, {', '.join(sets)}; got {name!r}. "
                "Leave it out."
            )
        spec = sets[name].spec
        wanted = (spec.backbone.weights, spec.tap)
        if (got := (head.backbone.weights, head.tap)) != wanted:
            raise OptionError(
                f"The head of {name!r} must read tap {wanted[1]!r} of weights {wanted[0][:12]!r}; "
                f"it reads {got[1]!r} of {got[0][:12]!r}. Use the head of these features."
            )


def _question(
    sets: Mapping[str, FeatureSet],
    heads: Mapping[str, StoredHead],
    options: AnalysisOptions,
    seed: int,
) -> dict[str, Json]:
    data = next(iter(sets.values())).spec.dataset
    return {
        "format": ANALYSIS_FORMAT,
        "dataset": data.name,
        "split": data.split,
        "inputs": {name: identity(one) for name, one in sets.items()},
        "heads": {name: _head_digest(head) for name, head in heads.items()},
        "options": dataclasses.asdict(options),
        "seed": seed,
    }


def _head_digest(head: StoredHead) -> str:
    digest = hashlib.sha256()
    for part in (head.weights, head.bias, np.array([head.is_unit_norm, head.scale])):
        digest.update(np.ascontiguousarray(part, dtype=np.float64).tobytes())
    return digest.hexdigest()


def _id(question: Mapping[str, Json]) -> str:
    return sha256_json(question)[:KEY_DIGITS]


def _path_of(cache: Cache, question: Mapping[str, Json]) -> Path:
    folder = cache.root / "analysis" / slug(question["dataset"])
    return folder / f"{slug(question['split'])}-{_id(question)}.json"


def _answer(
    sets: Mapping[str, FeatureSet],
    heads: Mapping[str, StoredHead],
    options: AnalysisOptions,
    seed: int,
    device: str,
) -> dict[str, Json]:
    from featcache.probes.analysis.comparison import compare

    tables, rows = _tables(sets, options.sample, seed)
    described = {
        name: _describe(name, sets[name], table, heads.get(name), options, seed, device)
        for name, table in tables.items()
    }
    pairs: Json = None
    if len(tables) > 1:
        features = {name: table.features for name, table in tables.items()}
        rng = np.random.default_rng((seed, _COMPARISON))
        pairs = compare(features, options, rng, device=device).to_json()
    return {"rows": rows, "backbones": described, "pairs": pairs}


def _tables(
    sets: Mapping[str, FeatureSet], sample: int, seed: int
) -> tuple[dict[str, Table], dict[str, Json]]:
    """Read the sampled rows of each set, in the order of their ids; only these are read."""
    from featcache.probes.analysis.sampling import common_rows

    valid = {name: np.flatnonzero(one.valid) for name, one in sets.items()}
    ids = [one.ids[valid[name]] for name, one in sets.items()]
    common = common_rows(ids, sample, np.random.default_rng((seed, _SAMPLE)))
    tables = {}
    for (name, one), places in zip(sets.items(), common.rows, strict=True):
        if len(one.row_shape) != 1:
            raise ShapeError(
                f"An analysis takes one vector per image; tap {one.spec.tap!r} of {name!r} gives "
                f"{one.row_shape}. Extract a pooled tap."
            )
        rows = valid[name][places]
        table = Table(
            features=one.features(rows),
            labels=one.labels[rows],
            ids=common.ids,
            class_names=one.class_names,
        )
        _check_finite(name, table)
        tables[name] = table
    counts = {
        "sampled": len(common.ids),
        "common": common.n_common,
        "missing_elsewhere": dict(zip(sets, common.n_missing, strict=True)),
        "labelled": {name: int((table.labels >= 0).sum()) for name, table in tables.items()},
    }
    return tables, counts


def _check_finite(name: str, table: Table) -> None:
    finite = np.isfinite(table.features).all(axis=1)
    if not finite.all():
        raise ShapeError(
            f"Features must be finite; {int((~finite).sum())} rows of {name!r} are not, the first "
            f"is image {str(table.ids[int(finite.argmin())])!r}. Look at that image, or extract "
            "again with --stored float32."
        )


def _describe(
    name: str,
    one: FeatureSet,
    table: Table,
    head: StoredHead | None,
    options: AnalysisOptions,
    seed: int,
    device: str,
) -> dict[str, Json]:
    """Return what is said of one backbone."""
    from featcache.probes.analysis.decomposition import Decomposed
    from featcache.probes.analysis.representation import representation
    from featcache.probes.analysis.transferability import transferability

    decomposed = Decomposed.of(table.features)
    scores = transferability(
        decomposed,
        table.labels,
        options,
        np.random.default_rng((seed, _SCORES)),
        head=head,
        device=device,
    )
    rng = np.random.default_rng((seed, _REPRESENTATION))
    return {
        "tap": one.spec.tap,
        "dimensions": table.features.shape[1],
        "params_m": _parameters(name, one),
        "transferability": scores.to_json(),
        "representation": representation(decomposed, table.labels, options, rng).to_json(),
    }


def _parameters(name: str, one: FeatureSet) -> float | None:
    """Return the network's parameters in millions, if the registry knows them."""
    from featcache.backbones.catalog import BACKBONES

    facts = one.provenance.get("backbone") or (
        BACKBONES.get(name).facts if name in BACKBONES else {}
    )
    size = facts.get("params_m")
    return None if size is None else float(size)
