"""Object stores (S3 and what speaks its language, GCS, Azure) and HTTP, through obstore.

Credentials come from where the store's own tools look for them (environment, web identity,
instance role, and for S3 the profiles of boto3 if it is installed); none is stored or shown.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from featcache.digest import Json
from featcache.errors import MissingDependencyError, OptionError, RemoteError
from featcache.remotes.transport import BLOCK_BYTES

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SCHEMES = ("s3", "gs", "az", "http", "https")
_RETRIES = 5
_RETRY_S = 60
_CONNECT_S = 10
_REQUEST_S = 3600
"""Longest time for one request, in seconds: a part that crawls over a slow line gets through."""
_SILENCE_S = 30
"""Longest wait for the next byte of an answer, in seconds; half of `_RETRY_S`: one more try."""
_PART_BYTES = 16 << 20
"""Size of one part of a multipart upload, 16 MiB; smaller files travel in one request."""


class ObjectTransport:
    """A bucket or a web server. An object appears whole, at the end of its upload."""

    def __init__(self, url: str, options: Mapping[str, Json] | None = None) -> None:
        """Open `url`; nothing is asked of the server yet.

        Args:
            url: `s3://bucket/prefix`, `gs://…`, `az://…`, `http(s)://…`, without credentials.
            options: obstore's own settings, such as `endpoint` and `region`.

        Raises:
            OptionError: If the URL or options hold a credential, or are not understood.
            MissingDependencyError: If obstore is not installed.
        """
        parts = urlsplit(url)
        if parts.username or parts.password or parts.query:
            raise OptionError(
                f"A remote's URL must not hold credentials; that of {parts.hostname} does. Give "
                "them in the environment, as the store's own tools take them."
            )
        self._url = urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))
        self._is_web = parts.scheme in {"http", "https"}
        self._is_reached = self._is_web  # a bucket that answered once is there
        self._store = _open(self._url, parts.scheme, dict(options or {}), silence_s=_SILENCE_S)
        # a limit on silence would run while the body is sent too, and refuse a slow line
        self._uploads = _open(self._url, parts.scheme, dict(options or {}), silence_s=_REQUEST_S)

    @property
    def url(self) -> str:
        """Return the URL."""
        return self._url

    def names(self, prefix: str) -> Iterator[str]:
        """Yield the names below `prefix`; a web server cannot tell."""
        import obstore

        if self._is_web:
            raise RemoteError(
                f"A listing needs a store that can list; {self._url} is a web server. "
                "Run `featcache cache index DIR` on what it serves."
            )
        with self._errors("list", prefix):
            for page in obstore.list(self._store, prefix or None, chunk_size=1000):
                for item in page:
                    yield item["path"]

    def size(self, name: str) -> int | None:
        """Return the bytes of `name`; None if it is absent."""
        try:
            with self._errors("read", name):
                size = self._head(name)
        except FileNotFoundError:
            size = None
        self._is_reached = True
        return size

    def _head(self, name: str) -> int:
        """Ask for a size by HEAD and, where none is given, by GET why: a HEAD's answer is bare."""
        import obstore

        try:
            return int(obstore.head(self._store, name)["size"])
        except (obstore.exceptions.BaseError, FileNotFoundError) as error:
            is_odd = _is_absent(error) and not self._is_reached  # perhaps there is no such bucket
            if not (is_odd or _is_refused(error)):
                raise
        obstore.get_range(self._store, name, start=0, end=1)
        return int(obstore.head(self._store, name)["size"])

    def read(self, name: str, start: int, stop: int) -> bytes:
        """Return bytes [start, stop) of `name`."""
        import obstore

        try:
            with self._errors("read", name):
                data = bytes(obstore.get_range(self._store, name, start=start, end=stop))
        except FileNotFoundError as error:
            raise self._absent(name) from error
        if len(data) != stop - start:
            raise RemoteError(
                f"{name} at {self.url} must have {stop} bytes; it ends at {start + len(data)}. "
                "Push the set again."
            )
        return data

    def blocks(self, name: str) -> Iterator[memoryview | bytes]:
        """Stream all bytes of `name`."""
        import obstore

        try:
            with self._errors("read", name):
                answer = obstore.get(self._store, name)
                for block in answer.stream(min_chunk_size=BLOCK_BYTES):
                    yield memoryview(block)
        except FileNotFoundError as error:
            raise self._absent(name) from error

    def put(self, name: str, source: Path) -> None:
        """Upload a file; large ones in parts."""
        import obstore

        self._refuse_web()
        with self._errors("write", name):
            obstore.put(self._uploads, name, source, chunk_size=_PART_BYTES)

    def create(self, name: str, data: bytes) -> bool:
        """Upload `data` by a conditional PUT."""
        import obstore
        from obstore.exceptions import AlreadyExistsError

        self._refuse_web()
        try:
            with self._errors("write", name):
                obstore.put(self._uploads, name, data, mode="create", use_multipart=False)
        except AlreadyExistsError:
            return False
        return True

    def _refuse_web(self) -> None:
        if self._is_web:
            raise RemoteError(
                f"A push needs a remote that can be written; {self._url} is read over HTTP. "
                "Push to the bucket or directory behind it."
            )

    def _absent(self, name: str) -> RemoteError:
        return RemoteError(f"{name} must lie at {self.url}; it does not. Push the set again.")

    @contextmanager
    def _errors(self, action: str, name: str) -> Iterator[None]:
        """Turn obstore's errors into ours; absence and a taken name stay what they are.

        The original keeps our reason alone: the body of an answer may repeat credentials.
        """
        from obstore import exceptions

        try:
            yield
        except exceptions.AlreadyExistsError:
            raise
        except (exceptions.BaseError, OSError) as error:
            reason, advice = _reason(str(error)), _advice(error)
            lacks_object = action == "read" and _is_absent(error) and not _lacks_bucket(error)
            error.args = (reason,)
            if lacks_object:
                raise FileNotFoundError(name) from error
            raise RemoteError(
                f"Could not {action} {name or 'the listing'} at {self.url}: {reason}. {advice}"
            ) from None


