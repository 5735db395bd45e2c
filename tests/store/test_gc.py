import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from featcache.cli.app import app
from featcache.errors import OptionError, StoreError
from featcache.store import claims, gc
from featcache.store.cache import Cache
from featcache.store.claims import try_claim
from featcache.store.feature_set import FeatureSet
from featcache.store.files import has_living_writer, temporary_path
from featcache.store.gc import FRESH_S, collect, plan
from featcache.store.verify import verify
from tests.fakes import FakeBackbone, fake_split, fill

DAY_S = 86400.0
NOW = time.time()


class Stop(Exception):  # noqa: N818
    pass


def interrupted(cache, *, after=2, name="train"):
    """Leave an unsealed set behind, with no row if `after` is 0; return its path."""
    seen = []

    def hook(_images):
        if len(seen) == after:
            raise Stop
        seen.append(1)

    split = fake_split(100, name=name)
    with pytest.raises(Stop):
        fill(cache, split, FakeBackbone(hook=hook))
    return cache.paths(f"fake/{name}/*")[0]


def age(path, seconds):
    """Make everything at and below `path` that old."""
    for one in (*path.rglob("*"), path):
        os.utime(one, (NOW - seconds, NOW - seconds))


def name_of_the_dead(directory):
    """Return a temporary name that a process made which has ended."""
    code = (
        "import pathlib, sys; from featcache.store.files import temporary_path\n"
        "print(temporary_path(pathlib.Path(sys.argv[1])))"
    )
    command = [sys.executable, "-c", code, str(directory)]
    return Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())


def kinds(found):
    return [one.kind for one in found]


def test_a_tidy_cache_has_nothing_to_remove(cache):
    fill(cache, fake_split(50))
    assert plan(cache, now=NOW + 365 * DAY_S) == []


def test_planning_changes_nothing_and_collecting_removes_what_was_planned(cache):
    path = fill(cache, fake_split(50))[0].path
    dead = name_of_the_dead(path.parent)
    dead.write_bytes(b"12345")
    found = plan(cache, now=NOW)
    assert [(one.path, one.bytes, one.why) for one in found] == [(dead, 5, "its process has ended")]
    assert dead.exists()
    assert collect(found) == found
    assert not dead.exists()
    assert verify(path) == []


def test_a_temporary_file_of_a_living_process_stays_whatever_its_age(cache):
    fill(cache, fake_split(50))
    mine = temporary_path(cache.root / "features")
    mine.touch()
    assert has_living_writer(mine)
    assert plan(cache, now=NOW + 365 * DAY_S) == []


@pytest.mark.parametrize("name", [".tmp-1-1-00000000-" + "0" * 32, ".tmp-1-" + "0" * 32, ".tmp-x"])
def test_a_temporary_file_from_elsewhere_stays_for_an_hour(cache, name):
    fill(cache, fake_split(50))
    foreign = cache.root / "features" / name
    foreign.touch()
    age(foreign, FRESH_S / 2)
    assert plan(cache, now=NOW) == []
    assert kinds(plan(cache, now=NOW + FRESH_S)) == ["temporary"]


def test_a_process_id_that_was_used_again_does_not_keep_a_temporary_file(cache):
    fill(cache, fake_split(50))
    mine = temporary_path(cache.root / "features").name.split("-")
    mine[2] = "1"
    (cache.root / "features" / "-".join(mine)).touch()
    assert kinds(plan(cache, now=NOW)) == ["temporary"]


def test_a_temporary_directory_goes_with_all_in_it(cache):
    fill(cache, fake_split(50))
    dead = name_of_the_dead(cache.root / "features")
    (dead / "labels").mkdir(parents=True)
    (dead / "labels" / ".tmp-x").write_bytes(b"123")
    found = plan(cache, now=NOW)
    assert [(one.path, one.bytes) for one in found] == [(dead, 3)]
    collect(found)
    assert not dead.exists()


def test_the_work_directory_of_a_sealed_set_goes(cache):
    path = fill(cache, fake_split(50))[0].path
    work = path.with_suffix(".work")
    (work / "claims").mkdir(parents=True)
    name_of_the_dead(work).write_bytes(b"1")
    found = plan(cache, now=NOW)
    assert [(one.path, one.kind) for one in found] == [(work, "work")]
    collect(found)
    assert not work.exists()
    assert verify(path) == []


def test_an_unsealed_set_with_rows_stays_until_an_age_is_given(cache):
    path = interrupted(cache)
    age(cache.root, 10 * DAY_S)
    assert plan(cache, now=NOW) == []
    assert plan(cache, older_than_s=11 * DAY_S, now=NOW) == []
    found = plan(cache, older_than_s=9 * DAY_S, now=NOW)
    assert [one.path for one in found] == [path.with_suffix(".work"), path]
    assert found[0].why == "never completed, untouched for 10 days"
    collect(found)
    assert cache.paths() == []
    assert verify(fill(cache, fake_split(100))[0].path) == []


