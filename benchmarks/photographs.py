"""Two hundred real images of many sizes, shapes and file forms, without a download.

What scikit-image and scikit-learn ship, whole; Fashion-MNIST, where its files lie here; and crops
of the photographs, re-encoded, up to the number asked for. The same images for the same seed and
version of PIL.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from featcache.datasets.decode import decode
from featcache.datasets.fashion_mnist import open_fashion_mnist
from featcache.errors import DatasetError

SKIMAGE = (
    *("astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "clock_motion.png"),
    *("coffee.png", "coins.png", "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png"),
    *("microaneurysms.png", "moon.png", "motorcycle_left.png", "motorcycle_right.png", "page.png"),
    *("retina.jpg", "rocket.jpg", "text.png"),
)
SKLEARN = ("china.jpg", "flower.jpg")
DRAWINGS = ("horse.png", "logo.png")
"""scikit-image's files with an alpha channel."""
CLOTHES = 36

SHAPES = ("portrait", "landscape", "panorama", "tall", "tiny", "square", "nearly whole")
FORMS = (
    *("JPEG", "PNG", "JPEG, strong", "grey PNG", "JPEG, full colour", "grey JPEG"),
    *("palette PNG", "PNG with transparency", "CMYK JPEG", "JPEG turned by EXIF"),
)
_TINY = 223


@dataclass(frozen=True, slots=True)
class Picture:
    """An image file in memory, where it comes from and how it is encoded."""

    source: str
    form: str
    data: bytes


def pictures(count: int = 200, seed: int = 0) -> list[Picture]:
    """Return `count` images: the whole files first, then clothes, then crops."""
    wholes = [
        *_shipped("skimage", "data", SKIMAGE),
        *_shipped("sklearn", "datasets/images", SKLEARN),
    ]
    photographs = [Picture("photograph", _form_of(data), data) for data in wholes]
    drawings = [
        Picture("drawing", _form_of(data), data) for data in _shipped("skimage", "data", DRAWINGS)
    ]
    found = [*photographs, *drawings, *_clothes()][:count]
    sources = [decode(one) for one in wholes]
    return [*found, *_crops(sources, count - len(found), np.random.default_rng(seed))]


def _shipped(package: str, folder: str, names: tuple[str, ...]) -> list[bytes]:
    spec = find_spec(package)
    assert spec, f"{package} must be installed"
    paths = [Path(str(spec.origin)).parent / folder / name for name in names]
    return [path.read_bytes() for path in paths if path.is_file()]


def _form_of(data: bytes) -> str:
    image = Image.open(io.BytesIO(data))
    grey = {"L": "grey "}.get(image.mode, "")
    return f"{grey}{image.format}{' with transparency' if image.mode == 'RGBA' else ''}"


def _clothes() -> Iterator[Picture]:
    try:
        images = open_fashion_mnist("").load("test").images
    except DatasetError:
        return
    for row in range(CLOTHES):
        stream = io.BytesIO()
        images.read(row).convert("L").save(stream, "PNG")
        yield Picture("garment of Fashion-MNIST", "grey PNG", stream.getvalue())


def _crops(sources: list[Image.Image], count: int, rng: np.random.Generator) -> Iterator[Picture]:
    for number in range(count):
        source = sources[number % len(sources)]
        width, height = _size(SHAPES[number % len(SHAPES)], source.size, rng)
        left = int(rng.integers(source.width - width + 1))
        top = int(rng.integers(source.height - height + 1))
        form = FORMS[number % len(FORMS)]
        image = source.crop((left, top, left + width, top + height))
        yield Picture("crop of a photograph", form, encoded(image, form))


def _size(shape: str, whole: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
    """Draw a width and a height of this shape that fit into the whole, odd where they can be."""
    width, height = whole
    if shape == "tiny":
        return tuple(int(rng.integers(15, min(side, _TINY) + 1)) for side in whole)
    if shape == "nearly whole":
        return tuple(int(side * rng.uniform(0.8, 1)) | 1 for side in (width - 1, height - 1))
    low, high = {"square": (1, 1), "panorama": (3, 8), "tall": (3, 8)}.get(shape, (1.1, 2))
    ratio = float(rng.uniform(low, high))
    ratio = 1 / ratio if shape in ("portrait", "tall") else ratio  # width to height
    most = min(width, height * ratio) - 1
    chosen = most * rng.uniform(0.4, 1)
    return int(chosen) | 1, int(max(chosen / ratio, 9)) | 1


def encoded(image: Image.Image, form: str) -> bytes:
    """Return an RGB image as a file of this form."""
    stream = io.BytesIO()
    if form == "PNG with transparency":
        ramp = np.linspace(0, 255, image.width, dtype=np.uint8)
        image.putalpha(Image.fromarray(np.tile(ramp, (image.height, 1))))
    modes = {"grey PNG": "L", "grey JPEG": "L", "palette PNG": "P", "CMYK JPEG": "CMYK"}
    image = image.convert(modes[form]) if form in modes else image
    if form.endswith(("PNG", "transparency")):
        image.save(stream, "PNG")
        return stream.getvalue()
    options: dict[str, object] = {"quality": 25 if form == "JPEG, strong" else 85}
    if form == "JPEG, full colour":
        options |= {"quality": 95, "subsampling": 0}
    if form == "JPEG turned by EXIF":
        exif = Image.Exif()
        exif[0x0112] = 6
        options |= {"exif": exif}
    image.save(stream, "JPEG", **options)
    return stream.getvalue()
