"""Class names through the text tower of an open_clip model: a zero-shot classifier as a head."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featcache.backbones.request import Request
from featcache.digest import Json, blake3_bytes
from featcache.errors import BackboneError, OptionError
from featcache.head_store import StoredHead

if TYPE_CHECKING:
    import torch

TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "photo": ("a photo of a {}.",),
    "openai7": (
        "itap of a {}.",
        "a bad photo of the {}.",
        "a origami {}.",
        "a photo of the large {}.",
        "a {} in a video game.",
        "art of the {}.",
        "a photo of the small {}.",
    ),
}
"""Sets of prompts by name. `openai7`: the seven that the authors of CLIP found to be enough on
ImageNet (openai/CLIP, notebook Prompt_Engineering_for_ImageNet)."""

TAP = "projection"
PLACE = "{}"
_BATCH = 256

Encode = Callable[[list[str]], NDArray[np.float32]]
"""Prompts to vectors, shape (prompts, D), any norm."""


def text_head(
    request: Request,
    class_names: Sequence[str],
    templates: Sequence[str],
    *,
    prompt_names: Sequence[str] | None = None,
) -> StoredHead:
    """Build the zero-shot head of a model for some classes.

    Args:
        request: An open_clip model; both of its towers are loaded.
        class_names: The C columns.
        templates: Prompts with one `{}`, where the class name stands.
        prompt_names: What stands there instead of the class names, one each.

    Raises:
        BackboneError: If the source has no text tower, or its tokenizer cannot be had.
        OptionError: If a template or a class name cannot be used.
        FeatcacheError: As `load_model` of `open_clip_source`.
    """
    from torch import nn

    from featcache.backbones.open_clip_source import image_tower, load_model
    from featcache.backbones.weights import weights_digest

    names = tuple(prompt_names or class_names)
    _check_prompts(class_names, names, templates)
    if not request.is_open_clip:
        raise BackboneError(
            f"A text head needs the text tower that was trained with the images'; {request.name!r} "
            "has none here. Use a backbone open_clip:ARCH.PRETRAINED."
        )
    model = load_model(request)
    scale, offset = _scale(model.module), _offset(model.module)
    identity = image_tower(request, model).identity
    model.module.visual = nn.Identity()  # what is left is the text tower
    tower = model.module.float().eval().requires_grad_(False)
    tokenize, tokenizer = _tokenizer(request.name, model.name.architecture, tower)
    weights = class_vectors(lambda prompts: _encode(tower, tokenize(prompts)), names, templates)
    every = [text for name in names for text in prompts_of(name, templates)]
    origin: dict[str, Json] = {
        "templates": list(templates),
        "text_tower": weights_digest(tower),
        "tokenizer": {**tokenizer, "tokens": _tokens_digest(tokenize, every)},
    }
    if names != tuple(class_names):
        origin["prompt_names"] = list(names)
    return StoredHead(
        kind="text",
        weights=weights,
        bias=np.full(len(names), offset / scale, np.float32),
        class_names=tuple(class_names),
        backbone=identity,
        tap=TAP,
        is_unit_norm=True,
        scale=scale,
        origin=origin,
    )


def class_vectors(
    encode: Encode, names: Sequence[str], templates: Sequence[str]
) -> NDArray[np.float32]:
    """Return a unit vector per class: prompts are scaled to unit norm, averaged, scaled again.

    Args:
        encode: Gives the vectors of prompts.
        names: C names, put into each template.
        templates: At least one.

    Returns:
        Shape (D, C), float32, columns of unit norm.

    Raises:
        BackboneError: If a prompt, or the mean of a class, has no direction.

    Source: Radford et al. 2021, arXiv:2103.00020, section 3.1.4; checked against open_clip's
    `build_zero_shot_classifier`.
    """
    prompts = [text for name in names for text in prompts_of(name, templates)]
    parts = [
        encode(prompts[start : start + _BATCH]).astype(np.float64)
        for start in range(0, len(prompts), _BATCH)
    ]
    vectors = _unit(np.concatenate(parts), prompts)  # (C * templates, D)
    means = vectors.reshape(len(names), len(templates), -1).mean(axis=1)  # (C, D)
    return np.ascontiguousarray(_unit(means, names).T, dtype=np.float32)


def prompts_of(name: str, templates: Sequence[str]) -> list[str]:
    """Return the prompts of one class; braces in a name stay as they are."""
    return [template.replace(PLACE, name) for template in templates]


def _unit(vectors: NDArray[np.float64], names: Sequence[str]) -> NDArray[np.float64]:
    norms = np.linalg.norm(vectors, axis=1)
    if bad := np.flatnonzero(~(np.isfinite(norms) & (norms > 0))).tolist():
        raise BackboneError(
            f"A prompt's vector must have a direction; that of {names[bad[0]]!r} is zero or not "
            "finite. Check the text tower's weights, or change the templates."
        )
    return np.asarray(vectors / norms[:, None])


def _check_prompts(
    class_names: Sequence[str], names: Sequence[str], templates: Sequence[str]
) -> None:
    if not templates or any(one.count(PLACE) != 1 for one in templates):
        bad = next((one for one in templates if one.count(PLACE) != 1), None)
        raise OptionError(
            f"A template must have one {PLACE} for the class name, and there must be at least one "
            f"template; got {bad!r}. Write for instance 'a photo of a {PLACE}.'"
        )
    if not class_names or len(names) != len(class_names):
        raise OptionError(
            f"A text head needs one name for prompts per class; got {len(names)} for "
            f"{len(class_names)} classes. Give as many."
        )
    is_named = all(one.strip() for one in (*class_names, *names))
    if len(set(class_names)) < len(class_names) or not is_named:
        raise OptionError("Class names must differ, and none may be empty. Rename the classes.")


def _scale(module: Any) -> float:  # noqa: ANN401
    """Return what a model multiplies cosines by."""
    return float(module.logit_scale.detach().float().exp())


def _offset(module: Any) -> float:  # noqa: ANN401
    """Return what a model adds to its logits; SigLIP's do, CLIP's do not."""
    bias = getattr(module, "logit_bias", None)
    return 0.0 if bias is None else float(bias.detach())


def _encode(tower: Any, tokens: torch.Tensor) -> NDArray[np.float32]:  # noqa: ANN401
    import torch

    with torch.inference_mode():
        vectors: NDArray[np.float32] = tower.encode_text(tokens).float().numpy()
    return vectors


def _tokenizer(name: str, architecture: str, tower: Any) -> tuple[Any, dict[str, Json]]:  # noqa: ANN401
    """Return a function from prompts to tokens, and what it is."""
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
    return tokenizer, {"kind": type(tokenizer).__name__, "context_length": int(length)}


def _tokens_digest(tokenize: Any, prompts: Sequence[str]) -> str:  # noqa: ANN401
    """Hash what the tower read of the prompts: vocabulary, cleaning and cutting off in one."""
    tokens = tokenize(list(prompts)).numpy().astype("<i8")
    return blake3_bytes(np.ascontiguousarray(tokens).data.cast("B"))
