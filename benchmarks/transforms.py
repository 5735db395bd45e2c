"""Compare every preprocessing in the registry with that of the library the weights come from.

Usage: python -m benchmarks.transforms [--images N] [--seed N]

A family is one `TransformSpec`, whichever rows use it. Ours is what the loader makes of a row
without its weights; theirs is built by timm or open_clip from their own data on the same weights.
Rows whose numbers are their authors' and in neither library are held against torchvision's parts
with these numbers: that checks the arithmetic, not the numbers.

Two comparisons: from the same decoded RGB pixels, and from the file, where each side decodes in
its own way. Exits 1 if any image differs in the first.
"""

import argparse
import io
import sys
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field

import numpy as np
import open_clip
import timm
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torchvision import transforms as parts
from torchvision.transforms import InterpolationMode

from benchmarks.photographs import pictures
from featcache.backbones import open_clip_source
from featcache.backbones.catalog import entries
from featcache.backbones.factory import backbone_request
from featcache.backbones.pixels import PixelBackbone
from featcache.backbones.timm_config import config_of, transform_of
from featcache.backbones.transforms import PilTransform, normalise, with_overrides
from featcache.datasets.decode import decode
from featcache.spec import TransformSpec
from tests.backbones.test_shape_law import IN_OPEN_CLIP

TOLERANCE = 1e-6
STATISTICS = {
    (0.485, 0.456, 0.406): "ImageNet",
    (0.48145466, 0.4578275, 0.40821073): "CLIP",
    (0.43, 0.411, 0.296): "SAT-493M",
    (0.5, 0.5, 0.5): "0.5",
    (0.0, 0.0, 0.0): "none",
}
"""Names of normalisations, by their means."""


@dataclass
class Case:
    """One family of ours and one library's transform for the same rows."""

    spec: TransformSpec
    library: str
    theirs: parts.Compose
    rows: list[str] = field(default_factory=list)
    equal: int = 0
    levels: int = 0
    """Largest difference of a pixel of the input, of 255."""
    deviation: float = 0.0
    """Largest difference of the normalised input."""


def open_clip_config(architecture, tag):
    """Return open_clip's preprocessing of these weights, merged as its factory does."""
    size = open_clip.get_model_config(architecture)["vision_cfg"]["image_size"]
    weights = open_clip.get_pretrained_cfg(architecture, tag)
    assert weights, (architecture, tag)
    return merge_preprocess_dict(asdict(PreprocessCfg(size=size)), weights)


def own_transform(name, facts):
    """Return the transform that the loader gives this row, without loading its weights."""
    scheme, _, rest = facts["source"].partition(":")
    if scheme == "pixels":
        return PixelBackbone.transform
    if scheme == "open_clip":
        spec = open_clip_source.native_transform(name, open_clip_config(*rest.split(".", 1)))
        return PilTransform(with_overrides(spec, facts.get("transform", {})))
    if scheme in ("torchscript", "diffusion"):
        return PilTransform(with_overrides(TransformSpec(resize=256), facts["transform"]))
    config = config_of(rest if scheme == "timm" else facts["architecture"])
    return transform_of(backbone_request(name), config)[0]


def by_torchvision(spec):
    mode = InterpolationMode(spec["interpolation"])
    resize = spec["resize"] if spec["resize_mode"] == "squash" else int(spec["resize"])
    crop = [parts.CenterCrop(spec["crop"])] if spec["crop"] else []
    last = [parts.ToTensor(), parts.Normalize(spec["mean"], spec["std"])]
    return parts.Compose([parts.Resize(resize, mode), *crop, *last])


def library_transforms(name, facts, spec):
    """Yield the name of each library that has the weights of this row, and its transform."""
    scheme, _, rest = facts["source"].partition(":")
    found = rest if scheme == "open_clip" else IN_OPEN_CLIP.get(name)
    if found:
        config = open_clip_config(*found.split(".", 1))
        yield "open_clip", image_transform_v2(PreprocessCfg(**config), is_train=False)
    if scheme in ("timm", "package") and "transform" not in facts:
        config = timm.get_pretrained_cfg(rest if scheme == "timm" else facts["architecture"])
        data = resolve_data_config(pretrained_cfg=config.to_dict())
        yield "timm", create_transform(**data, is_training=False)
    elif not found:
        yield "torchvision", by_torchvision(spec)


