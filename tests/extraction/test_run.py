import errno
import os
import threading

import numpy as np
import pytest
import torch

from featcache.errors import BackboneError, ExtractionError, OptionError, StoreError
from featcache.extraction import run as run_module
from featcache.extraction.loader import default_workers
from featcache.store import claims, spool, writer
from featcache.store.claims import Owner
from featcache.store.verify import verify
from tests.fakes import FakeBackbone, Notes, fake_split, fill, specs_for


class Stop(Exception):  # noqa: N818
    """Stands for anything that ends a run."""


def stop_after(n):
    seen = [0]

    def hook(_images):
        seen[0] += 1
        if seen[0] > n:
            raise Stop

    return hook


def expected(split, dim=8):
    backbone = FakeBackbone(dim=dim)
    images = torch.stack([backbone.transform(split.images.read(i)) for i in range(len(split))])
    return backbone.embed(images, ["pooled"])["pooled"].numpy()


def test_features_are_those_of_the_network_row_by_row(cache, small_chunks):
    split = fake_split(300)
    one = fill(cache, split)[0]
    np.testing.assert_allclose(one.features(), expected(split), rtol=2e-3, atol=2e-3)
    assert one.ids.tolist() == list(split.ids)


def test_worker_processes_give_the_same_bytes_as_none(tmp_path, cache):
    split = fake_split(100, broken=[5])
    other = type(cache)(tmp_path / "other")
    assert fill(cache, split)[0].digest == fill(other, split, workers=2)[0].digest


def test_a_second_run_computes_nothing(cache):
    split = fake_split(50)
    fill(cache, split)
    fill(cache, split, FakeBackbone(hook=stop_after(0)))


def test_several_taps_come_from_one_pass(cache, small_chunks):
    split, calls = fake_split(320), []
    sets = fill(cache, split, FakeBackbone(hook=calls.append), ["pooled", "wide"])
    assert len(calls) == 20
    np.testing.assert_array_equal(sets[1].features()[:, :8], sets[0].features())
    assert [verify(one.path) for one in sets] == [[], []]


@pytest.mark.parametrize("taps", [["pooled"], ["pooled", "wide"]])
def test_a_run_stopped_anywhere_resumes_to_the_same_digest(tmp_path, cache, small_chunks, taps):
    split = fake_split(500, broken=[100])
    whole = [one.digest for one in fill(cache, split, taps=taps)]
    for after in (1, 7, 16, 20, 31):
        other = type(cache)(tmp_path / f"stopped-{after}")
        notes = Notes()
        with pytest.raises(Stop):
            fill(other, split, FakeBackbone(hook=stop_after(after)), taps)
        resumed = fill(other, split, taps=taps, notes=notes)
        assert [one.digest for one in resumed] == whole
        assert notes.said == [f"fake/train: resuming, {after * 16} of 500 rows are kept"]
        assert not list(other.root.rglob("*.work"))
        assert not list(other.root.rglob(".tmp-*"))


def test_a_resumed_set_keeps_its_batch_size(cache):
    split = fake_split(200)
    with pytest.raises(Stop):
        fill(cache, split, FakeBackbone(hook=stop_after(3)), batch_size=16)
    sizes = []
    fill(cache, split, FakeBackbone(hook=lambda x: sizes.append(len(x))), batch_size=None)
    assert max(sizes[1:]) == 16  # the first call re-embeds the canaries


def test_other_weights_under_the_same_name_are_refused_on_resume(cache, monkeypatch):
    split = fake_split(200)
    with pytest.raises(Stop):
        fill(cache, split, FakeBackbone(hook=stop_after(3)))
    liar = FakeBackbone(seed=1)
    monkeypatch.setattr(type(liar), "identity", FakeBackbone(seed=0).identity)
    with pytest.raises(ExtractionError, match=r"must be computed alike; row \d+ .* now has cosine"):
        fill(cache, split, liar)


def test_memory_running_out_halves_the_batch(cache):
    sizes = []

    def hook(images):
        sizes.append(len(images))
        if len(images) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    split = fake_split(64)
    one = fill(cache, split, FakeBackbone(hook=hook), batch_size=32)[0]
    assert sizes[:4] == [32, 16, 8, 4]
    assert max(sizes[4:]) == 4
    np.testing.assert_allclose(one.features(), expected(split), rtol=2e-3, atol=2e-3)


def test_one_image_too_large_for_memory_is_a_clear_error(cache):
    def hook(_images):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 99 bytes")

    with pytest.raises(ExtractionError, match="One image must fit into memory"):
        fill(cache, fake_split(10), FakeBackbone(hook=hook))


