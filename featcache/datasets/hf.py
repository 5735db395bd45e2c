"""`hf:REPO[@REVISION][#CONFIG]` or `hf:PATH`: through Hugging Face `datasets`.

REPO is on the Hub. PATH is a local Parquet file or a folder of them; it starts with `/`, `.`,
`~` or a drive letter, or ends in `.parquet`. Images are taken as encoded bytes and decoded by our
own policy.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from featcache.datasets.dataset import Dataset, Split
from featcache.datasets.hf_columns import HfImages, check_alike, ids_of, image_column, labels_of
from featcache.datasets.source import (
    SPLIT_ALIASES,
    LoadedDataset,
    Source,
    class_facts,
    order_splits,
    path_name,
    safe_name,
)
from featcache.digest import Json
from featcache.errors import DatasetError, FeatcacheError, MissingDependencyError

_LOCAL = re.compile(r"[/\\~.]|[A-Za-z]:[\\/]|.*\.parquet$", re.IGNORECASE)
_REMOTE = re.compile(r"(?P<repo>[\w.-]+(/[\w.-]+)?)(@(?P<revision>[^#]+))?(#(?P<config>.+))?")
_COMMIT = re.compile(r"@([0-9a-f]{40})/")
_SHORT_COMMIT = 12

T = TypeVar("T")


def open_hf(rest: str) -> Dataset:
    """Open a dataset of the Hub, or local Parquet files.

    Args:
        rest: `REPO[@REVISION][#CONFIG]`, or a path.

    Raises:
        MissingDependencyError: If `datasets` is not installed.
        DatasetError: If it cannot be found or read, or has no image column.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingDependencyError(f"The dataset 'hf:{rest}'", "hf") from error
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    if _LOCAL.match(rest):
        files = _parquet_files(Path(rest).expanduser())
        # `all` means the union of all splits to `datasets`, so one unnamed split is its `train`
        named = {("train" if name == "all" else name): files[name] for name in files}
        builder = _attempt(rest, lambda: datasets.load_dataset_builder("parquet", data_files=named))
        tables = _tables(rest, builder)
        return _dataset(
            rest, {name: tables[key] for name, key in zip(files, named, strict=True)}, files, {}
        )
    repo, revision, config = _parse(rest)
    builder = _attempt(rest, lambda: datasets.load_dataset_builder(repo, config, revision=revision))
    tables = _tables(rest, builder)
    urls = [url for files in (builder.config.data_files or {}).values() for url in files]
    commits = {found[1] for url in urls if (found := _COMMIT.search(url))}
    facts: dict[str, Json] = {
        "repository": repo,
        "config": builder.config.name,
        "revision": commits.pop() if len(commits) == 1 else None,
        "licence": builder.info.license or None,
        "citation": builder.info.citation or None,
    }
    renamed = {SPLIT_ALIASES.get(name.lower(), name): table for name, table in tables.items()}
    if len(renamed) < len(tables):
        renamed = tables
    return _dataset(rest, renamed, {}, facts)


def hf_name(rest: str) -> str:
    """Return the dataset's name: repository, configuration and revision, or the path's last part.

    Raises:
        DatasetError: If `rest` is neither a path nor a repository.
    """
    if _LOCAL.match(rest):
        return path_name(rest, is_file=rest.lower().endswith(".parquet"))
    repo, revision, config = _parse(rest)
    if revision and re.fullmatch("[0-9a-f]{40}", revision):
        revision = revision[:_SHORT_COMMIT]
    return safe_name("-".join(part for part in (repo, config, revision) if part))


def _dataset(
    rest: str, tables: dict[str, Any], files: dict[str, list[str]], facts: dict[str, Json]
) -> Dataset:
    check_alike(tables)
    labels, classes, label_column = labels_of(tables)
    dataset = hf_name(rest)
    revision = facts.get("revision")

    def load(split: str) -> Split:
        images, column = image_column(tables[split])
        origin = f"{facts['repository']}@{revision}#{facts['config']}/{split}" if revision else ""
        columns = {"image_column": column, "label_column": label_column or None}
        return Split(
            dataset=dataset,
            name=split,
            ids=ids_of(tables[split]),
            labels=labels[split],
            class_names=classes,
            images=HfImages(images, column, tuple(files.get(split, ())), origin),
            facts={**facts, **columns, **class_facts(len(classes))},
        )

    for table in tables.values():
        image_column(table)  # a missing column is reported on opening
    return LoadedDataset(dataset, order_splits(set(tables)), load)


def _parse(rest: str) -> tuple[str, str | None, str | None]:
    found = _REMOTE.fullmatch(rest)
    if found is None:
        raise DatasetError(
            f"`hf:` must be followed by REPO[@REVISION][#CONFIG] or a path; got {rest!r}. "
            "Write for example hf:ylecun/mnist."
        )
    return found["repo"], found["revision"], found["config"]


def _tables(rest: str, builder: Any) -> dict[str, Any]:  # noqa: ANN401
    def prepare() -> dict[str, Any]:
        builder.download_and_prepare()
        return dict(builder.as_dataset())

    return _attempt(rest, prepare)


def _attempt(rest: str, action: Callable[[], T]) -> T:
    try:
        return action()
    except FeatcacheError:
        raise
    except Exception as error:  # `datasets` raises anything: network, schema, missing repository
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise DatasetError(
            f"`datasets` must be able to open hf:{rest}; {reason}. Check the name, the network "
            "and, for a gated repository, `hf auth login`."
        ) from error


def _parquet_files(path: Path) -> dict[str, list[str]]:
    """Return our split names and the files of each, sorted.

    A file belongs to the split that its name begins with (`train-00000-of-00002.parquet`) or
    that its folder is called; all files to `all` if none says a split.
    """
    files = [path] if path.is_file() else sorted(path.rglob("*.parquet"))
    if not files:
        got = "holds none" if path.is_dir() else "does not exist"
        raise DatasetError(
            f"`hf:PATH` must name a Parquet file or a folder of them; {str(path)!r} {got}. "
            "Check the path."
        )
    splits: dict[str, list[str]] = {}
    for file in files:
        words = (re.split(r"[-_.]", file.name)[0], file.parent.name if file != path else "")
        known = [SPLIT_ALIASES[word.lower()] for word in words if word.lower() in SPLIT_ALIASES]
        splits.setdefault(known[0] if known else "all", []).append(str(file.absolute()))
    if "all" in splits and len(splits) > 1:
        raise DatasetError(
            "Each Parquet file must be named after its split, or none; got "
            f"{Path(splits['all'][0]).name!r} beside the splits "
            f"{', '.join(sorted(splits.keys() - {'all'}))}. Rename it, for example to "
            "train-00000-of-00001.parquet."
        )
    return splits


SOURCE = Source(name=hf_name, open=open_hf)