def _open(url: str, scheme: str, options: dict[str, Json], *, silence_s: float) -> ObjectStore:
    if secret := [name for name in options if _is_secret(name)]:
        raise OptionError(
            f"A remote's options must not hold credentials; {secret[0]!r} is one. Give it in the "
            "environment, as the store's own tools take it."
        )
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ImportError as error:
        raise MissingDependencyError(f"Remote {scheme}://", "s3") from error
    client: dict[str, Any] = {
        "connect_timeout": timedelta(seconds=_CONNECT_S),
        "timeout": timedelta(seconds=_REQUEST_S),
        "read_timeout": timedelta(seconds=silence_s),
    }
    if scheme == "http" or "allow_http" in options or _endpoint(options).startswith("http://"):
        client["allow_http"] = True
        options.pop("allow_http", None)
    settings: dict[str, Any] = {
        "client_options": client,
        "retry_config": {"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=_RETRY_S)},
    }
    if scheme == "s3" and (provider := _profile_credentials(options)) is not None:
        settings["credential_provider"] = provider
    if scheme not in {"http", "https"}:
        settings["config"] = options or None
    try:
        return from_url(url, **settings)
    except (BaseError, TypeError, ValueError) as error:
        raise OptionError(
            f"A remote must be a URL that obstore understands; {url!r} is not: "
            f"{_reason(str(error))}. Write s3://bucket/prefix, and check the remote's options."
        ) from None


def _endpoint(options: Mapping[str, Json]) -> str:
    named = options.get("endpoint") or options.get("aws_endpoint")
    return str(named or os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT") or "")


def _is_secret(name: str) -> bool:
    return any(word in name.lower() for word in ("key", "secret", "token", "password", "sas"))


def _profile_credentials(options: Mapping[str, Json]) -> Any:  # noqa: ANN401
    """Return boto3's credentials if the environment has none and boto3 knows a profile."""
    if "AWS_ACCESS_KEY_ID" in os.environ or str(options.get("skip_signature")).lower() == "true":
        return None
    try:
        import boto3
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        return None
    session = boto3.Session()
    return Boto3CredentialProvider(session) if session.get_credentials() else None


_SAID = re.compile(r"<(?:Code|Message)>(.*?)</", re.DOTALL)


def _reason(text: str) -> str:
    """Return an error in one line, without the debug dump that obstore appends.

    Of an XML body only code and message stay, as others of its fields repeat credentials.
    """
    head, _, body = text.split("Debug source")[0].partition("<")
    head = head.strip().split("\n")[0][:300].rstrip(" .:")
    said = [" ".join(part.split()) for part in _SAID.findall(body[:2000])]
    return ": ".join([head, *said])[:500].rstrip(" .:")


def _is_absent(error: Exception) -> bool:
    from obstore import exceptions

    return isinstance(error, FileNotFoundError | exceptions.NotFoundError)


def _lacks_bucket(error: Exception) -> bool:
    return "nosuchbucket" in str(error).lower() or "containernotfound" in str(error).lower()


def _is_refused(error: Exception) -> bool:
    from obstore import exceptions

    types = exceptions.PermissionDeniedError | exceptions.UnauthenticatedError
    statuses = ("400 Bad Request", "401 Unauthorized", "403 Forbidden")
    return isinstance(error, types) or any(status in str(error) for status in statuses)


def _advice(error: Exception) -> str:
    text = str(error).lower()

    def says(*words: str) -> bool:
        return any(word in text for word in words)

    if says("requesttimetooskewed"):
        return "Set this machine's clock: it is too far from the store's."
    if _is_absent(error) or _lacks_bucket(error):
        return "Check the bucket's name."
    is_denied = _is_refused(error) and not says("400 bad request")
    if is_denied or says("expired", "accessdenied", "invalidtoken", "169.254"):
        return "Check the credentials that the store's own tools use, and what they may do."
    if says("slowdown", "429 too many", "503 service"):
        return "The store is busy: try again later; what was done is kept."
    return "Check the address and the network, then try again: what was done is kept."
