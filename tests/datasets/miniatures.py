"""Tables of published datasets in their forms, with as few rows as a test wants; no images."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.io import savemat

from tests.datasets.pictures import write

Findings = Mapping[str, str]


def picture(path: Path, seed: int = 0) -> None:
    """Write a PNG under any name; decoders go by the content."""
    write(path.with_name("written.png"), seed).rename(path)


def text(path: Path, *lines: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def cifar_rows(labels: Iterable[Sequence[int]], pixels: Iterable[NDArray[np.uint8]]) -> bytes:
    """Bytes of labels, then the red, the green and the blue plane, each row by row."""
    rows = zip(labels, pixels, strict=True)
    return b"".join(bytes(row) + image.transpose(2, 0, 1).tobytes() for row, image in rows)


def ilsvrc_devkit(root: Path, numbers: Mapping[str, int], truth: Sequence[str]) -> None:
    """Numbers of the classes as the devkit has them, and a synset above them, with children."""
    names = "ILSVRC2012_ID WNID words gloss num_children children wordnet_height num_train_images"
    rows = [(n, wnid, f"{wnid} in words", "a gloss", 0, [], 0, 1300) for wnid, n in numbers.items()]
    children = list(numbers.values())
    rows.append((1001, "n00004475", "organism, being", "a living thing", 2, children, 12, 0))
    folder = root / "ILSVRC2012_devkit_t12" / "data"
    folder.mkdir(parents=True)
    kind = [(name, "O") for name in names.split()]
    savemat(folder / "meta.mat", {"synsets": np.array(rows, dtype=kind).reshape(-1, 1)})
    text(folder / "ILSVRC2012_validation_ground_truth.txt", *(numbers[wnid] for wnid in truth))


def flowers_tables(root: Path, labels: Sequence[int], parts: Mapping[str, Sequence[int]]) -> None:
    """Each table is one row of numbers from 1, as the published ones are."""
    savemat(root / "imagelabels.mat", {"labels": np.array([labels], np.uint8)})
    numbers = {name: np.array([rows], np.uint16) for name, rows in parts.items()}
    savemat(root / "setid.mat", numbers)


def cars_tables(
    root: Path, names: Sequence[str], train: Sequence[tuple], test: Sequence[tuple]
) -> None:
    """Rows are a box, a class from 1, and a file; the devkit's table of test has no classes."""
    (root / "devkit").mkdir(parents=True)
    classes = np.array(names, dtype=object).reshape(1, -1)
    savemat(root / "devkit/cars_meta.mat", {"class_names": classes})
    boxes = [(f"bbox_{edge}", "O") for edge in ("x1", "y1", "x2", "y2")]
    labelled = np.dtype([*boxes, ("class", "O"), ("fname", "O")])
    plain = np.dtype([*boxes, ("fname", "O")])
    for file, rows, kind in (
        ("devkit/cars_train_annos.mat", train, labelled),
        ("cars_test_annos_withlabels.mat", test, labelled),
        ("devkit/cars_test_annos.mat", [(*row[:4], row[5]) for row in test], plain),
    ):
        savemat(root / file, {"annotations": np.array(list(rows), kind).reshape(1, -1)})


def coco_table(
    file: Path, images: Mapping[str, int], categories: Sequence[Mapping[str, object]]
) -> None:
    """Images are files to the id of their category; their own ids count down."""
    ids = {name: len(images) - row for row, name in enumerate(images)}
    table = {
        "info": {"year": 2021},
        "images": [
            {"id": ids[name], "width": 500, "height": 375, "file_name": name, "license": 0}
            for name in images
        ],
        "categories": list(categories),
        "annotations": [
            {"id": row, "image_id": ids[name], "category_id": images[name]}
            for row, name in enumerate(reversed(images))
        ],
        "licenses": [],
    }
    file.write_text(json.dumps(table))


CHEXPERT_COLUMNS = (
    *("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", "No Finding"),
    *("Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema"),
    *("Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion"),
    *("Pleural Other", "Fracture", "Support Devices"),
)


def chexpert_table(file: Path, rows: Iterable[tuple[str, str, Findings]]) -> None:
    """Rows are (path, view, finding to value as it is written)."""
    with file.open("w", newline="") as stream:
        table = csv.DictWriter(stream, CHEXPERT_COLUMNS, restval="", lineterminator="\n")
        table.writeheader()
        for path, view, values in rows:
            given = {"Path": f"CheXpert-v1.0-small/{path}", "Sex": "Female", "Age": "68"}
            projection = "AP" if view == "Frontal" else ""
            given |= {"Frontal/Lateral": view, "AP/PA": projection, "Support Devices": "1.0"}
            table.writerow({**given, **values})


def gldv2_tables(root: Path, index: Sequence[str], answers: Mapping[str, Sequence[str]]) -> None:
    """Queries to their answers; those without one are ignored, the others public or private."""
    text(root / "index.csv", "id", *index)
    usage = {True: "Ignored", False: "Private"}
    lines = [f"{q},{' '.join(found) or 'None'},{usage[not found]}" for q, found in answers.items()]
    text(root / "retrieval_solution_v2.1.csv", "id,images,Usage", *lines)


def caption_table(file: Path, images: Mapping[str, tuple[str, int]]) -> None:
    """Images are files to their split and number of captions; only COCO's have a folder."""
    rows: list[dict[str, object]] = []
    number = 0
    for image, (name, (split, count)) in enumerate(images.items()):
        folder, _, filename = name.rpartition("/")
        numbers = list(range(number, number + count))
        number += count
        words = ["caption", "of", Path(filename).stem.lower()]
        sentences = [
            {"tokens": words, "raw": f"Caption {i} of {name} .", "imgid": image, "sentid": one}
            for i, one in enumerate(numbers)
        ]
        row = {"sentids": numbers, "imgid": image, "sentences": sentences, "split": split}
        rows.append({**row, "filename": filename})
        if folder:
            rows[-1] |= {"filepath": folder, "cocoid": int(filename[-16:-4])}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"images": rows, "dataset": file.stem.removeprefix("dataset_")}))
