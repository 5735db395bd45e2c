"""Fill the feature sets of one split: every tap in one pass over the images.

Work is cut into units of whole shards. A unit is claimed, its batches are embedded and spooled,
its shards are published; several processes on one cache share the units among them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack

import numpy as np

from featcache.backbone import Backbone
from featcache.datasets.dataset import Split
from featcache.digest import Json
from featcache.errors import ExtractionError, StoreError
from featcache.extraction.embedding import Embedder, resolve_device
from featcache.extraction.loader import Images, default_workers, load_images
from featcache.extraction.options import Options
from featcache.extraction.progress import Progress
from featcache.extraction.provenance import environment
from featcache.spec import ExtractionSpec
from featcache.store.cache import Cache
from featcache.store.claims import Claim, Owner
from featcache.store.equivalence import compare_rows
from featcache.store.files import disk_errors, json_bytes, read_json, write_once
from featcache.store.spool import Batch, Spool
from featcache.store.writer import SetWriter, cost_of

CANARIES = 64
CANARY_COSINE = 0.999
"""Between two GPUs or batch sizes, float16 features agree beyond this; other weights do not."""
_POLL_S = 0.5


class Extraction:
    """One pass over one split for the taps that are not sealed yet."""

    def __init__(
        self,
        cache: Cache,
        split: Split,
        backbone: Backbone,
        specs: Sequence[ExtractionSpec],
        options: Options,
        progress: Progress,
    ) -> None:
        """Open or create the feature set of each spec; one spec per tap."""
        self._split, self._backbone, self._options = split, backbone, options
        self._progress, self._specs = progress, specs
        self._device = resolve_device(options.device)
        self._workers = options.workers or 0
        self._embedder = Embedder(backbone, [spec.tap for spec in specs], self._device)
        cache.create()
        with disk_errors(cache.root, "create a feature set in"):
            self._writers = [
                SetWriter(cache.path_of(spec), spec, tuple(backbone.taps[spec.tap]))
                for spec in specs
            ]
        self.computed = 0
        self._batch_size = 1

    def run(
        self, extra: Mapping[str, Json], *, is_unchanged: Callable[[], bool] = lambda: True
    ) -> None:
        """Embed what is missing, wait for what others embed, and seal.

        Args:
            extra: Facts for the provenance beside those of the environment.
            is_unchanged: Tells, before sealing, whether the images are still those of the key.

        Raises:
            ExtractionError: If it cannot go on; what was done is kept.
            StoreError: If the disk refuses.
        """
        name = f"{self._split.dataset}/{self._split.name}"
        try:
            stored = min(writer.stored_rows() for writer in self._writers)
            self._batch_size = self._choose_batch_size()
            self._progress.start(name, len(self._split), stored)
            if stored > 0:
                self._progress.note(
                    f"{name}: resuming, {stored} of {len(self._split)} rows are kept"
                )
            self._prove_canaries()
            self._remember(extra)
            if self._options.workers is None:
                self._workers = self._choose_workers()
            self._fill()
            if not is_unchanged():
                for writer in self._writers:
                    writer.discard()
                raise ExtractionError(
                    f"Images must not change while they are embedded; some of {name} did. Run the "
                    "same command again: it names and embeds them as they are now."
                )
            self._seal(extra)
        except (StoreError, FileNotFoundError):
            # another process may have sealed the sets just now and removed their work directories
            if not all(writer.is_sealed for writer in self._writers):
                raise
        finally:
            self._progress.stop()

    def _remember(self, extra: Mapping[str, Json]) -> None:
        """Keep what sealing needs, so that caches can be merged where no images are."""
        facts = {**extra, "batch_size": self._batch_size, "dataset": dict(self._split.facts)}
        for writer in self._writers:
            with disk_errors(writer.work, "write"):
                writer.remember(
                    labels=self._split.labels,
                    ids=np.array(self._split.ids, np.str_),
                    class_names=self._split.class_names,
                    facts=facts,
                )

    def _choose_batch_size(self) -> int:
        """Return the batch size; a resumed set keeps the one it was begun with.

        Features differ in their last bits between batch sizes, so one set should have one.
        """
        for writer in self._writers:
            plan = writer.work / "plan.json"
            if self._options.batch_size is None and plan.exists():
                return int(read_json(plan)["batch_size"])
        size = self._options.batch_size or self._embedder.find_batch_size()
        for writer in self._writers:
            if writer.work.exists():
                with disk_errors(writer.work, "write"):
                    write_once(writer.work / "plan.json", json_bytes({"batch_size": size}))
        return size

    def _choose_workers(self) -> int:
        """Return how many decoding processes suit this network and these images."""
        if self._device != "cpu":
            return default_workers(self._device, decode_s=0, embed_s=0)
        began = time.perf_counter()
        images = next(self._load([(0, min(self._batch_size, len(self._split)))]))
        decoded = time.perf_counter()
        self._embedder.warm_up(images)
        warm = time.perf_counter()
        self._embedder.warm_up(images)
        embed_s = time.perf_counter() - warm
        return default_workers(self._device, decode_s=decoded - began, embed_s=embed_s)

    def _prove_canaries(self) -> None:
        """Re-embed some stored rows; refuse to mix what this machine computes otherwise."""
        for writer, spec in zip(self._writers, self._specs, strict=True):
            if writer.is_sealed:
                continue
            rows, stored = writer.sample(CANARIES)
            if not len(rows):
                continue
            first = int(rows[0])
            images = next(self._load([(first, int(rows[-1]) + 1)]))
            again = self._embedder.embed(images, spec.numerics.stored)[spec.tap][rows - first]
            found = compare_rows(again, stored)
            if found.cosine < CANARY_COSINE:
                row = int(rows[found.worst])
                raise ExtractionError(
                    f"A resumed set must be computed alike; row {row} of {writer.path} now has "
                    f"cosine {found.cosine:.4f} to what is stored (at least {CANARY_COSINE}). "
                    "Compare the library versions, or delete the set and its .work directory."
                )

    def _fill(self) -> None:
        """Process every unit that is free, again and again until none is missing."""
        told: set[Owner] = set()
        while True:
            busy: set[Owner] = set()
            for unit in self._units():
                if owner := self._try_unit(unit):
                    busy.add(owner)
            if not busy:
                return
            for owner in busy - told:
                self._progress.note(f"waiting for {owner}, which extracts the remaining rows")
            told |= busy
            time.sleep(_POLL_S)

    def _units(self) -> Iterator[range]:
        """Yield row ranges that are whole shards in every set."""
        size = max(writer.layout.shard_rows for writer in self._writers)
        rows = len(self._split)
        for start in range(0, rows, size):
            yield range(start, min(start + size, rows))

    def _try_unit(self, unit: range) -> Owner | None:
        """Process one unit, unless it is done or another process has it."""
        with ExitStack() as held:
            claims: list[Claim] = []
            open_shards: list[tuple[SetWriter, int, Spool]] = []
            for writer in self._writers:
                rows = writer.layout.shard_rows
                for shard in range(unit.start // rows, -(-unit.stop // rows)):
                    if writer.is_done(shard):
                        continue
                    with disk_errors(writer.work, "claim work in"):
                        try:
                            claim = writer.claim(shard)
                        except FileNotFoundError:  # sealed by another process just now
                            continue
                    if isinstance(claim, Owner):
                        return claim
                    held.callback(claim.release)
                    if writer.is_done(shard):
                        continue
                    with disk_errors(writer.work, "open the spool in"):
                        spool = writer.open_spool(shard)
                    held.callback(spool.close)
                    claims.append(claim)
                    open_shards.append((writer, shard, spool))
            if open_shards:
                self._process(unit, claims, open_shards)
        return None

    def _process(
        self, unit: range, claims: list[Claim], shards: list[tuple[SetWriter, int, Spool]]
    ) -> None:
        """Embed the rows of a unit that its spools lack; publish each shard when it is full."""
        first = min(
            (spool.next_row for _, _, spool in shards if not spool.is_complete), default=unit.stop
        )
        aligned = unit.start + (first - unit.start) // self._batch_size * self._batch_size
        self._publish(shards)
        began = time.perf_counter()
        for images in self._load(self._ranges(aligned, unit.stop)):
            features = self._embedder.embed(images, self._specs[0].numerics.stored)
            now = time.perf_counter()
            seconds, began = now - began, now
            for writer, _, spool in shards:
                with disk_errors(writer.work, "write features to"):
                    spool.append(
                        Batch(
                            start=images.start,
                            features=features[writer.spec.tap],
                            unreadable=images.unreadable,
                            seconds=round(seconds / len(self._specs), 4),
                        )
                    )
            self._publish(shards)
            for claim in claims:
                claim.keep_alive()
            new = images.start + len(images.pixels) - max(first, images.start)
            self.computed += new
            self._progress.advance(new)

    def _publish(self, shards: list[tuple[SetWriter, int, Spool]]) -> None:
        """Publish the complete spools and take them off the list."""
        for item in [one for one in shards if one[2].is_complete]:
            writer, shard, spool = item
            record = {"batch_size": self._batch_size, "environment": environment(self._device)}
            with disk_errors(writer.path, "publish a shard of"):
                writer.finish_shard(shard, spool, record)
            shards.remove(item)

    def _ranges(self, start: int, stop: int) -> list[tuple[int, int]]:
        size = self._batch_size
        return [(row, min(row + size, stop)) for row in range(start, stop, size)]

    def _load(self, ranges: list[tuple[int, int]]) -> Iterator[Images]:
        return load_images(
            self._split.images,
            self._backbone.transform,
            ranges,
            workers=self._workers,
            pin_memory=self._device.startswith("cuda"),
        )

    def _seal(self, extra: Mapping[str, Json]) -> None:
        for writer in self._writers:
            try:
                done = list(writer.done().values())
            except FileNotFoundError:  # sealed by another process just now
                continue
            provenance = {
                **extra,
                "environment": environment(self._device),
                "batch_size": self._batch_size,
                "workers": self._workers,
                **cost_of(done),
                "dataset": dict(self._split.facts),
            }
            while True:
                with disk_errors(writer.path, "seal"):
                    owner = writer.seal(
                        labels=self._split.labels,
                        ids=np.array(self._split.ids, np.str_),
                        class_names=self._split.class_names,
                        provenance=provenance,
                    )
                if owner is None:
                    break
                time.sleep(_POLL_S)
