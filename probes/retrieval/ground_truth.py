"""Ground truth that is no class: JSON files of ids, read and checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featcache.digest import Json
from featcache.errors import OptionError
from featcache.probes.retrieval.ranking import Truth
from featcache.probes.retrieval.row_lists import RowLists, rows_of_ids

LEVELS = ("easy", "hard", "junk")

SETTINGS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "easy": (("easy",), ("junk", "hard")),
    "medium": (("easy", "hard"), ("junk",)),
    "hard": (("hard",), ("junk", "easy")),
}
"""What is relevant and what is junk in each setting of the revisited Oxford and Paris."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroundTruth:
    """Lists of gallery ids per query."""

    lists: Mapping[str, Mapping[str, tuple[str, ...]]]
    """Query id to level (easy, hard, junk) to gallery ids."""
    sha256: str
    """Of the file's bytes."""

    def truth(
        self,
        setting: str,
        query_ids: NDArray[np.str_],
        gallery_ids: NDArray[np.str_],
        hidden: tuple[RowLists, ...] = (),
    ) -> Truth:
        """Return what is relevant and what is junk in a setting.

        An id in both is junk. Relevant ids that the gallery lacks count as never found.

        Args:
            setting: easy, medium or hard.
            query_ids: Shape (Q,), each of them in the file.
            gallery_ids: Shape (G,), unique and in increasing order.
            hidden: Rows that queries must not find.

        Source: Radenović et al. 2018, arXiv:1803.11285, section 3.2.
        """
        good, junk = SETTINGS[setting]
        wanted = [self._of(name, good) - self._of(name, junk) for name in query_ids]
        relevant = rows_of_ids([sorted(names) for names in wanted], gallery_ids)
        return Truth(
            relevant=relevant,
            hidden=hidden,
            junk=rows_of_ids([sorted(self._of(name, junk)) for name in query_ids], gallery_ids),
            n_absent=np.array([len(names) for names in wanted], np.int64) - relevant.sizes,
        )

    def _of(self, query: str, levels: Sequence[str]) -> set[str]:
        return {name for level in levels for name in self.lists[str(query)].get(level, ())}


def read_ground_truth(path: str) -> GroundTruth:
    """Read a ground truth file.

    The file is `{query id: {"easy": [gallery id, ...], "hard": [...], "junk": [...]}}`; a level
    may be left out, and a plain list of ids stands for `easy` alone, which is what all settings
    of a dataset without levels need.

    Args:
        path: File name.

    Raises:
        OptionError: If it cannot be read or is not of that form.
    """
    data, digest = _read_json(path)
    lists: dict[str, Mapping[str, tuple[str, ...]]] = {}
    for query, entry in data.items():
        levels = {"easy": entry} if isinstance(entry, list) else entry
        is_form = isinstance(levels, dict) and set(levels) <= set(LEVELS)
        if not is_form or not all(map(_is_ids, levels.values())):
            raise OptionError(
                f"`{path}` must give each query a list of ids, or lists named easy, hard and "
                f"junk; got {entry!r:.80} for {query!r}. Correct that entry."
            )
        lists[query] = {level: tuple(names) for level, names in levels.items()}
    return GroundTruth(lists=lists, sha256=digest)


def read_id_lists(path: str) -> tuple[Mapping[str, Sequence[str]], str]:
    """Read a file `{query id: [gallery id, ...]}` and its SHA-256.

    Args:
        path: File name.

    Raises:
        OptionError: If it cannot be read or is not of that form.
    """
    data, digest = _read_json(path)
    for query, names in data.items():
        if not _is_ids(names):
            raise OptionError(
                f"`{path}` must give each id a list of ids; got {names!r:.80} for {query!r}. "
                "Correct that entry."
            )
    return data, digest


def _is_ids(value: Json) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _read_json(path: str) -> tuple[dict[str, Json], str]:
    try:
        content = Path(path).read_bytes()
        data = json.loads(content)
    except (OSError, ValueError) as error:
        raise OptionError(
            f"`{path}` must be a JSON file that can be read; got {error}. Correct the path or "
            "the file."
        ) from error
    if not isinstance(data, dict):
        raise OptionError(
            f"`{path}` must hold one mapping from query ids; got {type(data).__name__}. Write "
            'it as {"query id": ...}.'
        )
    return data, hashlib.sha256(content).hexdigest()
