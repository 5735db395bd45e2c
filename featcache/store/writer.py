"""Fill a feature set shard by shard, so that a kill at any instant loses a few batches at most.

While a set is being filled, a directory `<set>.work` lies beside it:

    claims/<shard>.json    who works on a shard
    spool/<shard>.bin      the shard in flight, batch by batch
    done/<shard>.json      the record of a published shard
    facts.json, rows/      provenance, labels and ids, for a merge that has no dataset at hand

Sealing writes labels, ids, ledger and the manifest, and removes the work directory.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.digest import Json, blake3_file
from featcache.errors import StoreError
from featcache.spec import ExtractionSpec
from featcache.store.arrays import OK, UNREADABLE, SmallArrays, read_arrays, write_arrays
from featcache.store.claims import Claim, Owner, try_claim
from featcache.store.feature_set import is_sealed
from featcache.store.files import (
    json_bytes,
    publish,
    read_json,
    sync_file,
    temporary_path,
    write_once,
    write_replacing,
)
from featcache.store.layout import Layout, choose_layout, parse_layout
from featcache.store.manifest import GROUP_FILE, content_digest, group_metadata, list_files
from featcache.store.shard import MappedShard, ShardDigests, shard_digests, write_shard
from featcache.store.spool import Spool, read_batches


class SetWriter:
    """The unsealed feature set of one spec, made or found on disk."""

    def __init__(self, path: Path, spec: ExtractionSpec, row_shape: tuple[int, ...]) -> None:
        """Make the set's directory unless it exists, and read its layout."""
        self.path, self.spec = path, spec
        self.work = path.with_suffix(".work")
        try:
            if not self.is_sealed:
                self._create(row_shape)
        except FileNotFoundError:  # another process sealed the set and removed the work directory
            if not self.is_sealed:
                raise
        if self.is_sealed:  # its sealer may have been killed before it could tidy up
            shutil.rmtree(self.work, ignore_errors=True)
        self.layout = parse_layout(read_json(path / "features" / "zarr.json"))

    def _create(self, row_shape: tuple[int, ...]) -> None:
        for folder in ("claims", "spool", "done"):
            (self.work / folder).mkdir(parents=True, exist_ok=True)
        (self.path / "features").mkdir(parents=True, exist_ok=True)
        spec = self.spec
        layout = choose_layout(spec.dataset.rows, row_shape, spec.numerics.stored)
        unsealed = group_metadata(spec, provenance=None, sealed=None)
        for file, metadata in (
            (self.path / "features" / "zarr.json", layout.metadata()),
            (self.path / GROUP_FILE, unsealed),
        ):
            write_once(file, json_bytes(metadata), staging=self.work)

    @classmethod
    def reopen(
        cls,
        path: Path,
        spec: ExtractionSpec,
        layout: Layout,
        done: Sequence[Mapping[str, Json]],
        damaged: Collection[str],
    ) -> None:
        """Turn a sealed set back into one that is being filled.

        Killed before its end, it leaves a sealed set with files missing, which can be reopened.

        Args:
            path: The set's directory.
            spec: Its spec.
            layout: Its layout.
            done: Records of the shards to keep; the other shards are removed.
            damaged: Files to remove beside them.
        """
        work = path.with_suffix(".work")
        shutil.rmtree(work, ignore_errors=True)
        for folder in ("claims", "spool", "done"):
            (work / folder).mkdir(parents=True)
        for record in done:
            write_once(work / "done" / f"{record['shard']}.json", json_bytes(dict(record)))
        kept = {record["shard"] for record in done}
        lost = [shard for shard in range(layout.n_shards) if shard not in kept]
        shards = {f"features/{layout.shard_path(shard)}" for shard in lost}
        for name in (shards | set(damaged)) - {GROUP_FILE}:
            (path / name).unlink(missing_ok=True)
        metadata = json_bytes(layout.metadata())
        (path / "features").mkdir(exist_ok=True)
        write_replacing(path / "features" / "zarr.json", metadata, staging=work)
        unsealed = group_metadata(spec, provenance=None, sealed=None)
        write_replacing(path / GROUP_FILE, json_bytes(unsealed), staging=work)

    def discard(self) -> None:
        """Remove an unsealed set and all that was stored of it."""
        if not self.is_sealed:
            shutil.rmtree(self.path, ignore_errors=True)
            shutil.rmtree(self.work, ignore_errors=True)

    @property
    def is_sealed(self) -> bool:
        """Whether the set is complete."""
        return is_sealed(self.path)

    def done(self) -> dict[int, dict[str, Any]]:
        """Return the records of the published shards by shard."""
        return {
            int(path.stem): read_json(path) for path in sorted((self.work / "done").glob("*.json"))
        }

    def is_done(self, shard: int) -> bool:
        """Whether a shard is published."""
        return self._done_path(shard).exists() or self.is_sealed

    def _done_path(self, shard: int) -> Path:
        return self.work / "done" / f"{shard}.json"

    def stored_rows(self) -> int:
        """Return how many rows are on disk, published or spooled."""
        if self.is_sealed:
            return self.layout.rows
        done = self.done()
        rows = sum(stop - start for start, stop in map(self.layout.bounds, done))
        for path in (self.work / "spool").glob("*.bin"):
            if int(path.stem) not in done:
                batches = read_batches(path, self.layout, int(path.stem))
                rows += sum(len(batch.features) for batch in batches)
        return rows

    def claim(self, shard: int) -> Claim | Owner:
        """Claim a shard, or return the living process that has it."""
        return try_claim(self.work / "claims" / f"{shard}.json")

    def open_spool(self, shard: int) -> Spool:
        """Open the spool of a claimed shard where it was left."""
        return Spool(self.work / "spool" / f"{shard}.bin", self.layout, shard)

    def finish_shard(self, shard: int, spool: Spool, record: Mapping[str, Json]) -> None:
        """Publish a shard from its complete spool; a shard that is already there is kept."""
        target = self.path / "features" / self.layout.shard_path(shard)
        target.parent.mkdir(parents=True, exist_ok=True)
        unreadable: dict[str, str] = {}
        seconds = 0.0

        def blocks() -> Iterator[NDArray[np.floating]]:
            nonlocal seconds
            for batch in spool.batches():
                seconds += batch.seconds
                unreadable.update({str(row): why for row, why in batch.unreadable.items()})
                yield batch.features

        temporary = temporary_path(self.work)
        try:
            digests = write_shard(temporary, blocks(), self.layout, shard)
            if not publish(temporary, target):  # another writer was first
                digests = shard_digests(target, self.layout, shard)
        finally:
            temporary.unlink(missing_ok=True)
        start, stop = self.layout.bounds(shard)
        entry = {
            "shard": shard,
            "rows": [start, stop],
            "bytes": self.layout.shard_bytes(shard),
            "blake3": digests.file,
            "chunks": list(digests.chunks),
            "unreadable": unreadable,
            "seconds": round(seconds, 3),
            **record,
        }
        write_once(self._done_path(shard), json_bytes(entry))
        spool.remove()

    def sample(self, n: int) -> tuple[NDArray[np.intp], NDArray[np.floating]]:
        """Return up to `n` stored readable rows of one shard with their features."""
        for shard, record in self.done().items():
            start, stop = self.layout.bounds(shard)
            bad = {int(row) for row in record["unreadable"]}
            rows = [row for row in range(start, min(stop, start + n)) if row not in bad]
            if rows:
                mapped = MappedShard(
                    self.path / "features" / self.layout.shard_path(shard), self.layout, shard
                )
                out = np.empty((len(rows), *self.layout.row_shape), self.layout.dtype)
                mapped.take(np.asarray(rows) - start, out)
                return np.asarray(rows), out
        for path in sorted((self.work / "spool").glob("*.bin")):
            for batch in read_batches(path, self.layout, int(path.stem)):
                keep = [r for r in range(batch.start, batch.stop) if r not in batch.unreadable][:n]
                if keep:
                    return np.asarray(keep), batch.features[np.asarray(keep) - batch.start]
        return np.empty(0, np.intp), np.empty((0, *self.layout.row_shape), self.layout.dtype)

    def remember(
        self,
        *,
        labels: NDArray[np.int64],
        ids: NDArray[np.str_],
        class_names: tuple[str, ...],
        facts: Mapping[str, Json],
    ) -> None:
        """Keep what sealing needs beside the shards, unless it is kept."""
        if self.is_sealed or (self.work / "rows").exists():
            return
        status = np.zeros(self.layout.rows, np.uint8)
        arrays = SmallArrays(
            labels=labels, class_names=class_names, ids=ids, status=status, reasons={}
        )
        staging = temporary_path(self.work)
        try:
            write_once(self.work / "facts.json", json_bytes(dict(facts)))
            write_arrays(staging, arrays)
            staging.rename(self.work / "rows")
        except OSError as error:
            if error.errno not in {errno.EEXIST, errno.ENOTEMPTY} and not self.is_sealed:
                raise  # else another process was first
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def adopt_shard(self, shard: int, source: Path, record: Mapping[str, Json]) -> None:
        """Publish a copy of a shard that was extracted elsewhere; one that is there is kept.

        Args:
            shard: Its index, claimed by the caller.
            source: The file.
            record: Its done record where it comes from.

        Raises:
            CorruptError: If the file is damaged.
        """
        target = self.path / "features" / self.layout.shard_path(shard)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_path(self.work)
        try:
            shutil.copyfile(source, temporary)
            sync_file(temporary)
            shard_digests(temporary, self.layout, shard)  # raises before anybody sees it
            publish(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
        digests = shard_digests(target, self.layout, shard)
        entry = {**record, "blake3": digests.file, "chunks": list(digests.chunks)}
        write_once(self._done_path(shard), json_bytes(entry))

    def seal(
        self,
        *,
        labels: NDArray[np.int64],
        ids: NDArray[np.str_],
        class_names: tuple[str, ...],
        provenance: Mapping[str, Json],
        decoder: NDArray[np.float32] | None = None,
    ) -> Owner | None:
        """Write labels, ids, ledger, decoder of codes and manifest, and remove the work directory.

        Returns:
            None when the set is sealed; the process that is sealing it right now otherwise.

        Raises:
            StoreError: If a shard is missing, or if no row at all is readable.
        """
        if not self.is_sealed:
            try:
                claim = try_claim(self.work / "claims" / "seal.json")
                if isinstance(claim, Owner):
                    return claim
                try:
                    if not self.is_sealed:  # the claim's last owner may have sealed it just now
                        self._seal(labels, ids, class_names, provenance, decoder)
                except BaseException:
                    claim.release()
                    raise
            except FileNotFoundError:  # another process sealed it and removed the work directory
                if not self.is_sealed:
                    raise
        shutil.rmtree(self.work, ignore_errors=True)
        return None

    def _seal(
        self,
        labels: NDArray[np.int64],
        ids: NDArray[np.str_],
        class_names: tuple[str, ...],
        provenance: Mapping[str, Json],
        decoder: NDArray[np.float32] | None,
    ) -> None:
        done = self.done()
        if missing := sorted(set(range(self.layout.n_shards)) - done.keys()):
            raise StoreError(f"All shards must be done before sealing; missing: {missing[:10]}.")
        reasons = {int(r): why for one in done.values() for r, why in one["unreadable"].items()}
        if len(reasons) == self.layout.rows:
            raise StoreError(
                f"At least one row must be readable; of {self.path} none is: {reasons[0]} (row 0). "
                "Check the images, then run the same command again."
            )
        status = np.full(self.layout.rows, OK, np.uint8)
        status[list(reasons)] = UNREADABLE
        arrays = SmallArrays(
            labels=labels,
            class_names=class_names,
            ids=ids,
            status=status,
            reasons=reasons,
            decoder=decoder,
        )
        self._place_arrays(arrays)
        shards = [done[shard]["blake3"] for shard in range(self.layout.n_shards)]
        digests = {
            f"features/{self.layout.shard_path(shard)}": ShardDigests(
                file=one["blake3"], chunks=tuple(one["chunks"])
            )
            for shard, one in done.items()
        }
        sealed = {
            "rows": self.layout.rows,
            "readable": self.layout.rows - len(reasons),
            "digest": content_digest(self.spec, self.layout, shards, arrays),
            "files": list_files(self.path, digests),
        }
        metadata = group_metadata(self.spec, provenance=provenance, sealed=sealed)
        if self.is_sealed:  # by another process, which took this one for dead
            return
        write_replacing(self.path / GROUP_FILE, json_bytes(metadata), staging=self.work)

    def _place_arrays(self, arrays: SmallArrays) -> None:
        """Move the arrays to their places; one that is there and right is never taken away."""
        staging = temporary_path(self.work)
        write_arrays(staging, arrays)
        digests: dict[str, dict[str, str]] = {path.name: {} for path in staging.iterdir()}
        for name, files in digests.items():
            for file in (staging / name).rglob("*"):
                if file.is_file():
                    sync_file(file)
                    files[file.relative_to(staging).as_posix()] = blake3_file(file)
        for name, files in digests.items():
            try:
                (staging / name).rename(self.path / name)
            except OSError as error:
                if error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:
                    raise
                if not all(_is_file(self.path / file, digest) for file, digest in files.items()):
                    shutil.rmtree(self.path / name)
                    (staging / name).rename(self.path / name)
        shutil.rmtree(staging)


def read_remembered(work: Path, rows: int) -> tuple[SmallArrays, dict[str, Json]] | None:
    """Return labels, ids and facts that a set's work directory keeps; None if it does not.

    Raises:
        CorruptError: If they are damaged.
    """
    if not (work / "rows").exists():
        return None
    return read_arrays(work / "rows", rows), dict(read_json(work / "facts.json"))


def cost_of(done: Iterable[Mapping[str, Any]]) -> dict[str, Json]:
    """Return what the shards of a set took, for its provenance, from their done records."""
    shards = [{name: one[name] for name in ("rows", "seconds", "environment")} for one in done]
    seconds = sum(float(one["seconds"]) for one in shards)
    return {"extraction_seconds": round(seconds, 3), "shards": shards}


def _is_file(path: Path, digest: str) -> bool:
    return path.is_file() and blake3_file(path) == digest
