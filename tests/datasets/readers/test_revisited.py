"""The revisited Oxford: from its pickle and images to easy, medium and hard."""

import hashlib
import json
import pickle

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import featcache
from featcache.cli.app import app
from featcache.datasets.catalog import open_dataset
from featcache.datasets.ground_truth import (
    FIELD,
    first_answers,
    ground_truth,
    write_ground_truth,
)
from featcache.datasets.named import named
from featcache.errors import DatasetError, OptionError
from featcache.probes.catalog import load_protocol
from featcache.probes.retrieval.ground_truth import read_ground_truth

# Grey levels; the nearer a gallery image's hue is to the query's, the higher it is ranked.
GALLERY = ["all_souls_000001", "ashmolean_000002", "balliol_000003", "bodleian_000004"]
QUERIES = ["all_souls_000013", "radcliffe_000095"]
TABLE = {
    "imlist": GALLERY,
    "qimlist": QUERIES,
    "gnd": [
        {"bbx": [4.2, 4.0, 15.9, 16.1], "easy": [1], "hard": [3], "junk": [0]},
        {"bbx": [0.0, 0.0, 8.0, 8.0], "easy": [], "hard": [2], "junk": [0, 1]},
    ],
}


def painted(folder, name, angle, *, frame=None):
    """A colour of that angle between red and green, so that cosines are those of the angles."""
    pixels = np.zeros((20, 20, 3), np.uint8)
    pixels[..., :2] = np.round(250 * np.array([np.cos(angle), np.sin(angle)]))
    if frame is not None:
        pixels[:4], pixels[16:], pixels[:, :4], pixels[:, 16:] = (frame,) * 4
    Image.fromarray(pixels).save(folder / f"{name}.png")
    (folder / f"{name}.png").rename(folder / f"{name}.jpg")  # decoders go by the content


@pytest.fixture
def oxford(tmp_path):
    folder = tmp_path / "roxford5k"
    (folder / "jpg").mkdir(parents=True)
    for row, name in enumerate(GALLERY):
        painted(folder / "jpg", name, 0.1 + row / 5)
    painted(folder / "jpg", QUERIES[0], 0.1, frame=(0, 0, 255))
    painted(folder / "jpg", QUERIES[1], 0.1)
    data = {**TABLE, "gnd": [{**one, "hard": np.array(one["hard"])} for one in TABLE["gnd"]]}
    (folder / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(data, protocol=2))
    return folder


def test_queries_and_gallery_have_the_ids_of_the_table(oxford):
    data = open_dataset(f"roxford5k@{oxford}?part")
    assert data.load("gallery").ids == tuple(GALLERY)
    assert data.load("query").ids == data.load("whole-query").ids == tuple(QUERIES)


def test_queries_are_cut_to_their_boxes(oxford):
    data = open_dataset(f"roxford5k@{oxford}?part")
    cut, whole = data.load("query"), data.load("whole-query")
    assert (cut.images.read(0).size, whole.images.read(0).size) == ((12, 12), (20, 20))
    assert np.asarray(cut.images.read(0))[..., 2].max() == 0  # nothing of the blue frame
    assert np.asarray(whole.images.read(0))[..., 2].max() == 255


def test_the_ground_truth_is_in_ids(oxford):
    assert ground_truth(f"roxford5k@{oxford}") == {
        QUERIES[0]: {"easy": [GALLERY[1]], "hard": [GALLERY[3]], "junk": [GALLERY[0]]},
        QUERIES[1]: {"easy": [], "hard": [GALLERY[2]], "junk": GALLERY[:2]},
    }


def test_the_same_as_json_goes_before_the_pickle(oxford):
    table = {**TABLE, "imlist": GALLERY[:3], "gnd": [{**TABLE["gnd"][0], "hard": []}]}
    table["qimlist"] = QUERIES[:1]
    (oxford / "gnd_roxford5k.json").write_text(json.dumps(table))
    assert list(ground_truth(f"roxford5k@{oxford}")) == QUERIES[:1]
    assert len(open_dataset(f"roxford5k@{oxford}?part").load("gallery")) == 3


