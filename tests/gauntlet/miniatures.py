"""Every dataset that a shipped suite names, in its published layout, with a few painted images.

`write_all` makes a folder for `$FEATCACHE_DATA`. A writer returns the images that its tables and
folders ask for, each with the number of a colour; images of one class have one colour, so every
task has something to find.
"""

import json
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from featcache.datasets.imagenet import imagenet_wnids
from featcache.datasets.named import named
from tests.datasets.miniatures import (
    cars_tables,
    chexpert_table,
    cifar_rows,
    coco_table,
    flowers_tables,
    gldv2_tables,
    ilsvrc_devkit,
    text,
)

CLASSES = 10
"""Classes of each dataset, if it has as many."""
ROWS = 24
"""Images of each split, more than a rehearsal takes."""
WIDTH, HEIGHT = 24, 20
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}

Images = dict[str, int]
"""File below the dataset's folder to the number of its colour."""


def write_all(root: Path, names: Iterable[str]) -> None:
    """Write the files of datasets by their names; several of them may share a folder."""
    for folder in dict.fromkeys(str(named()[name]["folder"]) for name in names):
        write = _vtab if folder.startswith("vtab-1k/") else WRITERS[folder]
        (root / folder).mkdir(parents=True)
        for number, (file, colour) in enumerate(write(root / folder).items()):
            path = root / folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            _painted(colour, number).save(path, FORMATS[path.suffix.lower()])


def _painted(colour: int, number: int) -> Image.Image:
    return Image.fromarray(_pixels(colour, number, HEIGHT, WIDTH))


def _pixels(colour: int, number: int, height: int, width: int) -> np.ndarray:
    """Return noise around a colour; no two images are equal."""
    own = np.random.default_rng([7, colour]).integers(60, 196, 3)
    noise = np.random.default_rng([colour, number]).integers(-40, 41, (height, width, 3))
    return np.clip(own + noise, 0, 255).astype(np.uint8)


def _labels(rows: int = ROWS, classes: int = CLASSES) -> Iterator[tuple[int, int]]:
    """Yield (number from 1, label) of rows whose classes take turns."""
    return ((row + 1, row % classes) for row in range(rows))


def _wnids() -> list[str]:
    """Classes that ImageNet, -A and -R have."""
    small = [named()[name]["class_subset"]["classes"] for name in ("imagenet-a", "imagenet-r")]
    return sorted(set(small[0]) & set(small[1]))[:CLASSES]


def _imagenet(root: Path) -> Images:
    wnids = _wnids()
    train = {f"train/{wnids[label]}/{wnids[label]}_{n}.JPEG": label for n, label in _labels()}
    names = [file.rpartition("/")[2] for file in train]
    text(root / "1percent.txt", *names[:15])
    text(root / "10percent.txt", *names[:18])
    numbers = {wnid: 100 - label for label, wnid in enumerate(wnids)}
    ilsvrc_devkit(root, numbers, [wnids[label] for _, label in _labels()])
    return train | {f"val/ILSVRC2012_val_{n:08d}.JPEG": label for n, label in _labels()}


def _cifar10(root: Path) -> Images:
    for batch in range(1, 7):
        rows = [(label, batch * ROWS + n) for n, label in _labels()]
        pixels = [_pixels(label, number, 32, 32) for label, number in rows]
        name = f"data_batch_{batch}.bin" if batch < 6 else "test_batch.bin"
        (root / name).write_bytes(cifar_rows([[label] for label, _ in rows], pixels))
    names = "airplane automobile bird cat deer dog frog horse ship truck"
    text(root / "batches.meta.txt", *names.split(), "")
    return {}


def _cifar100(root: Path) -> Images:
    for split, first in (("train", 0), ("test", ROWS)):
        rows = [(label, first + n) for n, label in _labels()]
        pixels = [_pixels(label, number, 32, 32) for label, number in rows]
        (root / f"{split}.bin").write_bytes(cifar_rows([[1, 9 * n] for n, _ in rows], pixels))
    text(root / "coarse_label_names.txt", *(f"coarse_{n}" for n in range(20)))
    text(root / "fine_label_names.txt", *(f"fine_{n}" for n in range(100)))
    return {}


