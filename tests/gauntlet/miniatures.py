"""Every dataset of the shipped suites with a few images each, laid out as it is published.

`write_all(root)` fills a folder for `$FEATCACHE_DATA`. An image's colour tells its class, so that a
probe that reads the labels right scores well.
"""

from __future__ import annotations

import csv
import json
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from featcache.datasets.imagenet import imagenet_wnids
from featcache.datasets.named import named

N_CLASSES = 4
SHIFTED = ("n01498041", "n01531178", "n01534433", "n01614925")
"""Classes that ImageNet, ImageNet-A and ImageNet-R have in common."""
COLOURS = ((200, 60, 60), (60, 200, 60), (60, 60, 200), (180, 180, 40))
SIDE = 12


def picture(path: Path, label: int, seed: int) -> None:
    """Write a noisy image of a class's colour; decoders go by the content, not by the name."""
    noise = np.random.default_rng(seed).integers(-50, 50, (SIDE, SIDE, 3))
    pixels = np.clip(noise + COLOURS[label % N_CLASSES], 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        Image.fromarray(pixels).save(file, "PNG")


def text(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def by_class(n: int) -> Iterator[tuple[int, int]]:
    """Yield (label, number) for `n` images of each class."""
    for label in range(N_CLASSES):
        for number in range(n):
            yield label, number


def imagenet(root: Path) -> None:
    """Both splits in class folders, and SimCLR's lists of parts."""
    names = []
    for label, number in by_class(12):
        name = f"{SHIFTED[label]}_{number}.JPEG"
        picture(root / "train" / SHIFTED[label] / name, label, number)
        names.append(name)
    for label, number in by_class(5):
        name = f"ILSVRC2012_val_{10 * label + number:08d}.JPEG"
        picture(root / "val" / SHIFTED[label] / name, label, 100 + number)
    text(root / "10percent.txt", names)
    text(root / "1percent.txt", names[::2])


def cifar(root: Path, files: Mapping[str, int], names: str, n_names: int, n_labels: int) -> None:
    root.mkdir(parents=True)
    text(root / names, [f"class {i}" for i in range(n_names)])
    for seed, (file, n) in enumerate(files.items()):
        rng = np.random.default_rng(seed)
        rows = []
        for label, _ in by_class(n):
            noise = rng.integers(-50, 50, (32, 32, 3)) + COLOURS[label]
            planes = np.clip(noise, 0, 255).astype(np.uint8).transpose(2, 0, 1)
            rows.append(bytes([0, label][-n_labels:]) + planes.tobytes())
        (root / file).write_bytes(b"".join(rows))


def cifar10(root: Path) -> None:
    train = {f"data_batch_{number}.bin": 2 for number in range(1, 6)}
    cifar(root, {**train, "test_batch.bin": 5}, "batches.meta.txt", 10, 1)


def cifar100(root: Path) -> None:
    cifar(root, {"train.bin": 10, "test.bin": 5}, "fine_label_names.txt", 100, 2)


def eurosat(root: Path) -> None:
    for label, number in by_class(20):
        kind = ("AnnualCrop", "Forest", "Highway", "River")[label]
        picture(root / "2750" / kind / f"{kind}_{number + 1}.jpg", label, number)


def aircraft(root: Path) -> None:
    variants = ["707-320", "BAE 146-200", "F/A-18", "A300B4"]
    text(root / "variants.txt", variants)
    for part, n, first in (("trainval", 10, 1000000), ("test", 5, 2000000)):
        lines = []
        for label, number in by_class(n):
            name = str(first + 100 * label + number)
            picture(root / "images" / f"{name}.jpg", label, number)
            lines.append(f"{name} {variants[label]}")
        text(root / f"images_variant_{part}.txt", lines)


def flowers(root: Path) -> None:
    labels = [label for label, _ in by_class(16)]
    for number, label in enumerate(labels, start=1):
        picture(root / "jpg" / f"image_{number:05d}.jpg", label, number)
    savemat(root / "imagelabels.mat", {"labels": np.array([labels], np.uint8) + 1})
    numbers = np.arange(1, len(labels) + 1, dtype=np.uint16)
    kinds = np.arange(len(labels)) % 4
    names = {"trnid": kinds < 2, "valid": kinds == 2, "tstid": kinds == 3}
    parts = {name: numbers[chosen][None] for name, chosen in names.items()}
    savemat(root / "setid.mat", parts)


def cars(root: Path) -> None:
    (root / "devkit").mkdir(parents=True)
    names = np.array([f"Make Model {year}" for year in range(2009, 2013)], dtype=object)
    savemat(root / "devkit/cars_meta.mat", {"class_names": names.reshape(1, -1)})
    boxes = [(f"bbox_{edge}", "O") for edge in ("x1", "y1", "x2", "y2")]
    kind = np.dtype([*boxes, ("class", "O"), ("fname", "O")])
    tables = (("devkit/cars_train_annos.mat", "cars_train", 10),)
    for table, folder, n in (*tables, ("cars_test_annos_withlabels.mat", "cars_test", 5)):
        rows = []
        for label, number in by_class(n):
            name = f"{20 * label + number + 1:05d}.jpg"
            picture(root / folder / name, label, number)
            rows.append((1, 1, 9, 9, label + 1, name))
        savemat(root / table, {"annotations": np.array(rows, kind).reshape(1, -1)})


def inat2019(root: Path) -> None:
    categories = [{"id": i, "name": f"Genus species{i}"} for i in range(N_CLASSES)]
    species_tables(root, categories, (("train2019", 10), ("val2019", 5)), "train_val2019/Plants/{}")


def inat2021(root: Path) -> None:
    categories = [
        {"id": i, "name": f"Genus species{i}", "image_dir_name": f"{i:05d}_Animalia_species{i}"}
        for i in range(N_CLASSES)
    ]
    folders = "{part}/{:05d}_Animalia_species{}"
    species_tables(root, categories, (("train", 10), ("train_mini", 5), ("val", 10)), folders)


def species_tables(
    root: Path,
    categories: Sequence[Mapping[str, object]],
    parts: Sequence[tuple[str, int]],
    folder: str,
) -> None:
    """Write COCO-like tables; the folder of a class is `folder` with its number and the part."""
    for part, n in parts:
        images, annotations = [], []
        for row, (label, number) in enumerate(by_class(n)):
            name = f"{folder.format(label, label, part=part)}/{part}{number:02d}.jpg"
            picture(root / name, label, number)
            images.append({"id": row, "file_name": name, "width": SIDE, "height": SIDE})
            annotations.append({"id": row, "image_id": row, "category_id": label})
        table = {"images": images, "categories": categories, "annotations": annotations}
        (root / f"{part}.json").write_text(json.dumps(table))


FINDINGS = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")


def chexpert(root: Path) -> None:
    columns = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", "No Finding", *FINDINGS)
    for table, folder, n in (("train.csv", "train", 10), ("valid.csv", "valid", 5)):
        rows = []
        for label, number in by_class(n):
            name = f"{folder}/patient{10 * label + number:05d}/study1/view1_frontal.jpg"
            picture(root / name, label, number)
            found = {finding: "0.0" for finding in FINDINGS} | {FINDINGS[label]: "1.0"}
            if number % 2:
                found[FINDINGS[4]] = "1.0"
            whole = [f"CheXpert-v1.0-small/{name}", "Female", "68", "Frontal", "AP", ""]
            rows.append([*whole, *(found[one] for one in FINDINGS)])
        with (root / table).open("w", newline="") as file:
            csv.writer(file).writerows([columns, *rows])


def class_folders(root: Path, folders: Sequence[str], n: int, suffix: str) -> None:
    for label, number in by_class(n):
        picture(root / folders[label] / f"{number:04d}{suffix}", label, number)


def imagenet_v2(root: Path) -> None:
    numbers = [str(imagenet_wnids().index(wnid)) for wnid in SHIFTED]
    class_folders(root / "imagenetv2-matched-frequency-format-val", numbers, 5, ".jpeg")


def visda(root: Path) -> None:
    names = ("aeroplane", "bicycle", "bus", "car")
    for part, n in (("train", 10), ("validation", 5)):
        lines = []
        for label, number in by_class(n):
            name = f"{names[label]}/{number:05d}.png"
            picture(root / part / name, label, number)
            lines.append(f"{name} {label}")
        text(root / part / "image_list.txt", lines)


def objectnet(root: Path) -> None:
    kinds = ("air_freshener", "alarm_clock", "banana", "basket")
    class_folders(root / "images", kinds, 10, ".png")
    (root / "mappings").mkdir()
    labels = {kind: kind.replace("_", " ").capitalize() for kind in kinds}
    (root / "mappings/folder_to_objectnet_label.json").write_text(json.dumps(labels))


def copydays(root: Path) -> None:
    for scene in range(8):
        picture(root / "original" / f"20{scene:02}00.jpg", scene, scene)
        for copy in (1, 2):
            picture(root / "strong" / f"20{scene:02}{copy:02}.jpg", scene, scene)


def landmarks(root: Path, name: str) -> None:
    """A revisited set of buildings: pictures, and the pickle of its answers."""
    gallery = [f"{name}_{label}_{number:06d}" for label, number in by_class(6)]
    queries = [f"{name}_{label}_query" for label in range(N_CLASSES)]
    for row, one in enumerate(gallery):
        picture(root / "jpg" / f"{one}.jpg", row // 6, row)
    answers = []
    for label, one in enumerate(queries):
        picture(root / "jpg" / f"{one}.jpg", label, 100 + label)
        first = 6 * label
        parts = {"easy": [first, first + 1], "hard": [first + 2], "junk": [first + 3]}
        answers.append({"bbx": [1.0, 1.0, 11.0, 11.0], **parts})
    table = {"imlist": gallery, "qimlist": queries, "gnd": answers}
    (root / f"gnd_{name}.pkl").write_bytes(pickle.dumps(table, protocol=2))


def gldv2(root: Path) -> None:
    index = [f"{label}{number}abcdef" for label, number in by_class(6)]
    tests = [f"{label}9query" for label in range(N_CLASSES)]
    for part, names in (("index", index), ("test", tests)):
        for row, one in enumerate(names):
            picture(root / part / one[0] / one[1] / one[2] / f"{one}.jpg", int(one[0]), row)
    text(root / "index.csv", ["id", *index])
    answers = [f"{one},{' '.join(n for n in index if n[0] == one[0])},Public" for one in tests]
    text(root / "retrieval_solution_v2.1.csv", ["id,images,Usage", *answers, "x00,None,Ignored"])


def openood(root: Path) -> None:
    wnids = imagenet_wnids()
    for split, n in (("train", 12), ("val", 3), ("test", 6)):
        lines = []
        for label, number in by_class(n):
            name = f"imagenet_1k/{split}/{SHIFTED[label]}/{number}.JPEG"
            picture(root / "images_largescale" / name, label, number)
            lines.append(f"{name} {wnids.index(SHIFTED[label])}")
        text(root / f"benchmark_imglist/imagenet/{split}_imagenet.txt", lines)
    for name, row in named().items():
        split = row.get("splits", {}).get("test", {})
        if row.get("reader") != "imglist" or row["folder"] != "openood" or name[:7] == "openood":
            split = split if name == "openood_textures" else {}
        if "imagenet/" in split.get("list", ""):
            folder = Path(split["list"]).stem.removeprefix("test_")
            lines = [f"{folder}/{number}.jpg -1" for number in range(20)]
            for seed, line in enumerate(lines):
                picture(root / split["images"] / line.split()[0], seed, 500 + seed)
            text(root / split["list"], lines)


def vtab(root: Path) -> None:
    """One of VTAB-1k's tasks as its copies lie: three lists of numbered classes."""
    for part, n in (("train800", 8), ("val200", 3), ("test", 5)):
        lines = []
        for label, number in by_class(n):
            name = f"images/{part.rstrip('0123456789')}/{label}_{number}.jpg"
            picture(root / name, label, number)
            lines.append(f"{name} {label}")
        text(root / f"{part}.txt", lines)


WRITERS: Mapping[str, Callable[[Path], None]] = {
    "imagenet": imagenet,
    "cifar-10-batches-bin": cifar10,
    "cifar-100-binary": cifar100,
    "eurosat": eurosat,
    "fgvc-aircraft-2013b/data": aircraft,
    "flowers-102": flowers,
    "stanford_cars": cars,
    "inat2019": inat2019,
    "inat2021": inat2021,
    "CheXpert-v1.0-small": chexpert,
    "imagenet-a": lambda root: class_folders(root, SHIFTED, 5, ".jpg"),
    "imagenet-r": lambda root: class_folders(root, SHIFTED, 5, ".jpg"),
    "imagenet-sketch": lambda root: class_folders(root / "sketch", SHIFTED, 5, ".JPEG"),
    "imagenet-v2": imagenet_v2,
    "visda2017": visda,
    "CUB_200_2011": lambda root: class_folders(
        root / "images", [f"{i:03}.Bird" for i in range(N_CLASSES)], 10, ".jpg"
    ),
    "INSTRE": lambda root: class_folders(
        root / "INSTRE-S1", [f"{i:02}a_thing" for i in range(N_CLASSES)], 10, ".jpg"
    ),
    "objectnet-1.0": objectnet,
    "copydays": copydays,
    "roxford5k": lambda root: landmarks(root, "roxford5k"),
    "rparis6k": lambda root: landmarks(root, "rparis6k"),
    "gldv2": gldv2,
    "openood": openood,
}
"""Folder below `$FEATCACHE_DATA` to what fills it; those of VTAB are alike."""


def write_all(root: Path) -> None:
    """Write every miniature below `root`."""
    vtabs = {row["folder"] for row in named().values() if row.get("folder", "")[:7] == "vtab-1k"}
    for folder, write in {**WRITERS, **dict.fromkeys(sorted(vtabs), vtab)}.items():
        write(root / folder)
