"""The memo of digests never gives a wrong one, and never gets in the way."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from featcache.datasets import memo as module
from featcache.datasets.memo import FileDigestMemo, file_digests
from featcache.digest import blake3_bytes


def old_file(path: Path, data: bytes, age_s: float = 100) -> str:
    path.write_bytes(data)
    moment = time.time() - age_s
    os.utime(path, (moment, moment))
    return str(path)


@pytest.fixture
def reads(monkeypatch):
    """Paths that were really read."""
    seen: list[str] = []

    def counting(path):
        seen.append(path.name)
        return blake3_bytes(path.read_bytes())

    monkeypatch.setattr(module, "blake3_file", counting)
    return seen


def test_a_digest_is_the_blake3_of_the_bytes(tmp_path):
    path = old_file(tmp_path / "a", b"hello")
    assert FileDigestMemo().file_digest(path) == blake3_bytes(b"hello")


def test_a_file_that_cannot_be_read_has_the_empty_digest(tmp_path):
    memo = FileDigestMemo()
    assert memo.file_digest(str(tmp_path / "missing")) == ""
    assert memo.file_digest(str(tmp_path)) == ""
    assert memo.file_digest("a\0b") == ""


def test_an_unchanged_file_is_read_once_even_by_another_memo(tmp_path, reads):
    path = old_file(tmp_path / "ünï\u2028cøde", b"1")
    for _ in range(2):
        with FileDigestMemo(tmp_path / "memo" / "digests.jsonl") as memo:
            assert memo.file_digest(path) == memo.file_digest(path) == blake3_bytes(b"1")
    assert len(reads) == 1


@pytest.mark.parametrize("change", ["size", "time", "inode"])
def test_a_changed_file_is_read_again(tmp_path, change):
    path = tmp_path / "a"
    memo = FileDigestMemo()
    memo.file_digest(old_file(path, b"one"))
    stamp = path.stat()
    if change == "inode":
        other = tmp_path / "b"
        old_file(other, b"two")
        os.utime(other, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        other.replace(path)
    elif change == "size":
        path.write_bytes(b"three")
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    else:
        path.write_bytes(b"two")
    assert memo.file_digest(str(path)) == blake3_bytes(path.read_bytes())


def test_a_file_changed_a_moment_ago_is_not_remembered(tmp_path, reads):
    memo = FileDigestMemo(tmp_path / "memo")
    path = old_file(tmp_path / "a", b"1", age_s=0)
    memo.file_digest(path)
    memo.file_digest(path)
    memo.save()
    assert len(reads) == 2
    assert not (tmp_path / "memo").exists()


@pytest.mark.parametrize(
    "text", ["not json", "[1, 2]", '["/x", 1, 2, 3, null]', '{"a": 1}', "\xff", '["cut', "3"]
)
def test_a_corrupt_memo_is_ignored_and_replaced(tmp_path, text):
    place = tmp_path / "memo"
    place.write_bytes(text.encode("latin-1"))
    path = old_file(tmp_path / "a", b"1")
    with FileDigestMemo(place) as memo:
        assert memo.file_digest(path) == blake3_bytes(b"1")
    assert [json.loads(line)[0] for line in place.read_text().splitlines()] == [path]


def test_a_digest_of_the_wrong_length_is_not_believed(tmp_path):
    path = old_file(tmp_path / "a", b"1")
    stamp = Path(path).stat()
    entry = [path, stamp.st_size, stamp.st_mtime_ns, stamp.st_ino, "abc"]
    (tmp_path / "memo").write_text(json.dumps(entry))
    assert FileDigestMemo(tmp_path / "memo").file_digest(path) == blake3_bytes(b"1")


def test_a_place_that_cannot_be_written_is_of_no_account(tmp_path):
    path = old_file(tmp_path / "a", b"1")
    with FileDigestMemo(Path(path) / "below a file") as memo:
        assert memo.file_digest(path) == blake3_bytes(b"1")


def test_saving_keeps_what_another_process_saved_meanwhile(tmp_path):
    place = tmp_path / "memo"
    first, second = FileDigestMemo(place), FileDigestMemo(place)
    first.file_digest(old_file(tmp_path / "a", b"1"))
    second.file_digest(old_file(tmp_path / "b", b"2"))
    first.save()
    second.save()
    assert len(place.read_text().splitlines()) == 2


def test_a_memo_saves_even_if_the_block_fails(tmp_path):
    path = old_file(tmp_path / "a", b"1")

    def fail():
        with FileDigestMemo(tmp_path / "memo") as memo:
            memo.file_digest(path)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (tmp_path / "memo").exists()


def test_digests_of_many_files_come_in_order(tmp_path):
    paths = [old_file(tmp_path / f"{i}", str(i).encode()) for i in range(600)]
    paths.insert(300, str(tmp_path / "missing"))
    want = [blake3_bytes(Path(p).read_bytes()) if Path(p).exists() else "" for p in paths]
    assert file_digests(paths, FileDigestMemo()) == want
    assert file_digests([], FileDigestMemo()) == []


def test_one_memo_serves_many_threads(tmp_path):
    paths = [old_file(tmp_path / f"{i}", str(i).encode()) for i in range(50)]
    with FileDigestMemo(tmp_path / "memo") as memo, ThreadPoolExecutor(8) as pool:
        digests = list(pool.map(memo.file_digest, paths * 4))
    assert digests == digests[:50] * 4
    assert len((tmp_path / "memo").read_text().splitlines()) == 50