def _flowers(root: Path) -> Images:
    parts = {"tstid": 0, "trnid": ROWS, "valid": 2 * ROWS}
    labels = [label for _ in parts for _, label in _labels()]
    numbers = {name: range(first + 1, first + ROWS + 1) for name, first in parts.items()}
    flowers_tables(root, [label + 1 for label in labels], numbers)
    return {f"jpg/image_{n:05d}.jpg": label for n, label in enumerate(labels, start=1)}


def _aircraft(root: Path) -> Images:
    variants = ["707-320", "BAE 146-200", "F/A-18", *(f"A3{n}0" for n in range(CLASSES - 3))]
    text(root / "variants.txt", *variants)
    images = {}
    for part, first in (("trainval", 1000000), ("test", 2000000)):
        rows = [(first + n, label) for n, label in _labels()]
        lines = (f"{number} {variants[label]}" for number, label in rows)
        text(root / f"images_variant_{part}.txt", *lines)
        images |= {f"images/{number}.jpg": label for number, label in rows}
    return images


def _cars(root: Path) -> Images:
    rows = [(1, 2, WIDTH, HEIGHT, label + 1, f"{n:05d}.jpg") for n, label in _labels()]
    cars_tables(root, [f"Make {n} Coupe 2012" for n in range(196)], rows, rows)
    return {f"cars_{part}/{row[5]}": row[4] - 1 for part in ("train", "test") for row in rows}


def _eurosat(root: Path) -> Images:
    names = "AnnualCrop Forest HerbaceousVegetation Highway Industrial Pasture PermanentCrop"
    classes = [*names.split(), "Residential", "River", "SeaLake"]
    rows = list(_labels(5 * ROWS))
    return {f"2750/{classes[label]}/{classes[label]}_{n}.jpg": label for n, label in rows}


def _inat2019(root: Path) -> Images:
    images = {}
    for part in ("train", "val"):
        own = {f"train_val2019/Plants/{c}/{part}{n:03d}.jpg": c for n, c in _labels()}
        categories = [
            {"id": c, "name": f"Species {c}", "supercategory": "Plants"} for c in range(CLASSES)
        ]
        coco_table(root / f"{part}2019.json", own, categories)
        images |= own
    return images


def _inat2021(root: Path) -> Images:
    folders = [f"{c:05d}_Animalia_Arthropoda_Insecta_Genus_species{c}" for c in range(CLASSES)]
    categories = [
        {"id": c, "name": f"Genus species{c}", "image_dir_name": folder, "kingdom": "Animalia"}
        for c, folder in enumerate(folders)
    ]
    images = {}
    for part, rows in (("train", ROWS), ("train_mini", ROWS), ("val", 5 * CLASSES)):
        own = {f"{part}/{folders[c]}/{part}-{n:04d}.jpg": c for n, c in _labels(rows)}
        coco_table(root / f"{part}.json", own, categories)
        images |= own
    return images


def _chexpert(root: Path) -> Images:
    findings = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
    images = {}
    for part in ("train", "valid"):
        rows = []
        for number, kind in _labels(classes=7):
            path = f"{part}/patient{number:05d}/study1/view1_frontal.jpg"
            values = {name: f"{(kind >> bit) & 1}.0" for bit, name in enumerate(findings[:3])}
            values |= {findings[3]: values[findings[0]], findings[4]: ("1.0", "", "-1.0")[kind % 3]}
            rows.append((path, "Frontal", values))
            images[path] = kind
        chexpert_table(root / f"{part}.csv", rows)
    return images


def _of_classes(folder: str, ending: str = ".jpg", rows: int = ROWS) -> Callable[[Path], Images]:
    """Return a writer of folders that are called by WordNet ids."""

    def write(root: Path) -> Images:
        wnids = _wnids()
        return {f"{folder}{wnids[label]}/{n:04d}{ending}": label for n, label in _labels(rows)}

    return write