def cases():
    """Return every family with each library that some row of it comes from."""
    found = {}
    for name, entry in entries().items():
        transform = own_transform(name, entry.facts)
        spec = with_overrides(TransformSpec(resize=1, crop=1), fields(transform.spec))
        for library, theirs in library_transforms(name, entry.facts, transform.spec):
            norm = theirs.transforms[-1]
            key = (spec, library, repr(theirs), *map(float, (*norm.mean, *norm.std)))
            found.setdefault(key, Case(spec, library, theirs)).rows.append(name)
    order = ("timm", "open_clip", "torchvision")
    return sorted(found.values(), key=lambda one: (order.index(one.library), -len(one.rows)))


def fields(spec):
    return {name: value for name, value in spec.items() if name not in ("engine", "decode")}


def in_words(spec):
    """Say a family: resize, crop, filter and normalisation."""
    side = spec.resize if isinstance(spec.resize, int) else spec.resize[0]
    resize = f"squashed to {side}" if spec.resize_mode == "squash" else f"shorter side to {side}"
    crop = f", centre {spec.crop}" if spec.crop else ""
    return f"{resize}{crop}, {spec.interpolation}, {STATISTICS[tuple(spec.mean)]}"


def inputs(theirs, image):
    """Return what the library makes of an image, as pixels and normalised."""
    *shape, to_tensor, norm = theirs.transforms
    for step in shape:
        image = step(image)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1), norm(to_tensor(image))


def compare(case, files, images):
    """Fill in the figures of a case; return each file's largest difference from the file on."""
    ours, apart = PilTransform(case.spec), []
    for file, image in zip(files, images, strict=True):
        pixels = ours(image)
        values = normalise(pixels[None], tuple(case.spec.mean), tuple(case.spec.std))[0]
        expected, floats = inputs(case.theirs, image)
        case.equal += torch.equal(pixels, expected)
        case.levels = max(case.levels, levels_apart(pixels, expected))
        case.deviation = max(case.deviation, float((values - floats).abs().max()))
        raw = Image.open(io.BytesIO(file.data))
        if case.library != "open_clip":  # open_clip's converts by itself, after the resize
            raw = raw.convert("RGB")
        apart.append(levels_apart(pixels, inputs(case.theirs, raw)[0]))
    return apart


def levels_apart(one, other):
    return int((one.int() - other.int()).abs().max())


def print_files(files, apart):
    """Print, by form of file, how many agree in every family of a library, and how far apart."""
    print("\n| form of file | files | equal to timm | apart | equal to open_clip | apart |")
    print("|---|---|---|---|---|---|")
    forms = np.array([one.form for one in files])
    for form in sorted(set(forms)):
        cells = []
        for library in ("timm", "open_clip"):
            worst = np.array(apart[library]).max(axis=0)[forms == form]
            cells += [str((worst == 0).sum()), str(worst.max())]
        print(f"| {form} | {(forms == form).sum()} | {' | '.join(cells)} |")


def print_shapes(sizes):
    shorter, ratios = [min(size) for size in sizes], [width / height for width, height in sizes]
    odd = sum(width % 2 or height % 2 for width, height in sizes)
    print(f"shorter sides {min(shorter)} to {max(shorter)}, {sum(s < 224 for s in shorter)} < 224,")
    print(f"{odd} with an odd side, width to height {min(ratios):.2f} to {max(ratios):.1f}\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    files = pictures(given.images, given.seed)
    images = [decode(one.data) for one in files]
    apart = defaultdict(list)
    print(
        ", ".join(f"{count} x {name}" for name, count in Counter(f.source for f in files).items())
    )
    print_shapes([image.size for image in images])
    print("| preprocessing | against | rows | images equal | levels apart | normalised apart |")
    print("|---|---|---|---|---|---|")
    found = cases()
    for case in found:
        apart[case.library].append(compare(case, files, images))
        agrees = f"{case.deviation:.0e}" if case.deviation else "0"
        print(
            f"| {in_words(case.spec)} | {case.library} | {len(case.rows)} "
            f"| {case.equal} of {len(files)} | {case.levels} | {agrees} |",
            flush=True,
        )
    families, rows = {case.spec for case in found}, {row for case in found for row in case.rows}
    print(f"\n{len(families)} families of {len(rows)} rows, {len(found)} comparisons")
    print_files(files, apart)
    good = all(c.equal == len(files) and c.deviation <= TOLERANCE for c in found)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
