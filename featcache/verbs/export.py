"""Carry sets out of the cache as one file or as a Hugging Face dataset, and in from a file."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from featcache.errors import CorruptError, OptionError
from featcache.remotes.archive import ArchiveWriter
from featcache.remotes.hf_dataset import write_dataset
from featcache.remotes.push import Transferred, push
from featcache.remotes.signing import signer
from featcache.store.cache import Cache
from featcache.store.feature_set import FeatureSet
from featcache.store.files import disk_errors, temporary_path
from featcache.store.redact import Redaction, redact
from featcache.store.verify import verify
from featcache.verbs.share import pull_sets, sealed_matching

Form = Literal["archive", "hf-dataset"]
Advance = Callable[[int], None]
_SALT_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """One set that was carried out."""

    key: str
    """Of what was carried out; another than the set's in the cache if something was left out."""
    digest: str
    source_key: str


def export_sets(
    target: Path,
    pattern: str = "*",
    *,
    form: Form = "archive",
    cache: Path | str | None = None,
    labels: bool = True,
    hash_ids: bool = False,
    salt: Path | None = None,
    sign_key: Path | None = None,
    begin: Advance = lambda _: None,
    advance: Advance = lambda _: None,
) -> list[Exported]:
    """Write every sealed set that matches to one archive, or as a Hugging Face dataset.

    Args:
        target: The file, or the directory of the dataset, which must be new or empty.
        pattern: Shell pattern on `dataset/split/backbone`, or the start of a key.
        form: 'archive' or 'hf-dataset'.
        cache: Root of the cache.
        labels: Keep labels and class names.
        hash_ids: Replace ids by keyed hashes, so that sample names stay here.
        salt: File with the secret of the hashes, so that two exports agree; made if it does not
            exist. None draws a secret that nobody keeps.
        sign_key: PEM file of the private key that signs the pointers of an archive.
        begin: Told the bytes in all.
        advance: Told the bytes as they are written.

    Raises:
        OptionError: If no set matches, or if options contradict each other.
        CorruptError: If a set is not what was sealed; nothing is left behind.
        StoreError: If the target cannot be written.
    """
    _check_options(target, form, hash_ids=hash_ids, salt=salt, sign_key=sign_key)
    store = Cache(cache)
    chosen = sealed_matching(store, pattern)
    begin(sum(int(file["bytes"]) for one in chosen for file in one.sealed["files"]))
    redaction = Redaction(labels=not labels, salt=_salt(salt) if hash_ids else None)
    with _redacted(chosen, redaction, store) as sets:
        if form == "archive":
            sign = signer(sign_key) if sign_key is not None else None
            with ArchiveWriter(target) as archive:
                for one in sets:
                    push(one.path, archive, sign=sign, advance=advance)
        else:
            for one in sets:
                if problems := verify(one.path):
                    raise CorruptError(
                        f"{one.path} must be sound to be exported; {problems[0]}. Run: "
                        "featcache cache repair"
                    )
            write_dataset(sets, target, advance=advance)
        return [
            Exported(key=one.key, digest=one.digest, source_key=source.key)
            for one, source in zip(sets, chosen, strict=True)
        ]


def import_archive(
    file: Path,
    pattern: str = "*",
    *,
    cache: Path | str | None = None,
    require_signed: bool = False,
    advance: Advance = lambda _: None,
) -> list[Transferred]:
    """Take every set of an archive that matches into the cache, each byte checked.

    Raises:
        RemoteError: If the file is no archive, or if nothing in it matches.
        CorruptError: If a set is not what it claims to be; the sets taken in before it stay.
    """
    return pull_sets(
        str(file.expanduser().absolute()),
        pattern,
        cache=cache,
        require_signed=require_signed,
        advance=advance,
    )


@contextmanager
def _redacted(
    sets: Sequence[FeatureSet], redaction: Redaction, store: Cache
) -> Iterator[list[FeatureSet]]:
    """Yield the sets, or copies of them without some of what they say, for a while."""
    if redaction.is_empty:
        yield list(sets)
        return
    room = Cache(temporary_path(store.root))  # beside the features, so that files are linked
    try:
        yield [redact(one, redaction, room) for one in sets]
    finally:
        shutil.rmtree(room.root, ignore_errors=True)


def _check_options(
    target: Path, form: str, *, hash_ids: bool, salt: Path | None, sign_key: Path | None
) -> None:
    if form not in ("archive", "hf-dataset"):
        raise OptionError(f"`form` must be 'archive' or 'hf-dataset'; got {form!r}. Choose one.")
    if salt is not None and not hash_ids:
        raise OptionError("A salt is for hashed ids; got one without --hash-ids. Add it.")
    if form == "archive" and target.suffix != ".tar":
        raise OptionError(f"An archive must be called *.tar; got {target.name!r}. Rename it.")
    if not target.parent.is_dir():
        raise OptionError(f"The directory {target.parent} must exist; it does not. Make it.")
    if form == "hf-dataset":
        if sign_key is not None:
            raise OptionError("Only an archive is signed; got a key for a dataset. Leave it out.")
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise OptionError(f"{target} must be new or empty; it is not. Choose another.")


def _salt(file: Path | None) -> bytes:
    if file is None:
        return secrets.token_bytes(_SALT_BYTES)
    with disk_errors(file, "use the salt in"):
        if not file.exists():
            file.touch(mode=0o600)
            file.write_bytes(secrets.token_bytes(_SALT_BYTES))
        salt = file.read_bytes()
    if len(salt) < _SALT_BYTES:
        raise OptionError(
            f"A salt must have at least {_SALT_BYTES} bytes; {file} has {len(salt)}. Name a new "
            "file: it is made."
        )
    return salt
