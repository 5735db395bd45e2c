"""Push sets to a remote, pull sets from it, and fetch what a command needs before computing it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from featcache.errors import CorruptError, MissingDependencyError, OptionError, RemoteError
from featcache.remotes.arrival import Trust, read_manifest
from featcache.remotes.config import Config, Remote, load_config
from featcache.remotes.pointer import (
    INDEX_NAME,
    list_pointers,
    pointer_name,
    read_pointer,
    set_name_beside,
)
from featcache.remotes.pull import pull
from featcache.remotes.push import Transferred, push
from featcache.remotes.signing import signer, trust
from featcache.remotes.stream import attach
from featcache.remotes.transport import DirectoryTransport, Transport
from featcache.spec import ExtractionSpec
from featcache.store.cache import Cache, Stored, slug
from featcache.store.feature_set import FeatureSet
from featcache.store.files import json_bytes, write_replacing

T = TypeVar("T")
Advance = Callable[[int], None]
Note = Callable[[str], None]


def push_sets(
    remote: str,
    pattern: str = "*",
    *,
    cache: Path | str | None = None,
    as_variant: bool = False,
    sign_key: Path | None = None,
    begin: Advance = lambda _: None,
    advance: Advance = lambda _: None,
) -> list[Transferred]:
    """Push every sealed set whose dataset/split/backbone match a pattern, or whose key starts so.

    Args:
        remote: A name in the configuration, a URL or a directory.
        pattern: Shell pattern on `dataset/split/backbone`, or the start of a key.
        cache: Root of the cache.
        as_variant: Keep this content beside another that a key already has there.
        sign_key: PEM file of the private key that signs the pointers.
        begin: Told the bytes in all.
        advance: Told the bytes as they travel.

    Raises:
        OptionError: If no set matches.
        RemoteError: If a key has another content there, or if the remote cannot be written; the
            sets pushed before it stay.
        CorruptError: If a local file is not what was sealed.
    """
    chosen = sealed_matching(Cache(cache), pattern)
    sign = signer(sign_key) if sign_key is not None else None
    transport = load_config().remote(remote).open()
    begin(sum(int(file["bytes"]) for one in chosen for file in one.sealed["files"]))
    return [
        push(one.path, transport, as_variant=as_variant, sign=sign, advance=advance)
        for one in chosen
    ]


def sealed_matching(cache: Cache, pattern: str) -> list[FeatureSet]:
    """Return the sealed sets that match a pattern on dataset/split/backbone, or a key.

    Raises:
        OptionError: If none does.
    """
    chosen = [one.open() for one in cache.matching(pattern) if one.sealed is not None]
    if not chosen:
        raise OptionError(
            f"A sealed set in {cache.root} must match {pattern!r}; none does. List them with: "
            "featcache ls features"
        )
    return chosen


def pull_sets(
    remote: str,
    pattern: str = "*",
    *,
    cache: Path | str | None = None,
    require_signed: bool = False,
    advance: Advance = lambda _: None,
) -> list[Transferred]:
    """Pull every set of a remote that matches a pattern; those that are here already cost nothing.

    Args:
        remote: A name in the configuration, a URL or a directory.
        pattern: Shell pattern on `dataset/split/backbone`, or the start of a key.
        cache: Root of the cache.
        require_signed: Refuse what no trusted key has signed, whatever the configuration says.
        advance: Told the bytes as they travel.

    Raises:
        RemoteError: If nothing matches, or if the remote cannot be reached.
        CorruptError: If a set is not what it claims to be; the sets pulled before it stay.
    """
    config = load_config()
    transport = config.remote(remote).open()
    names = list_pointers(transport, pattern)
    if not names:
        raise RemoteError(
            f"A set at {transport.url} must match {pattern!r}; none does. List them with: "
            f"featcache cache ls-remote {remote}"
        )
    judge = _judge(config, require_signed=require_signed)
    pulled = [pull(name, transport, Cache(cache), trust=judge, advance=advance) for name in names]
    return [one for one in pulled if one is not None]


def list_remote(remote: str, pattern: str = "*") -> list[str]:
    """Return what a remote has: `dataset/split/backbone/tap-key`, sorted.

    Raises:
        RemoteError: If the remote cannot be reached or listed.
    """
    transport = load_config().remote(remote).open()
    names = list_pointers(transport, pattern)
    return [name.removeprefix("features/").removesuffix(".json") for name in names]


def open_remote(remote: str, key: str, *, cache: Path | str | None = None) -> FeatureSet:
    """Open the set of a remote whose key starts so, to be read where it lies.

    Raises:
        OptionError: If no set of the remote, or more than one, has such a key.
        RemoteError: If the remote cannot be reached.
        CorruptError: If the set is not what it claims to be.
    """
    config = load_config()
    transport = config.remote(remote).open()
    room = round(config.chunk_cache_gb * 1e9)
    names = [name for name in list_pointers(transport, key) if key]
    found = [
        attach(name, transport, Cache(cache), trust=trust(config), limit_bytes=room)
        for name in names[:1]
    ]
    if len(names) != 1 or found[0] is None:
        raise OptionError(
            f"One set at {transport.url} must have a key that starts with {key!r}; {len(names)} "
            f"have. List them with: featcache cache ls-remote {remote}"
        )
    return found[0]


def write_index(directory: Path) -> int:
    """Write the list of pointers that readers over HTTP need; return how many there are.

    Raises:
        RemoteError: If there is no such directory.
    """
    transport = DirectoryTransport(directory)
    (directory / INDEX_NAME).unlink(missing_ok=True)
    names = list_pointers(transport)
    (directory / INDEX_NAME).parent.mkdir(exist_ok=True)
    write_replacing(directory / INDEX_NAME, json_bytes(names))
    return len(names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A set that a remote has."""

    spec: ExtractionSpec
    is_default_tap: bool
    """Whether it holds the tap that its backbone gives by default."""


