"""Tensors of published weight files: every key and shape, with values of a seed.

Where the keys come from:

- DINO and VICReg give the body of torchvision's `resnet50`, without `fc`, as a plain state dict
  (facebookresearch/dino `hubconf.py`, facebookresearch/vicreg `hubconf.py`).
- MoCo v3 gives a training state: both encoders and the predictor under `module.`, with projectors
  in the place of the classifier (facebookresearch/moco-v3 `moco/builder.py`, `vits.py`).
- MiDaS v3.1 gives an encoder of timm 0.6.12 under `pretrained.model.` (lists in `keys/`), and a
  decoder under `scratch.` (isl-org/MiDaS `midas/blocks.py`, `midas/dpt_depth.py`).
- VICRegL gives the ConvNeXt of its `convnext.py`: the names of facebookresearch/ConvNeXt, without
  layer scale and without a classifier.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path

import torch
import torchvision

Shapes = Mapping[str, tuple[int, ...]]
KEYS = Path(__file__).with_name("keys")
MIDAS_WIDTHS = {
    "dpt_swin2_tiny_256": (96, 192, 384, 768),
    "dpt_swin2_base_384": (128, 256, 512, 1024),
}
CONVNEXT = {
    "convnext_xlarge": ((3, 3, 27, 3), (256, 512, 1024, 2048)),
    "convnext_small": ((3, 3, 27, 3), (96, 192, 384, 768)),
}


def resnet50_body() -> Shapes:
    with torch.device("meta"):
        state = torchvision.models.resnet50().state_dict()
    return {key: tuple(value.shape) for key, value in state.items() if not key.startswith("fc.")}


def vit_body(width: int, depth: int = 12, tokens: int = 197) -> Shapes:
    """Keys of a ViT of patches of 16 pixels."""
    sizes = {"norm1": (width,), "norm2": (width,), "attn.qkv": (3 * width, width)}
    sizes |= {"attn.proj": (width, width), "mlp.fc1": (4 * width, width)}
    sizes |= {"mlp.fc2": (width, 4 * width)}
    found = {"cls_token": (1, 1, width), "pos_embed": (1, tokens, width)}
    for name, shape in {"patch_embed.proj": (width, 3, 16, 16), "norm": (width,)}.items():
        found |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for block in range(depth):
        for name, shape in sizes.items():
            key = f"blocks.{block}.{name}"
            found |= {f"{key}.weight": shape, f"{key}.bias": shape[:1]}
    return found


def projector(name: str, widths: tuple[int, ...]) -> Shapes:
    """Linear layers without bias, a batch norm behind each; the last one is without affine."""
    found: dict[str, tuple[int, ...]] = {}
    for layer, (width, out) in enumerate(pairwise(widths)):
        found[f"{name}.{3 * layer}.weight"] = (out, width)
        norm = f"{name}.{3 * layer + 1}"
        if layer < len(widths) - 2:
            found |= {f"{norm}.weight": (out,), f"{norm}.bias": (out,)}
        found |= {f"{norm}.running_mean": (out,), f"{norm}.running_var": (out,)}
        found[f"{norm}.num_batches_tracked"] = ()
    return found


def moco_v3(body: Shapes, head: str, widths: tuple[int, ...]) -> Shapes:
    encoder = {**body, **projector(head, widths)}
    sides = ("base_encoder", "momentum_encoder")
    both = {f"module.{side}.{key}": shape for side in sides for key, shape in encoder.items()}
    predictor = projector("module.predictor", (256, 4096, 256))
    if head == "fc":  # a ResNet's predictor ends without a batch norm
        predictor = {k: v for k, v in predictor.items() if not k.startswith("module.predictor.4")}
    return {**both, **predictor}


def midas(name: str) -> Shapes:
    lines = (KEYS / f"{name}.txt").read_text().splitlines()
    pairs = [line.split() for line in lines if not line.startswith("#")]
    found = {key: tuple(map(int, shape.split("x"))) for key, shape in pairs}
    for i, width in enumerate(MIDAS_WIDTHS[name], start=1):
        found[f"scratch.layer{i}_rn.weight"] = (256, width, 3, 3)
        refine = f"scratch.refinenet{i}"
        found |= {f"{refine}.out_conv.weight": (256, 256, 1, 1), f"{refine}.out_conv.bias": (256,)}
        for key in (f"{refine}.resConfUnit{u}.conv{c}" for u in (1, 2) for c in (1, 2)):
            found |= {f"{key}.weight": (256, 256, 3, 3), f"{key}.bias": (256,)}
    for place, shape in {0: (128, 256, 3, 3), 2: (32, 128, 3, 3), 4: (1, 32, 1, 1)}.items():
        key = f"scratch.output_conv.{place}"
        found |= {f"{key}.weight": shape, f"{key}.bias": shape[:1]}
    return found


def vicregl_convnext(architecture: str) -> Shapes:
    depths, widths = CONVNEXT[architecture]
    layers = {
        "downsample_layers.0.0": (widths[0], 3, 4, 4),
        "downsample_layers.0.1": (widths[0],),
        "norm": (widths[-1],),
    }
    for i in (1, 2, 3):
        layers[f"downsample_layers.{i}.0"] = (widths[i - 1],)
        layers[f"downsample_layers.{i}.1"] = (widths[i], widths[i - 1], 2, 2)
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        for block in (f"stages.{stage}.{number}" for number in range(depth)):
            layers |= {f"{block}.dwconv": (width, 1, 7, 7), f"{block}.norm": (width,)}
            layers |= {
                f"{block}.pwconv1": (4 * width, width),
                f"{block}.pwconv2": (width, 4 * width),
            }
    return {
        f"{name}.{part}": shape if part == "weight" else shape[:1]
        for name, shape in layers.items()
        for part in ("weight", "bias")
    }


PUBLISHED: Mapping[str, Callable[[], Shapes]] = {
    "dino_resnet50": resnet50_body,
    "vicreg_resnet50": resnet50_body,
    "mocov3_vits16": lambda: moco_v3(vit_body(384), "head", (384, 4096, 4096, 256)),
    "mocov3_vitb16": lambda: moco_v3(vit_body(768), "head", (768, 4096, 4096, 256)),
    "mocov3_resnet50": lambda: moco_v3(resnet50_body(), "fc", (2048, 4096, 256)),
    "midas_swinv2_tiny": lambda: midas("dpt_swin2_tiny_256"),
    "midas_swinv2_base_384": lambda: midas("dpt_swin2_base_384"),
    "vicregl_convnext_xlarge": lambda: vicregl_convnext("convnext_xlarge"),
}
"""The tensors of each file that a `checkpoint:` row of the registry names."""

WRAPPERS = {name: "state_dict" for name in PUBLISHED if name.startswith("mocov3")}
"""Entry of the file that holds them, where they are not the file."""


def filled(shapes: Shapes, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return tensors of these shapes; variances and norms are positive, the rest small."""
    draw = torch.Generator().manual_seed(seed)
    found = {}
    for key, shape in shapes.items():
        values = torch.randn(shape, generator=draw) * 0.03
        if key.endswith("num_batches_tracked"):
            values = torch.tensor(1)
        elif key.endswith("running_var") or (len(shape) == 1 and key.endswith("weight")):
            values = 1 + values
        found[key] = values
    return found


def write(name: str, folder: Path, file: str, *, seed: int = 0) -> dict[str, torch.Tensor]:
    """Write the file of a row as it is published; return its tensors."""
    tensors = filled(PUBLISHED[name](), seed)
    wrapper = WRAPPERS.get(name)
    whole = {"epoch": 300, "arch": "vit_small", wrapper: tensors} if wrapper else tensors
    torch.save(whole, folder / file)
    return tensors
