"""Write sets as a Hugging Face dataset: Parquet files and a card that says what they are."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featcache.digest import Json, sha256_json
from featcache.errors import OptionError
from featcache.spec import without_dataset
from featcache.store.cache import slug
from featcache.store.feature_set import FeatureSet
from featcache.store.files import disk_errors

if TYPE_CHECKING:
    import pyarrow as pa

FILE_BYTES = 256 << 20
"""Features in one Parquet file, 256 MiB."""
_UNSAFE_SPLIT = re.compile(r"\W+")
_HUB_LICENCES = {
    *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "gpl-3.0", "lgpl-3.0", "odbl"),
    *("cc0-1.0", "cc-by-2.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nd-4.0"),
    *("cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0"),
}
"""Those of the Hub's own names that datasets of images have; others are `other` there."""
_LICENCES = ("dataset licence", "backbone licence")
_COLUMNS = ("configuration", "split", "rows", "shape", "key", "content", *_LICENCES)


def write_dataset(
    sets: Sequence[FeatureSet],
    folder: Path,
    *,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Path]:
    """Write one configuration per dataset, backbone and tap, with a file or more per split.

    Columns: `id`, `label` (if the set has any) and `features`, a list of float16 or float32 per
    image; rows that could not be read are left out. `datasets.load_dataset(folder, config)` reads
    it.

    Args:
        sets: Sealed sets.
        folder: Where to; must not exist or be empty.
        advance: Told the bytes of each set that is written.

    Returns:
        The files.

    Raises:
        OptionError: If two versions of one dataset would share a configuration.
        StoreError: If they cannot be written.
        CorruptError: If a set is damaged.
    """
    named = _configurations(sets)
    written = []
    with disk_errors(folder, "write"):
        for name, members in named.items():
            target = folder / "data" / name
            target.mkdir(parents=True, exist_ok=True)
            for one in members:
                written += _write_parquet(one, target)
                advance(sum(int(file["bytes"]) for file in one.sealed["files"]))
        card = folder / "README.md"
        card.write_text(_card(named), encoding="utf-8")
    return [*written, card]


def _configurations(sets: Sequence[FeatureSet]) -> dict[str, list[FeatureSet]]:
    """Group sets by configuration; one of its own for each setup where several share a name."""
    setups: dict[str, set[str]] = {}
    for one in sets:
        setups.setdefault(_name(one), set()).add(_setup(one))
    named: dict[str, list[FeatureSet]] = {}
    for one in sets:
        suffix = f"-{_setup(one)}" if len(setups[_name(one)]) > 1 else ""
        named.setdefault(_name(one) + suffix, []).append(one)
    for name, members in named.items():
        splits = [_split(one) for one in members]
        if len(set(splits)) < len(splits):
            keys = ", ".join(one.key[:12] for one in members)
            raise OptionError(
                f"A configuration must have one set per split; {name} has several, of keys {keys}. "
                "Export one version of the dataset at a time."
            )
    return named


def _name(one: FeatureSet) -> str:
    return slug(f"{one.spec.dataset.name}.{one.spec.backbone.name}.{one.spec.view}")


def _setup(one: FeatureSet) -> str:
    return sha256_json(without_dataset(one.spec))[:8]


def _split(one: FeatureSet) -> str:
    return _UNSAFE_SPLIT.sub("_", one.spec.dataset.split)


def _write_parquet(one: FeatureSet, folder: Path) -> list[Path]:
    import pyarrow.parquet as pq

    rows = np.flatnonzero(one.valid)
    row_bytes = 4 * math.prod(one.row_shape)
    size = max(1, FILE_BYTES // row_bytes)
    parts = [rows[start : start + size] for start in range(0, len(rows), size)]
    written = []
    for number, part in enumerate(parts):
        path = folder / f"{_split(one)}-{number:05d}-of-{len(parts):05d}.parquet"
        pq.write_table(_table(one, part), path, compression="zstd")
        written.append(path)
    return written


def _table(one: FeatureSet, rows: np.ndarray[Any, Any]) -> pa.Table:
    import pyarrow as pa

    features = one.features(rows).reshape(len(rows), -1)
    flat = pa.array(features.reshape(-1))
    columns = {"id": pa.array(one.ids[rows].tolist(), pa.string())}
    if one.class_names:
        columns["label"] = pa.array(one.labels[rows])
    columns["features"] = pa.FixedSizeListArray.from_arrays(flat, features.shape[1])
    return pa.table(columns)


def _card(named: Mapping[str, Sequence[FeatureSet]]) -> str:
    import yaml

    head = yaml.safe_dump(_metadata(named), sort_keys=False, allow_unicode=True)
    rows = "\n".join(_row(name, one) for name, members in named.items() for one in members)
    first = next(iter(named))
    return (
        f"---\n{head}---\n\n# Image features\n\n"
        "Features of images, extracted and checked by featcache; the images are not here.\n\n"
        "```python\nfrom datasets import load_dataset\n\n"
        f'features = load_dataset("PATH OR ORG/NAME", "{first}")\n```\n\n'
        f"| {' | '.join(_COLUMNS)} |\n|{'---|' * len(_COLUMNS)}\n{rows}\n\n"
        f"## Cite\n\n{_citations([one for members in named.values() for one in members])}\n"
    )


def _row(name: str, one: FeatureSet) -> str:
    shape = " x ".join(map(str, one.row_shape))
    licences = [_fact(one, kind, "licence") or "not stated" for kind in ("dataset", "backbone")]
    cells = [name, _split(one), str(int(one.valid.sum())), shape]
    cells += [f"`{one.key[:20]}`", f"`{one.digest[:20]}`", *licences]
    return f"| {' | '.join(cell.replace('|', ' ') for cell in cells)} |"


def _citations(sets: Sequence[FeatureSet]) -> str:
    lines: dict[str, None] = {}
    for one in sets:
        for kind, name in (
            ("dataset", one.spec.dataset.name),
            ("backbone", one.spec.backbone.name),
        ):
            cited = _fact(one, kind, "citation") or "no citation is recorded"
            lines[f"- {name}: {cited}"] = None
    return "\n".join(lines)


def _fact(one: FeatureSet, kind: str, name: str) -> str:
    facts = one.provenance.get(kind)
    return str(facts.get(name) or "") if isinstance(facts, dict) else ""


def _metadata(named: Mapping[str, Sequence[FeatureSet]]) -> dict[str, Json]:
    everything = [one for members in named.values() for one in members]
    licences = {_fact(one, "dataset", "licence").lower() for one in everything}
    licence = licences.pop() if len(licences) == 1 else ""
    return {
        "license": licence if licence in _HUB_LICENCES else "other",
        "tags": ["featcache", "image-features"],
        "configs": [
            {
                "config_name": name,
                "data_files": [
                    {"split": _split(one), "path": f"data/{name}/{_split(one)}-*.parquet"}
                    for one in members
                ],
            }
            for name, members in named.items()
        ],
        "dataset_info": [
            {"config_name": name, "features": _features(members[0])}
            for name, members in named.items()
        ],
    }


def _features(one: FeatureSet) -> list[Json]:
    columns: list[Json] = [{"name": "id", "dtype": "string"}]
    if one.class_names:
        names = {str(number): name for number, name in enumerate(one.class_names)}
        columns.append({"name": "label", "dtype": {"class_label": {"names": names}}})
    stored = str(np.dtype(one.layout.dtype if one.decoder is None else "float32"))
    columns.append({"name": "features", "list": stored, "length": math.prod(one.row_shape)})
    return columns