def _imagenet_v2(root: Path) -> Images:
    kinds, numbers = ("matched-frequency", "threshold0.7", "top-images"), _indices(_wnids())
    return {
        f"imagenetv2-{kind}-format-val/{numbers[label]}/{n:08x}.jpeg": label
        for kind in kinds
        for n, label in _labels()
    }


def _visda(root: Path) -> Images:
    names = ("aeroplane", "bicycle", "bus", "car", "horse", "knife")
    images = {}
    for part, ending in (("train", "png"), ("validation", "jpg"), ("test", "jpg")):
        own = {f"{names[c]}/{names[c]}_{n}.{ending}": c for n, c in _labels(classes=6)}
        text(root / part / "image_list.txt", *(f"{file} {c}" for file, c in own.items()))
        images |= {f"{part}/{file}": c for file, c in own.items()}
    return images


def _birds(root: Path) -> Images:
    return {
        f"images/{c + 1:03d}.Bird_{c}/Bird_{c}_{n:04d}_{n + 800}.jpg": c for n, c in _labels(100)
    }


def _objectnet(root: Path) -> Images:
    names = "Air freshener,Alarm clock,Backpack,Banana,Band Aid,Basket,Bathrobe,Beer can,Belt,Bench"
    labels = {name.lower().replace(" ", "_"): name for name in names.split(",")}
    text(root / "mappings/folder_to_objectnet_label.json", json.dumps(labels))
    folders = list(labels)
    return {f"images/{folders[c]}/{n:015x}.png": c for n, c in _labels(100)}


def _instre(root: Path) -> Images:
    images = {f"INSTRE-S1/{c + 1:02d}a_object_{c}/{n:03d}.jpg": c for n, c in _labels(100)}
    for file in images:
        text((root / file).with_suffix(".txt"), f"1 1 {WIDTH - 2} {HEIGHT - 2}")
    return images


def _revisited(table: str) -> Callable[[Path], Images]:
    """Return a writer of landmarks whose images are easy, hard or junk in turn."""

    def write(root: Path) -> Images:
        gallery = {f"landmark{c}_{n:06d}": c for n, c in _labels(100)}
        queries = {f"query{c}_{n:06d}": c for n, c in _labels()}
        listed = list(enumerate(gallery.values()))
        box = [1.5, 2.0, WIDTH - 2.5, HEIGHT - 3.0]
        answers = []
        for label in queries.values():
            rows = [row for row, other in listed if other == label]
            levels = {"easy": rows[::3], "hard": rows[1::3], "junk": rows[2::3]}
            answers.append({"bbx": box, **{k: np.array(v) for k, v in levels.items()}})
        data = {"imlist": list(gallery), "qimlist": list(queries), "gnd": answers}
        (root / table).write_bytes(pickle.dumps(data, protocol=2))
        return {f"jpg/{name}.jpg": label for name, label in (gallery | queries).items()}

    return write


def _gldv2(root: Path) -> Images:
    index = {f"{n * 2654435761:016x}": label for n, label in _labels(100)}
    test = {f"{n * 40503 + 7:016x}": label for n, label in _labels()}
    answers = {
        name: [] if label == 0 else [one for one, other in index.items() if other == label]
        for name, label in test.items()
    }
    gldv2_tables(root, list(index), answers)
    return {
        f"{folder}/{name[0]}/{name[1]}/{name[2]}/{name}.jpg": label
        for folder, names in (("index", index), ("test", test))
        for name, label in names.items()
    }


def _copydays(root: Path) -> Images:
    folders = {"original": 0, "strong": 1}
    folders |= {f"jpegqual/{quality}": 0 for quality in (3, 5, 8, 10, 15, 20, 30, 50, 75)}
    folders |= {f"crops/{percent}": 0 for percent in (10, 15, 20, 30, 40, 50, 60, 70, 80)}
    return {
        f"{folder}/2{scene:03d}{last:02d}.jpg": scene
        for folder, last in folders.items()
        for scene in range(ROWS)
    }


