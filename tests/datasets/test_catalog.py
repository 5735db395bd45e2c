"""What a user writes, and what it opens or is answered."""

import subprocess
import sys

import pytest

from featcache.datasets.catalog import DATASETS, dataset_name, entries, open_dataset
from featcache.datasets.dataset import Split
from featcache.datasets.recorded import Record, source_of
from featcache.datasets.source import LoadedDataset, Source
from featcache.errors import UnknownNameError
from featcache.registry import Entry, load_target
from tests.datasets.pictures import write
from tests.fakes import fake_split


def test_every_name_has_the_facts_that_a_list_shows():
    for name, entry in entries().items():
        assert entry.facts["description"], name
        if name in ("imagefolder", "csv", "hf", "torchvision", "wds"):
            continue
        assert set(entry.facts) >= {"description", "licence", "citation"}, name
        unlabelled = {"ood", "retrieval", "imagetext"}
        has_classes = not unlabelled >= set(entry.facts.get("tasks", ["linear"]))
        assert "classes" in entry.facts or not has_classes, name
        if "multilabel" in entry.facts.get("tasks", ()):
            chance = {"auroc": 0.5, "mean_average_precision": None}  # the latter: the frequencies
            assert entry.facts["chance"] == chance[entry.facts["metric"]]
        elif "classes" in entry.facts:
            assert entry.facts["chance"] == 1 / entry.facts["classes"]


def test_every_entry_loads_as_a_source():
    for name, entry in entries().items():
        if "reader" not in entry.facts:
            assert isinstance(DATASETS.load(name), Source)
            continue
        record = Record.of(name, entry.facts)
        assert isinstance(source_of(record), Source)
        assert callable(load_target(f"featcache.datasets.readers.{record.reader}:read")), name


def test_listing_and_naming_load_no_heavy_package():
    code = (
        "import sys; from featcache.datasets.catalog import DATASETS, dataset_name\n"
        "assert len(DATASETS.names()) > 20\n"
        "for s in ('digits', 'textures', 'csv:a.csv', 'imagefolder:a', 'hf:a/b', "
        "'torchvision:MNIST', 'fashion-mnist'): dataset_name(s)\n"
        "heavy = {'torch', 'torchvision', 'sklearn', 'skimage', 'datasets', 'pyarrow', 'pandas'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_built_ins_are_found_through_the_entry_point():
    assert "digits" in DATASETS
    assert "imagefolder" in DATASETS
    assert DATASETS.names("torchvision:CIFAR*") == ["torchvision:CIFAR10", "torchvision:CIFAR100"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("digist", r"'digist' is not a known dataset\. Did you mean 'digits'.*\? List them with"),
        ("imagefolders:x", r"Did you mean 'imagefolder'"),
        ("./photos", r"got the path './photos'\. Write imagefolder:./photos"),
        ("/data/photos?rows=3", r"Write imagefolder:/data/photos"),
        ("~/photos", r"Write imagefolder:~/photos"),
        ("C:\\photos", r"Write imagefolder:C:\\photos"),
        ("tables/birds.CSV", r"Write csv:tables/birds.CSV"),
        ("", "'' is not a known dataset"),
    ],
)
def test_what_is_not_known_is_answered_with_what_to_write(source, message):
    with pytest.raises(UnknownNameError, match=message):
        open_dataset(source)


def test_a_folder_in_the_working_directory_gives_the_hint_too(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownNameError, match="got the path 'photos'. Write imagefolder:photos"):
        open_dataset("photos")


def test_a_registered_name_wins_over_a_folder(tmp_path, monkeypatch):
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    assert open_dataset("digits").splits == ("train", "test")


@pytest.mark.parametrize("name", ["pets", "digits-300", "org-ants-small"])
def test_a_name_in_the_cache_names_itself(name):
    assert dataset_name(name) == name


def test_a_path_has_no_name():
    with pytest.raises(UnknownNameError, match="Write imagefolder:a/b"):
        dataset_name("a/b")


def test_paths_may_hold_spaces_unicode_colons_and_question_marks(tmp_path):
    folder = tmp_path / "a: b?c=d e" / "ünï@x"
    write(folder / "cat" / "1.png")
    data = open_dataset(f"imagefolder:{folder}")
    assert data.name == dataset_name(f"imagefolder:{folder}") == "ünï-x"
    assert len(data.load("all")) == 1


def test_a_relative_folder_is_named_by_its_absolute_path(tmp_path, monkeypatch):
    write(tmp_path / "pets" / "cat" / "1.png")
    monkeypatch.chdir(tmp_path / "pets")
    assert open_dataset("imagefolder:.").name == dataset_name("imagefolder:.") == "pets"


def _plugged(rest: str) -> LoadedDataset:
    def make(_split: str) -> Split:
        return fake_split(4)

    return LoadedDataset(f"plugged-{rest}", ("train",), make)


PLUGGED = Source(name=lambda rest: f"plugged-{rest}", open=_plugged)


def test_a_plug_in_is_opened_like_a_built_in(monkeypatch):
    DATASETS.names()
    monkeypatch.setitem(DATASETS._entries, "plugged", Entry(f"{__name__}:PLUGGED"))
    data = open_dataset("plugged:x?rows=2")
    assert data.name == dataset_name("plugged:x?rows=2") == "plugged-x-2"
    assert len(data.load("train")) == 2
