"""Text towers of open_clip models: what turns texts into vectors beside those of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featcache.backbones.request import Request
from featcache.digest import Json, blake3_bytes
from featcache.errors import BackboneError
from featcache.spec import BackboneIdentity

if TYPE_CHECKING:
    import torch

TAP = "text"
"""Tap of stored text features."""
IMAGE_TAP = "projection"
"""Tap of the image features that lie in the same space."""
IMAGE_TOWER = "image_tower"
"""Option of a text tower's identity: the digest of the image tower it was trained with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTower:
    """The text half of a model, frozen, in float32."""

    identity: BackboneIdentity
    """Of the text half; its options name the image tower it was trained with."""
    scale: float
    """What the model multiplies cosines of images and texts by."""
    offset: float
    """What it then adds: 0 but for models of SigLIP's kind."""
    module: Any
    tokenize: Any
    """Texts to token numbers, shape (n, length)."""
    tokenizer: Mapping[str, Json]

    def to(self, device: str) -> TextTower:
        """Move the network to a device, in place."""
        self.module.to(device)
        return self

    def transform(self, texts: Sequence[str]) -> dict[str, Json]:
        """Return how texts become the tower's input: the tokenizer, and what it makes of these.

        A digest of their tokens stands for vocabulary, cleaning and cutting off in one.
        """
        tokens = self.tokenize(list(texts)).numpy().astype("<i8")
        digest = blake3_bytes(np.ascontiguousarray(tokens).data.cast("B"))
        return {**self.tokenizer, "tokens": digest}

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts in one batch.

        Args:
            texts: At least one.

        Returns:
            Shape (n, D), of any norm.
        """
        import torch

        device = next(self.module.parameters()).device
        tokens: torch.Tensor = self.tokenize(list(texts)).to(device)
        with torch.inference_mode():
            vectors: NDArray[np.float32] = self.module.encode_text(tokens).float().cpu().numpy()
        return vectors


def open_text_tower(request: Request) -> TextTower:
    """Load the text tower of a model; of its image tower only the digest is taken.

    Args:
        request: An open_clip model.

    Raises:
        BackboneError: If the source has no text tower, or its tokenizer cannot be had.
        FeatcacheError: As `load_model` of `open_clip_source`.
    """
    from torch import nn

    from featcache.backbones.open_clip_source import image_tower, load_model
    from featcache.backbones.weights import weights_digest

    refuse_without_text(request)
    model = load_model(request)
    images = image_tower(request, model).identity
    model.module.visual = nn.Identity()  # what is left is the text tower
    module = model.module.float().eval().requires_grad_(False)
    tokenize, tokenizer = _tokenizer(request.name, model.name.architecture, module)
    return TextTower(
        identity=BackboneIdentity(
            name=request.name,
            architecture=images.architecture,
            weights=weights_digest(module),
            options={**images.options, IMAGE_TOWER: images.weights},
        ),
        scale=_scale(module),
        offset=_offset(module),
        module=module,
        tokenize=tokenize,
        tokenizer=tokenizer,
    )


def refuse_without_text(request: Request) -> None:
    """Refuse a source that has no text tower, before anything is loaded.

    Raises:
        BackboneError: With what has one.
    """
    if not request.is_open_clip:
        raise BackboneError(
            f"Texts need the text tower that was trained with the images'; {request.name!r} has "
            "none here. Use one of `featcache ls backbones '*_openclip'`, or a backbone "
            "open_clip:ARCH.PRETRAINED."
        )


def image_tower_of(text: BackboneIdentity) -> BackboneIdentity:
    """Return the identity of the image tower that a text tower was trained with."""
    options = dict(text.options)
    weights = str(options.pop(IMAGE_TOWER))
    return BackboneIdentity(
        name=text.name, architecture=text.architecture, weights=weights, options=options
    )


def _scale(module: Any) -> float:  # noqa: ANN401
    """Return what a model multiplies cosines by."""
    return float(module.logit_scale.detach().float().exp())


def _offset(module: Any) -> float:  # noqa: ANN401
    """Return what a model adds to its logits; SigLIP's do, CLIP's do not."""
    bias = getattr(module, "logit_bias", None)
    return 0.0 if bias is None else float(bias.detach())


def _tokenizer(name: str, architecture: str, tower: Any) -> tuple[Any, dict[str, Json]]:  # noqa: ANN401
    """Return a function from texts to tokens, and what it is."""
    from featcache.backbones.open_clip_source import import_open_clip

    library = import_open_clip(name)
    try:
        tokenizer = library.get_tokenizer(architecture)
    except Exception as error:
        reason = (str(error).splitlines() or ["no message"])[0][:200]
        raise BackboneError(
            f"The tokenizer of {architecture!r} must be there, or be downloaded once from the hub; "
            f"got {type(error).__name__}: {reason}. Check the network, and that `transformers` is "
            "installed."
        ) from error
    length = getattr(tower, "context_length", None) or tokenizer.context_length
    return tokenizer, {"tokenizer": type(tokenizer).__name__, "context_length": int(length)}
