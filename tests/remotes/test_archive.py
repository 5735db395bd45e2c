"""An archive as a remote: read where it lies, never unpacked, hostile until checked."""

import io
import shutil
import tarfile

import numpy as np
import pytest

from featcache.errors import CorruptError, FeatcacheError, OptionError, RemoteError
from featcache.remotes.archive import ArchiveTransport, ArchiveWriter
from featcache.remotes.config import Remote
from featcache.store.cache import Cache
from featcache.store.feature_set import FeatureSet
from featcache.store.verify import verify
from featcache.verbs.export import export_sets, import_archive


@pytest.fixture
def other(tmp_path):
    return Cache(tmp_path / "other")


@pytest.fixture
def archive(one, cache, tmp_path):
    export_sets(tmp_path / "sets.tar", cache=cache.root)
    return tmp_path / "sets.tar"


def write_tar(path, entries):
    with tarfile.open(path, "w") as tar:
        for entry, data in entries:
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


def test_a_set_goes_through_an_archive_unchanged(one, archive, other):
    (got,) = import_archive(archive, cache=other.root)
    assert got.digest == one.digest
    assert verify(got.path) == []
    np.testing.assert_array_equal(FeatureSet(got.path).features(), one.features())
    (again,) = import_archive(archive, cache=other.root)
    assert (again.files, again.bytes) == (0, 0)


def test_an_archive_is_a_remote_that_cannot_be_written(one, archive, tmp_path):
    transport = Remote(name="file", url=str(archive)).open()
    name = next(transport.names("features"))
    assert transport.size(name) == len(b"".join(map(bytes, transport.blocks(name))))
    assert transport.size("features/none") is None
    for write in (
        lambda: transport.put("a", archive),
        lambda: transport.create("a", b""),
    ):
        with pytest.raises(RemoteError, match="featcache cache export"):
            write()
    with pytest.raises(RemoteError, match="does not"):
        transport.read("features/none", 0, 1)
    with pytest.raises(RemoteError, match="it ends at"):
        transport.read(name, 0, 1 << 40)


def test_members_that_lead_elsewhere_are_never_read(one, archive, other, tmp_path):
    """Links, devices and names outside are not sets, and nothing is unpacked."""
    evil = tmp_path / "evil.tar"
    entries = []
    for name, kind in (
        ("../outside", tarfile.REGTYPE),
        ("/absolute", tarfile.REGTYPE),
        ("features/a/b/c/x-00000000000000000000.json", tarfile.SYMTYPE),
        ("features/../../y-00000000000000000000.json", tarfile.REGTYPE),
        ("features/device", tarfile.CHRTYPE),
    ):
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kind, "/etc/passwd"
        entries.append((entry, b"" if kind != tarfile.REGTYPE else b"{}"))
    write_tar(evil, entries)
    with pytest.raises(RemoteError, match="none does"):
        import_archive(evil, cache=other.root)
    assert not list(tmp_path.glob("**/outside"))


@pytest.mark.parametrize("at", [10, 512, 5000, -2000, -1])
def test_an_archive_cut_short_is_one_error_and_nothing_is_taken(archive, other, at):
    data = archive.read_bytes()
    archive.write_bytes(data[:at])
    try:
        import_archive(archive, cache=other.root)
    except FeatcacheError:
        assert not list(other.paths())
    else:  # only padding after the last member was cut
        assert at < 0
        assert all(verify(path) == [] for path in other.paths())


def test_what_is_no_archive_is_one_error(tmp_path, other):
    (tmp_path / "a.tar").write_bytes(b"no tar file, but as long as a header" * 40)
    for name in ("a.tar", "none.tar"):
        with pytest.raises(RemoteError, match="must be a tar file"):
            import_archive(tmp_path / name, cache=other.root)


def test_flipped_bytes_are_found_wherever_they_are(one, archive, other):
    data, rng = archive.read_bytes(), np.random.default_rng(0)
    for at in rng.choice(len(data), 60, replace=False):
        changed = bytearray(data)
        changed[at] ^= 1 << int(rng.integers(8))
        archive.write_bytes(changed)
        try:
            import_archive(archive, cache=other.root)
        except FeatcacheError:
            assert not list(other.paths())
        for path in other.paths():  # the flip was in padding, or in a field that nobody reads
            assert FeatureSet(path).digest == one.digest
            assert verify(path) == []

        shutil.rmtree(other.root, ignore_errors=True)


def test_too_many_members_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("featcache.remotes.archive.MAX_MEMBERS", 3)
    write_tar(tmp_path / "a.tar", [(tarfile.TarInfo(f"f{i}"), b"") for i in range(5)])
    with pytest.raises(RemoteError, match="more than 3 members"):
        ArchiveTransport(tmp_path / "a.tar")


def test_a_failed_export_leaves_no_file(one, cache, tmp_path):
    shard = one.path / "features" / "c" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[7] ^= 1
    shard.write_bytes(data)
    with pytest.raises(CorruptError, match="must be the file that was sealed"):
        export_sets(tmp_path / "sets.tar", cache=cache.root)
    with pytest.raises(CorruptError, match="must be sound"):
        export_sets(tmp_path / "folder", cache=cache.root, form="hf-dataset")
    assert not [path for path in tmp_path.iterdir() if path.name not in {"cache", "default-cache"}]


def test_an_existing_archive_is_replaced_only_by_a_whole_one(one, cache, tmp_path):
    target = tmp_path / "sets.tar"
    target.write_bytes(b"old")
    with pytest.raises(OptionError, match="none does"):
        export_sets(target, "nothing/*", cache=cache.root)
    assert target.read_bytes() == b"old"
    export_sets(target, cache=cache.root)
    assert list(ArchiveTransport(target).names("features"))
    with pytest.raises(KeyError), ArchiveWriter(target):
        raise KeyError
    assert list(ArchiveTransport(target).names("features"))
