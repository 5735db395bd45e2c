"""Ed25519 signatures on pointers, by the `cryptography` package.

A pointer names the key, the content digest and the manifest's hash, so a signature on it vouches
for every byte of the set.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from featcache.errors import MissingDependencyError, OptionError, RemoteError
from featcache.remotes.arrival import Trust
from featcache.remotes.config import Config
from featcache.remotes.pointer import Pointer
from featcache.remotes.push import Sign

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def new_key(path: Path) -> str:
    """Make a key pair; the private key goes into a PEM file that only its owner can read.

    Args:
        path: Where to; must not exist.

    Returns:
        The public key, 64 hex digits, for others' `trusted_keys`.

    Raises:
        OptionError: If the file exists or cannot be written.
    """
    private_type = _ed25519()
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = private_type.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise OptionError(
            f"A key file must be new and writable; {path}: {error.strerror}. Choose another name."
        ) from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
    return _public(key)


def signer(path: Path) -> Sign:
    """Return what signs with the private key in a PEM file.

    Raises:
        OptionError: If the file is not an unencrypted Ed25519 private key.
    """
    private_type = _ed25519()
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise OptionError(
            f"--sign needs an Ed25519 private key in PEM, without a passphrase; {path}: {error}. "
            "Make one with: featcache cache keygen FILE"
        ) from error
    if not isinstance(key, private_type):
        raise OptionError(
            f"--sign needs an Ed25519 private key; {path} is a {type(key).__name__}. "
            "Make one with: featcache cache keygen FILE"
        )
    public = _public(key)
    return lambda data: {"public_key": public, "signature": key.sign(data).hex()}


def trust(config: Config) -> Trust:
    """Return what judges a pointer: with `require_signed`, a trusted key must have signed it."""

    def judge(pointer: Pointer, url: str) -> None:
        if not config.require_signed:
            return
        signed = {one["public_key"] for one in pointer.signatures}
        if not any(_is_valid(pointer, key) for key in signed & set(config.trusted_keys)):
            got = f"keys {', '.join(sorted(key[:12] for key in signed))}" if signed else "nobody"
            raise RemoteError(
                f"A set must be signed by a trusted key; {pointer.key[:12]} at {url} is signed by "
                f"{got}. Add the key to `trusted_keys`, or pull without --require-signed."
            )

    return judge


def _is_valid(pointer: Pointer, public_key: str) -> bool:
    _ed25519()
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    for one in pointer.signatures:
        if one["public_key"] != public_key:
            continue
        try:
            key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
            key.verify(bytes.fromhex(one["signature"]), pointer.payload())
        except (InvalidSignature, ValueError):
            continue
        return True
    return False


def _ed25519() -> type[Ed25519PrivateKey]:
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ImportError as error:
        raise MissingDependencyError("Signing", "sign") from error
    return Ed25519PrivateKey


def _public(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes_raw().hex()
