"""A user's own network: any torch module, wrapped, or a `package.module:factory` that makes one."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featcache.backbone import Backbone, Transform
from featcache.backbones.request import Request
from featcache.backbones.transforms import PilTransform, with_overrides
from featcache.digest import Json, blake3_file
from featcache.errors import BackboneError, OptionError, UnknownNameError, did_you_mean
from featcache.registry import load_target
from featcache.spec import BackboneIdentity, ComputeDtype, TransformSpec

if TYPE_CHECKING:
    import torch
    from torch import nn

    from featcache.backbones.torch_backbone import TorchBackbone

DEFAULT_TRANSFORM = TransformSpec(resize=256, crop=224, interpolation="bicubic")
"""The usual ImageNet evaluation: shorter side 256, centre 224, ImageNet mean and deviation."""

SCHEMES = ("timm", "hf-hub", "open_clip", "random")


def wrap(
    module: nn.Module,
    *,
    name: str,
    transform: TransformSpec | Transform | None = None,
    compute: ComputeDtype = "fp32",
    options: Mapping[str, Json] | None = None,
) -> TorchBackbone:
    """Make a backbone of any torch module; it is frozen in place.

    Args:
        module: Takes normalised images (B, 3, H, W) and returns features (B, D), which become
            the tap `pooled`, or a dict of tap name to a tensor with B rows.
        name: Stands in the identity. The digest covers the module's tensors, not its code:
            give a changed forward pass a new name.
        transform: Its preprocessing; the default is `DEFAULT_TRANSFORM`.
        compute: Precision of the forward pass.
        options: Anything else that tells two such modules apart, as plain JSON.

    Returns:
        The backbone; feature shapes are found with a dry run.

    Raises:
        BackboneError: If `module` is no torch module or returns something else.
        OptionError: If the transform cannot be carried out.
    """
    import torch

    from featcache.backbones.torch_backbone import TorchBackbone
    from featcache.backbones.weights import weights_digest

    if not isinstance(module, torch.nn.Module):
        raise BackboneError(
            f"`module` must be a torch.nn.Module; got {type(module).__name__}. "
            "Put a function into the forward of one."
        )
    if transform is None or isinstance(transform, TransformSpec):
        transform = PilTransform(transform or DEFAULT_TRANSFORM)
    kind = type(module)
    module.to("cpu")
    taps = _taps_of(module, transform, name)
    return TorchBackbone(
        module,
        identity=BackboneIdentity(
            name=name,
            architecture=f"{kind.__module__}.{kind.__qualname__}",
            weights=weights_digest(module.float()),
            options=dict(options or {}),
        ),
        transform=transform,
        trunk=_call,
        taps={tap: _Item(tap) for tap in taps},
        default_tap="pooled" if "pooled" in taps else taps[0],
        compute=compute,
    )


def open_factory(request: Request) -> Backbone:
    """Import `package.module:factory`, call it, and wrap what it returns if it is a module.

    Raises:
        UnknownNameError: If the module or the factory does not exist.
        BackboneError: If importing or calling it fails, or it returns something else.
        OptionError: If an option is asked for that the factory alone decides.
    """
    import torch

    request.refuse_checkpoint("its factory loads its own weights")
    with _current_directory_importable():
        made, source = _make(request.name)
    if isinstance(made, Backbone):
        if request.transform_overrides or request.compute != "fp32":
            raise OptionError(
                f"A factory that returns a backbone decides its transform and precision; "
                f"{request.name!r} was asked for {dict(request.transform_overrides)} and "
                f"{request.compute!r}. Let it return a torch.nn.Module, or leave them out."
            )
        return _checked(made, request.name)
    if not isinstance(made, torch.nn.Module):
        raise BackboneError(
            f"A factory must return a torch.nn.Module or an object with the Backbone contract; "
            f"{request.name!r} returned {type(made).__name__}. Return the network itself."
        )
    return wrap(
        made,
        name=request.name,
        transform=with_overrides(DEFAULT_TRANSFORM, request.transform_overrides),
        compute=request.compute,
        options={"code": blake3_file(source)} if source else {},
    )


def _make(name: str) -> tuple[object, Path | None]:
    """Return what the factory made, and the file it is written in."""
    try:
        factory = load_target(name)
    except UnknownNameError as error:
        rest = name.partition(":")[2]
        hint = did_you_mean(name, [f"{scheme}:{rest}" for scheme in SCHEMES])
        raise UnknownNameError(f"{error} {hint}".rstrip()) from error
    except Exception as error:
        raise BackboneError(
            f"The module of factory {name!r} must be importable; it raised "
            f"{type(error).__name__}: {error}. Correct it, or install what it needs."
        ) from error
    if not callable(factory):
        raise BackboneError(
            f"A factory must be a function without arguments; {name!r} is a "
            f"{type(factory).__name__}. Write: def factory(): return network"
        )
    try:
        made: object = factory()
    except Exception as error:
        raise BackboneError(
            f"Factory {name!r} must return a network; it raised {type(error).__name__}: {error}. "
            "Correct the factory; --debug shows where."
        ) from error
    source = inspect.getsourcefile(sys.modules[name.partition(":")[0]])
    return made, Path(source) if source else None


def _checked(backbone: Backbone, name: str) -> Backbone:
    if not isinstance(backbone.identity, BackboneIdentity):
        raise BackboneError(
            f"`identity` must be a BackboneIdentity; that of {name!r} is a "
            f"{type(backbone.identity).__name__}. Build one: featcache.spec.BackboneIdentity(...)"
        )
    if backbone.default_tap not in backbone.taps:
        raise BackboneError(
            f"`default_tap` must be one of the taps, {', '.join(backbone.taps)}; {name!r} has "
            f"{backbone.default_tap!r}. Name one of them."
        )
    return backbone


@contextmanager
def _current_directory_importable() -> Iterator[None]:
    """Put the working directory first on the path, as `python -m` does."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(here)


class _Item:
    """The tap that picks one entry of a module's output."""

    def __init__(self, tap: str) -> None:
        self._tap = tap

    def __call__(self, _module: nn.Module, output: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return output[self._tap]


def _call(module: nn.Module, images: torch.Tensor) -> Mapping[str, torch.Tensor]:
    output = module(images)
    return output if isinstance(output, Mapping) else {"pooled": output}


def _taps_of(module: nn.Module, transform: Transform, name: str) -> tuple[str, ...]:
    """Return the tap names, from one image in eval mode."""
    import torch

    images = torch.zeros((1, *transform.input_shape))
    try:
        with torch.inference_mode():
            output: Any = _call(module.eval().float(), images)
    except Exception as error:
        raise BackboneError(
            f"{name!r} must embed a batch of shape {tuple(images.shape)}; it raised "
            f"{type(error).__name__}: {error}. Check the transform's size."
        ) from error
    for tap, value in output.items():
        if not isinstance(tap, str) or not isinstance(value, torch.Tensor):
            raise BackboneError(
                f"{name!r} must return a tensor or a dict of tap name to tensor; got "
                f"{type(value).__name__} under {tap!r}. Return the features alone."
            )
    if output.keys() == {"pooled"} and output["pooled"].ndim != 2:
        raise BackboneError(
            f"{name!r} must return features of shape (B, D); got {tuple(output['pooled'].shape)}. "
            "Pool them, or return a dict that names them, e.g. {'map': features}."
        )
    if not output:
        raise BackboneError(f"{name!r} must return at least one tap; got an empty dict.")
    return tuple(output)
