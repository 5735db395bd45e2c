"""The Hugging Face Hub as a remote: a dataset repository, `hf://datasets/org/name[/prefix]`.

Credentials are those of `hf auth login` or HF_TOKEN. An upload is a commit, so it appears whole;
`create` commits on top of the revision it has seen, so of two pushers one is refused and looks
again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featcache.errors import MissingDependencyError, OptionError, RemoteError
from featcache.remotes.transport import BLOCK_BYTES

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_PREFIX = "hf://datasets/"
_TRIES = 5


class HubTransport:
    """A dataset repository on the Hub."""

    def __init__(self, url: str, api: HfApi | None = None) -> None:
        """Open `url`; nothing is asked of the Hub yet.

        Args:
            url: `hf://datasets/org/name`, with a directory inside after it if wanted.
            api: The client; a new one by default.

        Raises:
            OptionError: If the URL has another form.
            MissingDependencyError: If huggingface_hub is not installed.
        """
        parts = url.removeprefix(_PREFIX).rstrip("/").split("/")
        if not url.startswith(_PREFIX) or len(parts) < 2 or not all(parts):
            raise OptionError(
                f"A remote on the Hub must be {_PREFIX}org/name[/directory]; got {url!r}. "
                "Correct it."
            )
        self._url, self._repo = url.rstrip("/"), "/".join(parts[:2])
        self._prefix = "".join(f"{part}/" for part in parts[2:])
        try:
            from huggingface_hub import HfApi
        except ImportError as error:
            raise MissingDependencyError("A remote on the Hub", "hf") from error
        self._api = api or HfApi()

    @property
    def url(self) -> str:
        """Return the URL."""
        return self._url

    def names(self, prefix: str) -> Iterator[str]:
        """Yield the names below `prefix`."""
        with self._errors("list", prefix):
            everything = self._api.list_repo_files(self._repo, repo_type="dataset")
        start = self._prefix + prefix
        for name in everything:
            if name.startswith(start):
                yield name.removeprefix(self._prefix)

    def size(self, name: str) -> int | None:
        """Return the bytes of `name`; None if it is absent."""
        from huggingface_hub.hf_api import RepoFile

        with self._errors("read", name):
            found = self._api.get_paths_info(self._repo, [self._prefix + name], repo_type="dataset")
        return next((int(one.size) for one in found if isinstance(one, RepoFile)), None)

    def read(self, name: str, start: int, stop: int) -> bytes:
        """Return bytes [start, stop) of `name`, from the Hub's own local cache."""
        with self._local(name).open("rb") as file:
            file.seek(start)
            data = file.read(stop - start)
        if len(data) != stop - start:
            raise RemoteError(
                f"{name} at {self.url} must have {stop} bytes; it ends at {start + len(data)}. "
                "Push the set again."
            )
        return data

    def blocks(self, name: str) -> Iterator[memoryview | bytes]:
        """Stream all bytes of `name`, from the Hub's own local cache."""
        with self._local(name).open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                yield block

    def put(self, name: str, source: Path) -> None:
        """Upload a file in one commit."""
        with self._errors("write", name):
            self._api.upload_file(
                path_or_fileobj=source,
                path_in_repo=self._prefix + name,
                repo_id=self._repo,
                repo_type="dataset",
                commit_message=f"Add {name}",
            )

    def create(self, name: str, data: bytes) -> bool:
        """Commit `data` under `name` on top of a revision that does not have it."""
        from huggingface_hub import CommitOperationAdd
        from huggingface_hub.errors import HfHubHTTPError

        for _ in range(_TRIES):
            with self._errors("write", name):
                head = self._api.repo_info(self._repo, repo_type="dataset").sha
                if self.size(name) is not None:
                    return False
                try:
                    self._api.create_commit(
                        self._repo,
                        [CommitOperationAdd(self._prefix + name, data)],
                        commit_message=f"Add {name}",
                        repo_type="dataset",
                        parent_commit=head,
                    )
                except HfHubHTTPError as error:
                    if error.response is None or error.response.status_code not in {409, 412}:
                        raise
                    continue  # somebody else committed in between
                return True
        raise RemoteError(
            f"Could not write {name} at {self.url}: others keep committing. Try again later."
        )

    def _local(self, name: str) -> Path:
        with self._errors("read", name):
            return Path(
                self._api.hf_hub_download(self._repo, self._prefix + name, repo_type="dataset")
            )

    @contextmanager
    def _errors(self, action: str, name: str) -> Iterator[None]:
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError

        # its bases are the HTTP library's root error, whichever library that is, and OSError
        bases: tuple[Any, ...] = HfHubHTTPError.__bases__
        failures = (*bases, OSError, HFValidationError)
        try:
            yield
        except RemoteError:
            raise
        except failures as error:
            response: Any = getattr(error, "response", None)
            status = getattr(response, "status_code", None)
            if status in {401, 403}:
                advice = "Log in with `hf auth login`, and ask for access."
            elif status == 404:
                advice = "Check the name; make the repository with `hf repo create`."
            else:
                advice = "Check the network, then try again: what was done is kept."
            reason = str(error).split("\n")[0][:300].rstrip(".")
            raise RemoteError(
                f"Could not {action} {name or 'the listing'} at {self.url}: {reason}. {advice}"
            ) from None