def test_an_unsealed_set_without_a_row_goes_after_an_hour(cache):
    interrupted(cache, after=0)
    assert plan(cache, now=NOW) == []
    found = plan(cache, now=NOW + 2 * FRESH_S)
    assert {one.why for one in found} == {"has no row yet"}
    collect(found)
    assert not [one for one in cache.root.rglob("*") if "fake" in one.name and one.suffix]


def test_a_work_directory_without_its_set_is_an_unsealed_set(cache):
    work = cache.folder("fake", "train", "fake") / "pooled-0.work"
    (work / "spool").mkdir(parents=True)
    (work / "spool" / "0.bin").write_bytes(b"rows")
    assert plan(cache, now=NOW + 2 * FRESH_S) == []
    assert kinds(plan(cache, older_than_s=DAY_S, now=NOW + 2 * DAY_S)) == ["unsealed"]


def test_a_fit_goes_when_it_was_not_used_for_the_age_given(cache):
    from featcache.fit_store import Fit, FitQuestion, FitStore

    store = FitStore(cache.root)
    asked = FitQuestion(task="ood", backbone="fake", inputs={}, options={}, seed=0)
    store.save(asked, Fit(details={"is": "there"}))
    age(cache.root, 10 * DAY_S)
    assert plan(cache, now=NOW) == plan(cache, older_than_s=11 * DAY_S, now=NOW) == []
    found = plan(cache, older_than_s=9 * DAY_S, now=NOW)
    assert [(one.path, one.kind) for one in found] == [(store.path_of(asked), "fit")]
    assert store.find(asked).details  # a use
    assert collect(found) == []
    age(cache.root, 10 * DAY_S)
    assert len(collect(plan(cache, older_than_s=9 * DAY_S, now=NOW))) == 1
    assert store.find(asked) == Fit()


@pytest.mark.parametrize("claimed", ["0.json", "seal.json"])
def test_what_a_living_process_has_claimed_stays(cache, claimed):
    path = interrupted(cache)
    claim = try_claim(path.with_suffix(".work") / "claims" / claimed)
    assert plan(cache, older_than_s=0, max_bytes=0, now=NOW + 365 * DAY_S) == []
    claim.release()
    assert len(plan(cache, older_than_s=0, now=NOW + 365 * DAY_S)) == 2


def test_a_claim_on_another_host_holds_until_it_expires(cache):
    path = interrupted(cache)
    claim = path.with_suffix(".work") / "claims" / "0.json"
    claim.write_text(json.dumps({"host": "elsewhere", "pid": 1, "started": "1"}))
    assert plan(cache, older_than_s=0, now=NOW + DAY_S) == []
    age(claim, 2 * claims.EXPIRY_S)
    assert len(plan(cache, older_than_s=0, now=NOW + DAY_S)) == 2


def test_what_was_taken_up_after_the_plan_stays(cache):
    path = interrupted(cache)
    found = plan(cache, older_than_s=0, now=NOW + DAY_S)
    claim = try_claim(path.with_suffix(".work") / "claims" / "0.json")
    assert collect(found) == []
    claim.release()
    (path.with_suffix(".work") / "spool" / "0.bin").touch()
    assert collect(found) == []
    fill(cache, fake_split(100))
    assert collect(found) == []
    assert verify(path) == []


def pull_staging(cache):
    staging = cache.root / "incoming" / "0123456789abcdef" / "pooled-0.zarr"
    staging.mkdir(parents=True)
    (staging / "zarr.json").write_text("{}")
    return staging


def test_a_pull_that_was_given_up_goes_after_an_hour(cache):
    staging = pull_staging(cache)
    assert plan(cache, now=NOW) == []
    found = plan(cache, now=NOW + 2 * FRESH_S)
    assert [(one.path, one.kind) for one in found] == [(staging.parent, "incoming")]
    temporary_path(staging).touch()  # a living process goes on with it
    assert plan(cache, now=NOW + 2 * FRESH_S) == []
    assert collect(found) == []


def test_chunks_in_nobodys_use_go_one_by_one(cache):
    chunks = cache.root / "chunks" / "ab"
    chunks.mkdir(parents=True)
    (chunks / "old").write_bytes(b"12")
    age(chunks, 2 * FRESH_S)
    (chunks / "new").write_bytes(b"12")
    assert [one.path for one in plan(cache, now=NOW)] == [chunks / "old"]
    assert plan(cache, older_than_s=DAY_S, now=NOW) == []


def sealed_sets(cache):
    """Fill three sets that were last used three, two and one days ago."""
    sets = [fill(cache, fake_split(50, name=name))[0] for name in ("a", "b", "c")]
    for days, one in zip((3, 2, 1), sets, strict=True):
        os.utime(one.path, (NOW - days * DAY_S, NOW - days * DAY_S))
    return [one.path for one in sets]


def test_sealed_sets_go_when_they_were_not_used_for_long(cache):
    a, _, c = sealed_sets(cache)
    found = plan(cache, older_than_s=1.5 * DAY_S, now=NOW)
    assert kinds(found) == ["sealed", "sealed"]
    assert found[0].path == a
    assert found[0].why == "unused for 3 days"
    collect(found)
    assert cache.paths() == [c]


