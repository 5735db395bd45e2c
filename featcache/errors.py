"""Every error featcache raises on purpose.

    FeatcacheError
    ├── SpecError (ValueError)             a value cannot be part of an extraction spec
    ├── UnknownNameError (KeyError)        a name is not registered
    ├── OptionError (ValueError)           an option is out of range or in conflict with another
    ├── ShapeError (ValueError)            arrays do not fit together
    ├── MissingDependencyError (ImportError)  an optional package is not installed
    ├── DatasetError (ValueError)          a dataset cannot be read as asked
    │   └── UnreadableImageError           one image cannot be decoded: becomes a ledger row
    ├── BackboneError (ValueError)         a backbone cannot be built or embeds wrongly
    │   └── CheckpointError                a checkpoint does not fit the architecture
    ├── StoreError (OSError)               the cache cannot be read or written
    │   ├── UnsealedError                  a feature set is not complete yet
    │   └── CorruptError                   stored bytes do not match their checksum
    ├── RemoteError (OSError)              a remote cannot be reached, or refuses
    ├── ExtractionError (RuntimeError)     extraction stopped; what was done is kept
    └── ProtocolError (ValueError)         a feature set is not what a protocol requires

One message, three parts: what must hold; what was got; what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FeatcacheError(Exception):
    """Root of all errors raised on purpose; the command line prints its message alone."""

    def __str__(self) -> str:
        """Return the message as written (`KeyError` would print its repr)."""
        return str(self.args[0]) if self.args else ""


class SpecError(FeatcacheError, ValueError):
    """A value cannot be part of an extraction spec."""


class UnknownNameError(FeatcacheError, KeyError):
    """A name is not registered; the message gives the nearest ones."""


class OptionError(FeatcacheError, ValueError):
    """An option is out of range or in conflict with another."""


class ShapeError(FeatcacheError, ValueError):
    """Arrays do not fit together."""


class MissingDependencyError(FeatcacheError, ImportError):
    """An optional package is needed for what was asked."""

    def __init__(self, feature: str, extra: str) -> None:
        """Say which extra brings the package that `feature` needs."""
        super().__init__(
            f"{feature} needs a package that is not installed. "
            f"Install it with: pip install 'featcache[{extra}]'"
        )


class DatasetError(FeatcacheError, ValueError):
    """A dataset cannot be read as asked."""


class UnreadableImageError(DatasetError):
    """One image cannot be decoded; extraction turns it into a ledger row with this reason."""


class BackboneError(FeatcacheError, ValueError):
    """A backbone cannot be built, or what it embeds breaks its declaration."""


class CheckpointError(BackboneError):
    """A checkpoint file does not fit the architecture it was given for."""


class StoreError(FeatcacheError, OSError):
    """The cache cannot be read or written."""


class UnsealedError(StoreError):
    """A feature set is not complete, so it cannot be read."""


class CorruptError(StoreError):
    """Stored bytes do not match their checksum."""


class RemoteError(FeatcacheError, OSError):
    """A remote cannot be reached, or refuses what was asked."""


class ExtractionError(FeatcacheError, RuntimeError):
    """Extraction stopped; what was finished is kept and the next run resumes."""


class ProtocolError(FeatcacheError, ValueError):
    """A feature set is not what the protocol requires."""


def did_you_mean(name: str, known: Iterable[str], *, most: int = 1) -> str:
    """Return `Did you mean 'x'? ` with up to `most` names like `name`; empty if none is like it."""
    near = difflib.get_close_matches(name, list(known), n=most, cutoff=0.5)
    return f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
