"""Weight files that authors publish at an address: found in a folder, or fetched and checked.

The folder is `$FEATCACHE_WEIGHTS`, else `weights` in the platform's cache directory for featcache.
A file lies in it under the last part of its address, so one that was fetched by hand is found.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlparse

from featcache.digest import Json
from featcache.errors import BackboneError, CheckpointError
from featcache.store.files import disk_errors, temporary_path

WEIGHTS_VARIABLE = "FEATCACHE_WEIGHTS"
"""Environment variable: the folder of weight files."""
_TIMEOUT_S = 30
_PREFIX = 8
"""Hex digits of a SHA-256 that stand in a file's name."""


def weights_folder() -> Path:
    """Return the folder in which weight files are looked for."""
    if chosen := os.environ.get(WEIGHTS_VARIABLE):
        return Path(chosen).expanduser()
    import platformdirs

    return platformdirs.user_cache_path("featcache") / "weights"


def place_of(address: str) -> Path:
    """Return where the file of an address lies, or would lie."""
    return weights_folder() / Path(urlparse(address).path).name


def published_file(name: str, address: str, facts: Mapping[str, Json]) -> Path:
    """Return the file of an address, fetched if it is not there.

    Args:
        name: The backbone, for messages.
        address: Its URL.
        facts: `sha256`, or `sha256_prefix` with its first digits, if they are published.

    Raises:
        BackboneError: If it is not there and cannot be fetched.
        CheckpointError: If its digest is another.
        StoreError: If the folder cannot be written.
    """
    path = place_of(address)
    if not path.is_file():
        _fetch(name, address, path)
    wanted = str(facts.get("sha256") or facts.get("sha256_prefix") or "")
    if wanted and not (got := _sha256(path)).startswith(wanted):
        raise CheckpointError(
            f"The file of {name!r} must have a SHA-256 that starts with {wanted[:_PREFIX]}; "
            f"{str(path)!r} has {got[:_PREFIX]}. Delete it, and fetch it again from {address}"
        )
    return path


def _fetch(name: str, address: str, path: Path) -> None:
    with disk_errors(path.parent, "keep weights in"):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_path(path.parent)
    try:
        with (
            urllib.request.urlopen(address, timeout=_TIMEOUT_S) as answer,
            temporary.open("wb") as file,
        ):
            shutil.copyfileobj(answer, file)
        temporary.replace(path)
    except OSError as error:  # what urllib and sockets raise
        raise BackboneError(
            f"The weights of {name!r} must be at {str(path)!r} or at {address}; fetching them "
            f"failed: {error}. Fetch the file by hand and put it there, set {WEIGHTS_VARIABLE} to "
            f"the folder that holds it, or give it with --checkpoint FILE."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
