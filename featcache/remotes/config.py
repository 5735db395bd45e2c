"""The user's remotes and whom they trust: a small TOML file.

require_signed = true
trusted_keys = ["<64 hex digits>"]
chunk_cache_gb = 10

[[remotes]]
name = "team"
url = "s3://bucket/features"
options = { endpoint = "https://s3.example.org", region = "eu-1" }
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from featcache.digest import Json
from featcache.errors import OptionError, UnknownNameError, did_you_mean
from featcache.remotes.archive import SUFFIX, ArchiveTransport
from featcache.remotes.hub import HubTransport
from featcache.remotes.objects import SCHEMES, ObjectTransport
from featcache.remotes.transport import DirectoryTransport, Transport

CHUNK_CACHE_GB = 10.0
_PUBLIC_KEY = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """One place to share sets through."""

    name: str
    url: str
    options: Mapping[str, Json] = field(default_factory=dict)
    """Settings of the store, such as `endpoint`; never a credential."""

    def open(self) -> Transport:
        """Return its transport.

        Raises:
            OptionError: If the URL is not understood.
            RemoteError: If a directory or archive does not exist.
        """
        parts = urlsplit(self.url)
        if parts.scheme in {"", "file"}:
            path = Path(parts.path if parts.scheme else self.url)
            return ArchiveTransport(path) if path.suffix == SUFFIX else DirectoryTransport(path)
        if parts.scheme == "hf":
            return HubTransport(self.url)
        if parts.scheme in SCHEMES:
            return ObjectTransport(self.url, self.options)
        raise OptionError(
            f"A remote must be a directory, a .tar file or a URL with {', '.join(SCHEMES)} or hf; "
            f"got {self.url!r}. Write for instance s3://bucket/prefix."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What the configuration file says."""

    remotes: tuple[Remote, ...] = ()
    trusted_keys: tuple[str, ...] = ()
    """Ed25519 public keys, 64 hex digits each."""
    require_signed: bool = False
    chunk_cache_gb: float = CHUNK_CACHE_GB
    """Room for what is read from remotes chunk by chunk, in 10^9 bytes."""

    def remote(self, name: str) -> Remote:
        """Return the remote of this name; a path or URL stands for itself.

        Raises:
            UnknownNameError: If it is neither.
        """
        for one in self.remotes:
            if one.name == name:
                return one
        if "/" in name or "\\" in name or ":" in name or name in {".", ".."}:
            return Remote(name=name, url=name)
        known = [one.name for one in self.remotes]
        raise UnknownNameError(
            f"A remote must be a URL, a path with a slash, or a name in {config_path()}; got "
            f"{name!r}, which has {', '.join(known) or 'none'}. "
            f"{did_you_mean(name, known)}Add it there."
        )


def config_path() -> Path:
    """Return `$FEATCACHE_CONFIG`, or `featcache/config.toml` in the user's configuration."""
    if chosen := os.environ.get("FEATCACHE_CONFIG"):
        return Path(chosen).expanduser()
    import platformdirs

    return platformdirs.user_config_path("featcache") / "config.toml"


def load_config(path: Path | None = None) -> Config:
    """Read the configuration; a file that does not exist gives the defaults.

    Raises:
        OptionError: If the file is not what it must be; the message names the place.
    """
    path = path or config_path()
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Config()
    except (OSError, ValueError, RecursionError) as error:
        raise OptionError(f"{path} must be TOML; {error}. Correct it, or remove it.") from error
    try:
        return _parse(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise OptionError(
            f"{path} must have [[remotes]] with `name` and `url`, `trusted_keys`, "
            f"`require_signed` and `chunk_cache_gb`, and nothing else; {error}. Correct it."
        ) from error


def _parse(data: Mapping[str, Json]) -> Config:
    _refuse_unknown(data, ("remotes", "trusted_keys", "require_signed", "chunk_cache_gb"))
    remotes = []
    for one in data.get("remotes", []):
        _refuse_unknown(one, ("name", "url", "options"))
        if not (isinstance(one["name"], str) and isinstance(one["url"], str)):
            raise TypeError("a name or url is not a text")
        if not isinstance(one.get("options", {}), dict):
            raise TypeError("`options` is not a table")
        remotes.append(Remote(name=one["name"], url=one["url"], options=one.get("options", {})))
    if not isinstance(keys := data.get("trusted_keys", []), list):
        raise TypeError("`trusted_keys` is not a list")
    if bad := [key for key in keys if not isinstance(key, str) or not _PUBLIC_KEY.fullmatch(key)]:
        raise ValueError(f"{bad[0]!r} is not a public key of 64 hex digits")
    required = data.get("require_signed", False)
    if not isinstance(required, bool):
        raise TypeError("`require_signed` is neither true nor false")
    room = data.get("chunk_cache_gb", CHUNK_CACHE_GB)
    if isinstance(room, bool) or not isinstance(room, int | float) or not 0 <= room < 1e9:
        raise TypeError("`chunk_cache_gb` is not a number of at least 0")
    return Config(
        remotes=tuple(remotes),
        trusted_keys=tuple(keys),
        require_signed=required,
        chunk_cache_gb=float(room),
    )


def _refuse_unknown(data: Mapping[str, Json], known: Sequence[str]) -> None:
    for name in data:
        if name not in known:
            raise ValueError(f"`{name}` is unknown. {did_you_mean(name, known)}".strip())