def test_other_errors_of_the_network_are_not_swallowed(cache):
    def hook(_images):
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        fill(cache, fake_split(10), FakeBackbone(hook=hook))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), r"row 17 of tap 'pooled' has nan. Check the weights"),
        (float("inf"), r"row 17 of tap 'pooled' has inf. Check the weights"),
        (70000.0, r"row 17 of tap 'pooled' has 70000. Store float32 with --stored float32"),
    ],
)
def test_what_float16_cannot_hold_is_never_stored_silently(cache, monkeypatch, value, message):
    class Bad(FakeBackbone):
        def embed(self, images, taps):
            out = super().embed(images, taps)
            if not hasattr(self, "first"):
                self.first = True
            else:
                out["pooled"][1, 0] = value
            return out

    with pytest.raises(ExtractionError, match=message):
        fill(cache, fake_split(40), Bad())


def test_float32_holds_large_features(cache):
    class Large(FakeBackbone):
        def embed(self, images, taps):
            return {tap: 1e6 + one for tap, one in super().embed(images, taps).items()}

    one = fill(cache, fake_split(40), Large(), stored="float32")[0]
    assert one.features().dtype == np.float32
    assert one.features().min() > 9e5


def test_a_tap_of_another_shape_than_declared_is_refused(cache):
    class Wrong(FakeBackbone):
        @property
        def taps(self):
            return {"pooled": (9,)}

    with pytest.raises(BackboneError, match=r"tap 'pooled' in shape \(16, 9\); got \(16, 8\)"):
        fill(cache, fake_split(40), Wrong())


def test_a_device_that_is_not_there_is_refused(cache):
    with pytest.raises(OptionError, match="`device` must be usable.*'cuda:99' is not"):
        run_module.resolve_device("cuda:99")


@pytest.mark.parametrize("failing", ["begin", "spool", "shard", "seal"])
def test_a_full_disk_is_one_message_and_nothing_is_lost(cache, monkeypatch, failing):
    full = OSError(errno.ENOSPC, "No space left on device")

    def fail(*_args, **_kwargs):
        raise full

    split = fake_split(100)
    with monkeypatch.context() as broken:
        if failing == "spool":
            broken.setattr(spool.Spool, "_write", fail)
        elif failing == "shard":
            broken.setattr(writer, "write_shard", fail)
        else:
            target = "write_arrays" if failing == "begin" else "list_files"
            broken.setattr(writer, target, fail)
        with pytest.raises(StoreError, match="The disk is full: free some space.*it resumes"):
            fill(cache, split)
    notes = Notes()
    assert verify(fill(cache, split, notes=notes)[0].path) == []
    assert notes.said == (
        [] if failing in {"begin", "spool"} else ["fake/train: resuming, 100 of 100 rows are kept"]
    )


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_a_read_only_cache_is_one_message(cache, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(StoreError, match="must be writable.*--cache or FEATCACHE_CACHE"):
        fill(cache, fake_split(10))


def test_a_cache_below_a_file_is_one_message(cache):
    cache.root.parent.mkdir(exist_ok=True)
    cache.root.write_text("a file")
    with pytest.raises(StoreError, match="Could not create the cache"):
        fill(cache, fake_split(10))


def test_work_of_a_living_process_is_waited_for(cache, monkeypatch, small_chunks):
    split, backbone = fake_split(300), FakeBackbone()
    spec = specs_for(split, backbone)[0]
    made = writer.SetWriter(cache.path_of(spec), spec, (8,))
    path = made.work / "claims" / "0.json"
    other = Owner(host="elsewhere", pid=7, started="1")
    path.write_text('{"host": "elsewhere", "pid": 7, "started": "1"}')
    threading.Timer(0.8, path.unlink).start()
    notes = Notes()
    assert verify(fill(cache, split, backbone, notes=notes)[0].path) == []
    assert notes.said == [f"waiting for {other}, which extracts the remaining rows"]


def test_a_dead_process_elsewhere_does_not_hold_up_the_work(cache, monkeypatch):
    monkeypatch.setattr(claims, "EXPIRY_S", -1.0)
    split, backbone = fake_split(30), FakeBackbone()
    spec = specs_for(split, backbone)[0]
    made = writer.SetWriter(cache.path_of(spec), spec, (8,))
    (made.work / "claims" / "0.json").write_text('{"host": "gone", "pid": 7, "started": "1"}')
    assert verify(fill(cache, split, backbone)[0].path) == []


def test_images_no_transform_can_scale_become_ledger_rows(cache):
    split = fake_split(20)
    wide = np.zeros((20, 1, 1000, 3), np.uint8)
    object.__setattr__(split, "images", type(split.images)(wide))
    with pytest.raises(StoreError, match="At least one row must be readable"):
        fill(cache, split)


def test_a_cpu_decodes_between_batches_unless_decoding_is_dear():
    assert default_workers("cpu", decode_s=0.01, embed_s=0.2) == 0
    assert default_workers("cpu", decode_s=0.2, embed_s=0.2) >= 1
    assert default_workers("cuda", decode_s=0.01, embed_s=0.2) >= 1


def test_workers_are_chosen_by_a_trial_without_changing_the_features(tmp_path, cache):
    split = fake_split(64)
    other = type(cache)(tmp_path / "other")
    assert fill(cache, split, workers=None)[0].digest == fill(other, split)[0].digest