def test_reading_features_counts_as_use_and_looking_does_not(cache):
    a, b, _ = sealed_sets(cache)
    FeatureSet(a).features([0])
    list(cache.stored())
    verify(b)
    assert [one.path for one in plan(cache, older_than_s=1.5 * DAY_S, now=NOW)] == [b]


def test_the_least_recently_used_sets_go_until_the_rest_fits(cache):
    paths = sealed_sets(cache)
    total = gc.used_bytes(cache)
    assert plan(cache, max_bytes=total, now=NOW) == []
    last = sum(file.stat().st_size for file in paths[2].rglob("*") if file.is_file())
    for limit, n in ((total - 1, 1), (last, 2), (last - 1, 3), (0, 3)):
        assert [one.path for one in plan(cache, max_bytes=limit, now=NOW)] == paths[:n]


def test_what_goes_anyway_counts_before_sealed_sets_do(cache):
    sealed_sets(cache)
    total = gc.used_bytes(cache)
    name_of_the_dead(cache.root / "features").write_bytes(b"1" * 1000)
    assert kinds(plan(cache, max_bytes=total, now=NOW)) == ["temporary"]


def test_a_set_that_was_read_after_the_plan_stays(cache):
    a = sealed_sets(cache)[0]
    found = plan(cache, max_bytes=0, now=NOW)
    FeatureSet(a).features([0])
    collect(found)
    assert cache.paths() == [a]


def test_results_and_strangers_are_never_removed(cache):
    fill(cache, fake_split(50))
    result, other = cache.root / "results" / "d" / "knn" / "r.json", cache.root / "mine" / ".tmp-1"
    for path in (result, other):
        path.parent.mkdir(parents=True)
        path.touch()
    collect(plan(cache, older_than_s=0, max_bytes=0, now=NOW + 365 * DAY_S))
    assert result.exists()
    assert other.exists()
    assert cache.paths() == []


def test_a_damaged_set_is_left_for_verify_to_name(cache):
    path = fill(cache, fake_split(50))[0].path
    (path / "zarr.json").write_text("{")
    assert plan(cache, older_than_s=0, max_bytes=0, now=NOW + 365 * DAY_S) == []


def test_links_are_not_followed(cache, tmp_path):
    fill(cache, fake_split(50))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / ".tmp-x").touch()
    (cache.root / "features" / "link").symlink_to(elsewhere)
    assert plan(cache, now=NOW + 365 * DAY_S) == []


@pytest.mark.parametrize(
    "limits", [{"older_than_s": -1}, {"older_than_s": float("nan")}, {"max_bytes": -1}]
)
def test_a_limit_that_is_none_is_refused(cache, limits):
    cache.create()
    with pytest.raises(OptionError, match=r"must be a number of at least 0; got .*\. Raise it"):
        plan(cache, **limits, now=NOW)


def test_a_place_without_a_cache_is_refused(tmp_path):
    with pytest.raises(OptionError, match=r"A cache must lie at .*; there is none\. Give the one"):
        plan(Cache(tmp_path / "typo"), now=NOW)


def test_what_cannot_be_removed_is_one_message(cache, monkeypatch):
    path = fill(cache, fake_split(50))[0].path
    name_of_the_dead(path.parent).touch()
    found = plan(cache, now=NOW)

    def refuse(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(StoreError, match="Could not remove .*Permission denied"):
        collect(found)


@pytest.fixture
def command(cache):
    def call(*words, code=0):
        out = CliRunner().invoke(app, ["cache", "gc", *words, "--cache", str(cache.root)])
        assert out.exit_code == code, (out.output, out.stderr)
        return out

    return call


def test_the_command_shows_first_and_removes_with_yes(cache, command):
    path = fill(cache, fake_split(50))[0].path
    dead = name_of_the_dead(path.parent)
    dead.write_bytes(b"1" * 2000)
    shown = command()
    assert "its process has ended" in shown.stdout
    assert "1 things, 2.0 kB would be freed" in shown.stdout
    assert "Remove them with: --yes" in shown.stderr
    assert dead.exists()
    done = json.loads(command("--yes", "--json").stdout)
    assert [one["path"] for one in done["items"]] == [str(dead)]
    assert done["removed"]
    assert not dead.exists()
    assert command().stdout.startswith("0 things")


def test_the_command_takes_days_and_sizes(cache, command):
    sealed_sets(cache)
    assert "unused for 3 days" in command("--older-than", "2.5").stdout
    assert command("--max-size", "1GiB").stdout.startswith("0 things")
    assert len(json.loads(command("--max-size", "0 kB", "--json").stdout)["items"]) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--older-than", "-1"], "`--older-than` must be a number of days of at least 0; got -1.0"),
        (["--max-size", "much"], "`--max-size` must be a number with B, kB, MB, GB or TB; got"),
        (["--max-size", "-5GB"], "Give for example --max-size 50GB"),
    ],
)
def test_bad_words_are_one_message(cache, command, words, message):
    cache.create()
    out = command(*words, code=2)
    assert message in out.stderr
    assert len(out.stderr.splitlines()) == 1
