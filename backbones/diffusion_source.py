"""The encoding half of a latent diffusion model: autoencoder, then the UNet down to its middle.

An image becomes the mode of its latent, times the scale that the UNet was trained with; the UNet
sees it at timestep 0 under a prompt. `pooled` is the spatial mean behind the middle block, `down1`
to `down4` those behind the down blocks. The up blocks are never run and not kept.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from featcache.backbones.request import Request
from featcache.backbones.timm_config import hub_errors
from featcache.backbones.timm_source import own_random_state
from featcache.backbones.torch_backbone import Tap, TorchBackbone
from featcache.backbones.transforms import PilTransform, with_overrides
from featcache.backbones.weights import weights_digest
from featcache.digest import Json
from featcache.errors import BackboneError, MissingDependencyError
from featcache.spec import BackboneIdentity, TransformSpec

EXTRA = "diffusion"
PROMPT = "image classification"  # Battle of the Backbones, models/stable_diff.py
_ASKED: dict[str, Json] = {"prompt": PROMPT, "timestep": 0}
_RANDOM: dict[str, Json] = {"seed": 0}
_HALF = (0.5, 0.5, 0.5)
_NATIVE = TransformSpec(resize=512, crop=512, interpolation="bicubic", mean=_HALF, std=_HALF)
_TOKENS, _WIDTH = 77, 768
"""Of the text tower of Stable Diffusion v1, CLIP ViT-L/14."""


def open_backbone(request: Request) -> TorchBackbone:
    """Load the parts from the hub, or from a folder in diffusers' layout given as checkpoint.

    Raises:
        MissingDependencyError: If diffusers or transformers is not installed.
        BackboneError: If the weights cannot be had.
    """
    try:
        diffusers: Any = importlib.import_module("diffusers")
        transformers: Any = importlib.import_module("transformers")
    except ImportError as error:
        raise MissingDependencyError(f"Backbone {request.name!r}", EXTRA) from error
    if request.source.startswith("random:"):
        request.refuse_checkpoint("its weights are random")
        module, options = _twin(diffusers), _RANDOM
    else:
        module, options = _pretrained(request, diffusers, transformers), _ASKED
    spec = _NATIVE
    for overrides in (request.facts.get("transform", {}), request.transform_overrides):
        spec = with_overrides(spec, overrides)
    return TorchBackbone(
        module,
        identity=BackboneIdentity(
            name=request.name,
            architecture=str(request.facts.get("architecture", "latent diffusion")),
            weights=weights_digest(module.float()),
            options=options,
        ),
        transform=PilTransform(spec),
        trunk=_run,
        taps=_taps(len(module.down)),
        compute=request.compute,
    )


class Encoder(nn.Module):
    """Autoencoder, down blocks, middle block, and what the prompt says."""

    prompt: torch.Tensor

    def __init__(self, vae: Any, unet: Any, prompt: torch.Tensor) -> None:  # noqa: ANN401
        """Take diffusers' parts, and the prompt's embedding, shape (1, tokens, width)."""
        super().__init__()
        self.encoder, self.quant = vae.encoder, vae.quant_conv
        self.scale = float(vae.config.scaling_factor)
        self.time_proj, self.time_embedding = unet.time_proj, unet.time_embedding
        self.conv_in, self.down, self.mid = unet.conv_in, unet.down_blocks, unet.mid_block
        self.register_buffer("prompt", prompt)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return what the down blocks and the middle block give, of images in -1 .. 1."""
        moments = self.quant(self.encoder(images))
        hidden = self.conv_in(moments.chunk(2, dim=1)[0] * self.scale)  # the mean is the mode
        steps = torch.zeros(len(images), dtype=torch.long, device=images.device)
        time = self.time_embedding(self.time_proj(steps).to(hidden.dtype))
        text = self.prompt.to(hidden.dtype).expand(len(images), -1, -1)
        found = []
        for block in self.down:
            given = {"encoder_hidden_states": text} if _reads_text(block) else {}
            hidden, _ = block(hidden, time, **given)
            found.append(hidden)
        return [*found, self.mid(hidden, time, encoder_hidden_states=text)]


def _reads_text(block: nn.Module) -> bool:
    return bool(getattr(block, "has_cross_attention", False))


def _run(module: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    maps: list[torch.Tensor] = module(images)
    return maps


def _taps(n_blocks: int) -> dict[str, Tap]:
    def mean_of(place: int) -> Tap:
        return lambda _module, maps: maps[place].float().mean(dim=(2, 3))

    return {"pooled": mean_of(-1), **{f"down{i + 1}": mean_of(i) for i in range(n_blocks)}}


def _pretrained(request: Request, diffusers: Any, transformers: Any) -> Encoder:  # noqa: ANN401
    place = request.checkpoint or request.source.partition(":")[2]
    if isinstance(place, Path) and not (place / "unet").is_dir():
        raise BackboneError(
            f"The checkpoint of {request.name!r} must be a folder in diffusers' layout, with unet, "
            f"vae, text_encoder and tokenizer; {str(place)!r} is none. Give the folder."
        )
    with hub_errors(request.name):
        vae = diffusers.AutoencoderKL.from_pretrained(place, subfolder="vae")
        unet = diffusers.UNet2DConditionModel.from_pretrained(place, subfolder="unet")
        tokenizer = transformers.CLIPTokenizer.from_pretrained(place, subfolder="tokenizer")
        tower = transformers.CLIPTextModel.from_pretrained(place, subfolder="text_encoder")
    length = tower.config.max_position_embeddings
    tokens = tokenizer(
        PROMPT, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )
    with torch.inference_mode():
        prompt = tower.eval()(tokens.input_ids).last_hidden_state
    return Encoder(vae, unet, prompt.clone())


def _twin(library: Any) -> Encoder:  # noqa: ANN401
    """Return the parts of Stable Diffusion v1 without training, and a prompt of noise."""
    with own_random_state():
        vae = library.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
        )
        unet = library.UNet2DConditionModel(cross_attention_dim=_WIDTH, sample_size=64)
        return Encoder(vae, unet, torch.randn(1, _TOKENS, _WIDTH))