@dataclass(frozen=True, slots=True)
class Attached(Stored):
    """A set that is read where it lies at a remote."""

    reader: FeatureSet

    def open(self) -> FeatureSet:
        """Return the set."""
        return self.reader


class Sources:
    """The remotes that a command looks at before it computes."""

    def __init__(
        self,
        remotes: Sequence[str] | None,
        *,
        require_signed: bool = False,
        stream: bool = False,
        note: Note,
    ) -> None:
        """Use the named remotes, those of the configuration if None, none if empty.

        With `stream`, `take` reads sets where they lie instead of fetching them.
        """
        is_off = remotes is not None and not remotes
        config = Config() if is_off else load_config()
        self._remotes = (
            list(config.remotes) if remotes is None else [config.remote(name) for name in remotes]
        )
        self._is_chosen = remotes is not None
        self._trust = _judge(config, require_signed=require_signed)
        self._stream, self._room = stream, round(config.chunk_cache_gb * 1e9)
        self._note = note
        self._open: dict[str, Transport] = {}

    def fetch(self, spec: ExtractionSpec, cache: Cache) -> bool:
        """Pull the set of a spec from the first remote that has it; return whether one had.

        Raises:
            FeatcacheError: If a remote named on the command line fails. One from the
                configuration is passed over with a note.
        """
        return any(self._try(remote, spec, cache) for remote in self._remotes)

    def take(self, spec: ExtractionSpec, cache: Cache) -> Stored | None:
        """Make the set of a spec readable: pull it, or return where it can be read at a remote.

        Raises:
            FeatcacheError: As `fetch`.
        """
        if not self._stream:
            self.fetch(spec, cache)
            return None
        found = (self._attach(remote, spec, cache) for remote in self._remotes)
        return next((one for one in found if one is not None), None)

    def offer(self, dataset: str, backbone: str) -> list[Offer]:
        """Return the sets that the remotes have of a dataset and backbone, one for each key."""
        found: dict[str, Offer] = {}
        for remote in self._remotes:
            for one in self._guarded(remote, lambda t: _offers(t, dataset, backbone, self._note)):
                found.setdefault(one.spec.key, one)
        return list(found.values())

    def _attach(self, remote: Remote, spec: ExtractionSpec, cache: Cache) -> Stored | None:
        def ask(transport: Transport) -> list[FeatureSet]:
            got = attach(
                pointer_name(spec),
                transport,
                cache,
                spec=spec,
                trust=self._trust,
                limit_bytes=self._room,
            )
            return [got] if got is not None else []

        for one in self._guarded(remote, ask):
            named = f"{spec.dataset.name}/{spec.dataset.split}"
            self._note(f"{named}: reading {spec.backbone.name} at {remote.name}")
            return Attached(one.path, one.spec, dict(one.provenance), dict(one.sealed), one)
        return None

    def _try(self, remote: Remote, spec: ExtractionSpec, cache: Cache) -> bool:
        def fetch(transport: Transport) -> list[Transferred]:
            got = pull(pointer_name(spec), transport, cache, spec=spec, trust=self._trust)
            return [got] if got is not None else []

        got = self._guarded(remote, fetch)
        if got and got[0].files:
            one = spec.dataset
            self._note(f"{one.name}/{one.split}: fetched {spec.backbone.name} from {remote.name}")
        return bool(got)

    def _guarded(self, remote: Remote, ask: Callable[[Transport], list[T]]) -> list[T]:
        try:
            if remote.name not in self._open:
                self._open[remote.name] = remote.open()
            return ask(self._open[remote.name])
        except (RemoteError, CorruptError, OptionError, MissingDependencyError) as error:
            if self._is_chosen:
                raise
            self._note(f"remote {remote.name} is passed over: {error}")
        return []


def _offers(transport: Transport, dataset: str, backbone: str, note: Note) -> list[Offer]:
    """Return what a remote has; a set that cannot be read, as of a newer format, hides no other."""
    offers = []
    for name in list_pointers(
        transport, f"*/{slug(backbone)}", prefix=f"features/{slug(dataset)}/"
    ):
        try:
            pointer = read_pointer(transport, name)
            if pointer is None:
                continue
            manifest = read_manifest(set_name_beside(name, pointer.digest), pointer, transport)
        except CorruptError as error:
            note(f"a set is passed over: {error}")
            continue
        spec = manifest.spec
        if (spec.dataset.name, spec.backbone.name) == (dataset, backbone):
            offers.append(Offer(spec=spec, is_default_tap=spec.tap == manifest.default_tap))
    return offers


def _judge(config: Config, *, require_signed: bool) -> Trust:
    required = config.require_signed or require_signed
    return trust(replace(config, require_signed=required))