def test_easy_medium_and_hard_come_out_of_the_protocol(oxford, cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = f"roxford5k@{oxford}?part"
    featcache.extract(backbone="pixels", dataset=source, cache=cache.root)
    assert str(write_ground_truth(source)) == "roxford5k.json"
    result, _ = featcache.probe(
        backbone="pixels", dataset=source, protocol="roxford@1", cache=cache.root, device="cpu"
    )
    metrics = result.record["metrics"]
    # Both queries rank the gallery 0 1 2 3. First query, its junk taken out: easy is first of 1 2;
    # medium are 1 and 3 of 1 2 3; hard is 3 of 2 3. Second: hard is 2 of 2 3 in both, easy is none.
    assert metrics["easy.mean_average_precision"] == pytest.approx(1.0)
    medium = (1 + (1 / 2 + 2 / 3) / 2) / 2
    assert metrics["medium.mean_average_precision"] == pytest.approx((medium + 1) / 2)
    assert metrics["hard.mean_average_precision"] == pytest.approx((0.25 + 1) / 2)
    assert metrics["mean_average_precision"] == metrics["medium.mean_average_precision"]
    assert result.record["n"] == 2
    assert result.record["details"]["queries_without_features"] == 0


def test_battle_of_the_backbones_asks_with_whole_queries(oxford, cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = f"roxford5k@{oxford}?part"
    featcache.extract(backbone="pixels", dataset=source, cache=cache.root)
    write_ground_truth(source)
    result, _ = featcache.probe(
        backbone="pixels",
        dataset=source,
        protocol="bob-roxford@1",
        test_split="whole-query",
        cache=cache.root,
        device="cpu",
    )
    # Reciprocal ranks count junk: the first answers are second (0 1 2 3) and third.
    assert result.record["metrics"]["mean_reciprocal_rank"] == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert result.record["inputs"]["test"]["split"] == "whole-query"


def test_the_command_writes_the_file_that_the_protocol_reads(oxford, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = CliRunner().invoke(app, ["ground-truth", f"roxford5k@{oxford}", "--json"])
    assert json.loads(out.stdout) == {"dataset": f"roxford5k@{oxford}", "path": "roxford5k.json"}
    file = load_protocol("roxford@1").options["ground_truth"]
    assert read_ground_truth(file).lists[QUERIES[1]]["junk"] == tuple(GALLERY[:2])
    assert CliRunner().invoke(app, ["ground-truth", "cub200"]).exit_code == 2


@pytest.mark.parametrize("protocol", ["roxford@1", "rparis@1", "bob-rparis@1", "bob-gldv2@1"])
def test_protocols_name_the_file_of_a_dataset(protocol):
    files = [one[FIELD] for one in named().values() if FIELD in one]
    assert load_protocol(protocol).options["ground_truth"] in files


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"gnd": TABLE["gnd"][:1]}, "has 2 queries, 1 answers"),
        ({"imlist": GALLERY[:2]}, "not of its form: IndexError"),
        ({"imlist": [1, 2, 3, 4]}, "not of its form: TypeError.*names must be text"),
        ({"gnd": [{**TABLE["gnd"][0], "easy": [-1]}] * 2}, "rows must not be negative"),
        ({"gnd": [{"bbx": [1, 2, 3, 4]}] * 2}, "not of its form: KeyError.*'easy'"),
    ],
)
def test_a_table_of_another_form_is_refused(oxford, change, match):
    (oxford / "gnd_roxford5k.pkl").write_bytes(pickle.dumps({**TABLE, **change}))
    with pytest.raises(DatasetError, match=match):
        open_dataset(f"roxford5k@{oxford}?part").load("query")


def test_a_table_that_runs_something_is_refused_and_does_not_run(oxford, tmp_path):
    class Evil:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",))

    (oxford / "gnd_roxford5k.pkl").write_bytes(pickle.dumps({**TABLE, "extra": Evil()}))
    with pytest.raises(DatasetError, match=r"'.*pkl' names builtins.exec. Do not open it"):
        open_dataset(f"roxford5k@{oxford}?part").load("query")
    assert not (tmp_path / "ran").exists()


def test_a_file_with_another_ground_truth_is_kept(oxford, tmp_path):
    target = write_ground_truth(f"roxford5k@{oxford}", tmp_path / "a.json")
    assert write_ground_truth(f"roxford5k@{oxford}", target) == target
    target.write_text("{}")
    with pytest.raises(OptionError, match="one with other content. Name another file"):
        write_ground_truth(f"roxford5k@{oxford}", target)
    assert target.read_text() == "{}"
    with pytest.raises(DatasetError, match="must be written to .*; No such file or directory"):
        write_ground_truth(f"roxford5k@{oxford}", tmp_path / "none" / "a.json")


def test_a_dataset_with_classes_has_no_ground_truth_file():
    with pytest.raises(OptionError, match="as gldv2, roxford5k, rparis6k do; 'cub200' has none"):
        ground_truth("cub200")


def test_a_part_of_a_gallery_begins_with_one_answer_to_each_query():
    answers = {
        "q": {"easy": ["a"], "hard": ["b", "c"], "junk": ["j"]},
        "r": {"easy": [], "hard": ["d", "a"], "junk": []},
        "s": {"easy": [], "hard": [], "junk": ["k"]},
        "t": ["e"],
    }
    order = sorted(answers, key=lambda one: hashlib.sha256(one.encode()).hexdigest())
    firsts = {"q": "a", "r": "d", "t": "e"}
    found = first_answers(answers)
    assert found[:3] == [firsts[one] for one in order if one in firsts]
    assert sorted(found) == ["a", "b", "c", "d", "e"]
