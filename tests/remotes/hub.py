"""The Hub's client as far as a remote uses it, on a dictionary: one revision per commit."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace

from huggingface_hub import CommitOperationAdd
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import RepoFile


def refusal(status: int, text: str) -> HfHubHTTPError:
    error = HfHubHTTPError.__new__(HfHubHTTPError)
    error.args = (text,)
    error.response = SimpleNamespace(status_code=status)
    return error


class FakeHub:
    """All repositories; `clients` share it."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.revision = 0
        self.before_commit = lambda: None

    def client(self, *_: object, **__: object) -> FakeApi:
        return FakeApi(self)


class FakeApi:
    def __init__(self, hub: FakeHub) -> None:
        self._hub = hub
        self._local = Path(tempfile.mkdtemp())

    def _repo(self, repo: str, repo_type: str) -> dict[str, bytes]:
        assert repo_type == "dataset"
        if repo not in self._hub.files:
            raise refusal(404, "Repository Not Found")
        return self._hub.files[repo]

    def list_repo_files(self, repo: str, *, repo_type: str) -> list[str]:
        return sorted(self._repo(repo, repo_type))

    def get_paths_info(self, repo: str, paths: list[str], *, repo_type: str) -> list[RepoFile]:
        files = self._repo(repo, repo_type)
        return [
            RepoFile(path=path, size=len(files[path]), oid="0") for path in paths if path in files
        ]

    def hf_hub_download(self, repo: str, name: str, *, repo_type: str) -> str:
        files = self._repo(repo, repo_type)
        if name not in files:
            raise refusal(404, f"Entry Not Found: {name}")
        path = self._local / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files[name])
        return str(path)

    def upload_file(
        self,
        *,
        path_or_fileobj: Path,
        path_in_repo: str,
        repo_id: str,
        repo_type: str,
        commit_message: str,
    ) -> None:
        assert commit_message
        self._repo(repo_id, repo_type)[path_in_repo] = Path(path_or_fileobj).read_bytes()
        self._hub.revision += 1

    def repo_info(self, repo: str, *, repo_type: str) -> SimpleNamespace:
        self._repo(repo, repo_type)
        return SimpleNamespace(sha=str(self._hub.revision))

    def create_commit(
        self,
        repo: str,
        operations: list[CommitOperationAdd],
        *,
        commit_message: str,
        repo_type: str,
        parent_commit: str,
    ) -> None:
        assert commit_message
        self._hub.before_commit()
        if parent_commit != str(self._hub.revision):
            raise refusal(412, "A commit has happened since")
        for one in operations:
            self._repo(repo, repo_type)[one.path_in_repo] = bytes(one.path_or_fileobj)
        self._hub.revision += 1