def _openood(root: Path) -> Images:
    """OpenOOD's lists on ImageNet; sets without labels are of colours of their own."""
    wnids, images = _wnids(), {}
    numbers = dict(zip(wnids, _indices(wnids), strict=True))
    parts: Mapping[str, Callable[[int, int], str]] = {
        "train": lambda n, c: f"imagenet_1k/train/{wnids[c]}/{wnids[c]}_{n}.JPEG",
        "val": lambda n, c: f"imagenet_1k/val/ILSVRC2012_val_{n:08d}.JPEG",
        "test": lambda n, c: f"imagenet_1k/val/ILSVRC2012_val_{1000 + n:08d}.JPEG",
    }
    for part, name_of in parts.items():
        own = {name_of(n, c): c for n, c in _labels()}
        lines = (f"{file} {numbers[wnids[c]]}" for file, c in own.items())
        text(root / f"benchmark_imglist/imagenet/{part}_imagenet.txt", *lines)
        images |= {f"images_largescale/{file}": c for file, c in own.items()}
    others = {
        "ssb_hard": "images_largescale/ssb_hard/n00470682/n00470682_{}.JPEG",
        "ninco": "images_largescale/ninco/amphiuma_means/{}.jpg",
        "inaturalist": "images_largescale/inaturalist/images/{}.jpg",
        "textures": "images_classic/texture/banded/banded_{}.jpg",
        "openimage_o": "images_largescale/openimage_o/images/{}.jpg",
    }
    for colour, (name, pattern) in enumerate(others.items(), start=20):
        files = [pattern.format(n) for n, _ in _labels()]
        lines = (f"{file.partition('/')[2]} -1" for file in files)
        text(root / f"benchmark_imglist/imagenet/test_{name}.txt", *lines)
        images |= dict.fromkeys(files, colour)
    return images


def _indices(wnids: list[str]) -> list[int]:
    """Return the labels of classes among all of ImageNet's."""
    return [imagenet_wnids().index(wnid) for wnid in wnids]


def _vtab(root: Path) -> Images:
    """Numbered files and numbers of classes; a task may have fewer classes than we paint."""
    folder = f"vtab-1k/{root.name}"
    classes = next(int(one["classes"]) for one in named().values() if one.get("folder") == folder)
    images = {}
    for split in ("train800", "val200", "test"):
        own = {
            f"images/{split}/{n - 1:06d}.jpg": c for n, c in _labels(classes=min(classes, CLASSES))
        }
        text(root / f"{split}.txt", *(f"{file} {c}" for file, c in own.items()))
        images |= own
    return images


WRITERS: Mapping[str, Callable[[Path], Images]] = {
    "CUB_200_2011": _birds,
    "CheXpert-v1.0-small": _chexpert,
    "INSTRE": _instre,
    "cifar-10-batches-bin": _cifar10,
    "cifar-100-binary": _cifar100,
    "copydays": _copydays,
    "eurosat": _eurosat,
    "fgvc-aircraft-2013b/data": _aircraft,
    "flowers-102": _flowers,
    "gldv2": _gldv2,
    "imagenet": _imagenet,
    "imagenet-a": _of_classes(""),
    "imagenet-r": _of_classes(""),
    "imagenet-sketch": _of_classes("sketch/", ".JPEG"),
    "imagenet-v2": _imagenet_v2,
    "inat2019": _inat2019,
    "inat2021": _inat2021,
    "objectnet-1.0": _objectnet,
    "openood": _openood,
    "roxford5k": _revisited("gnd_roxford5k.pkl"),
    "rparis6k": _revisited("gnd_rparis6k.pkl"),
    "stanford_cars": _cars,
    "visda2017": _visda,
}
"""Folder below `$FEATCACHE_DATA` to what writes its tables and names its images."""
