"""Battle of the Backbones' rule for queries, and its protocol on such a dataset."""

import numpy as np
import pytest
from PIL import Image

import featcache
from featcache.datasets.catalog import open_dataset
from featcache.datasets.readers.class_queries import divide
from featcache.errors import DatasetError
from tests.datasets.pictures import write


@pytest.mark.parametrize("n", [0, 1, 4, 5, 9, 10, 49, 60])
@pytest.mark.parametrize("limit", [0, 5, 50])
def test_the_first_fifth_of_what_is_kept_are_queries(n, limit):
    names = [f"{i:03}.jpg" for i in range(n)]
    kept = names[: limit or None]
    queries, gallery = divide(names[::-1], limit=limit)
    assert queries + gallery == kept
    assert 5 * len(queries) <= len(kept) < 5 * (len(queries) + 1)


def test_only_the_endings_of_the_original_count():
    names = ["a.JPG", "b.JPEG", "c.jpg", "d.png", "e.PNG", "f.jpeg", "g.Jpg", "h.txt"]
    assert divide(names) == (["a.JPG"], ["b.JPEG", "c.jpg", "d.png", "e.PNG"])


def test_names_are_sorted_as_text_in_each_class(tmp_path):
    for name in ("2.jpg", "10.jpg", "1.jpg", "20.jpg", "3.jpg"):
        write(tmp_path / "INSTRE-S1" / "01a_canada_book" / name)
        (tmp_path / "INSTRE-S1" / "01a_canada_book" / name).with_suffix(".txt").write_text("1 1")
    for number in range(60):
        write(tmp_path / "INSTRE-S1" / "02b_toy" / f"{number:03}.jpg", number)
    data = open_dataset(f"instre@{tmp_path}?part")
    query, gallery = data.load("query"), data.load("gallery")
    assert query.ids == (
        "01a_canada_book/1.jpg",
        *(f"02b_toy/{number:03}.jpg" for number in range(10)),
    )
    assert gallery.ids[:5] == (
        *(f"01a_canada_book/{number}.jpg" for number in (10, 2, 20, 3)),
        "02b_toy/010.jpg",
    )
    assert gallery.ids[-1] == "02b_toy/049.jpg"
    assert query.class_names == gallery.class_names == ("01a_canada_book", "02b_toy")
    assert query.labels.tolist() == [0, *[1] * 10]


def test_five_of_each_species_are_kept(tmp_path):
    for number in range(10):
        write(tmp_path / "val" / "00000_Animalia_Annelida" / f"{number}.jpg", number)
    data = open_dataset(f"inat-retrieval@{tmp_path}?part")
    assert (len(data.load("query")), len(data.load("gallery"))) == (1, 4)


def test_the_protocol_finds_queries_and_gallery_by_their_names(tmp_path, cache):
    rng = np.random.default_rng(0)
    for label in range(3):
        folder = tmp_path / "images" / f"{label:03}.Bird"
        folder.mkdir(parents=True)
        for number in range(11):
            pixels = rng.integers(0, 60, (20, 20, 3), np.uint8)
            pixels[..., label] += 150
            Image.fromarray(pixels).save(folder / f"Bird_{number:04}.png")
    source = f"cub200-retrieval@{tmp_path}"
    featcache.extract(backbone="pixels", dataset=source, cache=cache.root)
    result, _ = featcache.probe(
        backbone="pixels",
        dataset=source,
        protocol="bob-retrieval@1",
        cache=cache.root,
        device="cpu",
    )
    assert result.record["n"] == 3 * 2
    assert result.record["details"]["gallery_rows"] == 3 * 9
    assert result.record["metrics"]["mean_reciprocal_rank"] == 1.0
    inputs = result.record["inputs"]
    assert (inputs["train"]["split"], inputs["test"]["split"]) == ("gallery", "query")


def test_a_folder_without_classes_is_refused(tmp_path):
    write(tmp_path / "images" / "1.jpg")
    with pytest.raises(DatasetError, match="there are no class folders. Fetch CUB_200_2011.tgz"):
        open_dataset(f"cub200-retrieval@{tmp_path}").load("query")
