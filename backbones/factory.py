"""From a name to a backbone: the registry, the schemes, and a user's own factory."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from featcache.backbone import Backbone
from featcache.backbones.catalog import BACKBONES
from featcache.backbones.custom import SCHEMES, open_factory, wrap
from featcache.backbones.packaged import packaged_file
from featcache.backbones.published import place_of
from featcache.backbones.request import Request
from featcache.backbones.twins import twin_facts
from featcache.digest import Json, sha256_json
from featcache.errors import FeatcacheError, UnknownNameError
from featcache.spec import ComputeDtype

__all__ = ["backbone_request", "load_backbone", "request_identity", "wrap"]

_LIBRARIES = ("featcache", "torch", "torchvision", "timm")
_SCHEMES = (
    *("timm", "random", "open_clip", "package", "pixels"),
    *("checkpoint", "torchscript"),
)
"""Sources whose files are known, if they lie here."""
_SURE = 0.9
"""Similarity from which a misspelt name is taken for a registry name without asking timm."""


def load_backbone(
    name: str,
    *,
    checkpoint: Path | None = None,
    renamer: str | None = None,
    transform_overrides: Mapping[str, Json] | None = None,
    compute: ComputeDtype = "fp32",
) -> Backbone:
    """Load a backbone, frozen and on the CPU.

    Args:
        name: A registry name (`featcache ls backbones`), `timm:ARCH.TAG`, `hf-hub:org/name`,
            `open_clip:ARCH.TAG`, `random:ARCH`, `pixels`, or `package.module:factory` of your own;
            the working directory is importable.
        checkpoint: A file of weights for the name's architecture, instead of its own.
        renamer: The rule that translates the checkpoint's keys.
        transform_overrides: Fields of `TransformSpec` that replace the native ones.
        compute: Precision of the forward pass; fp16 and tf32 need CUDA.

    Raises:
        UnknownNameError: If nothing has this name; the message gives the nearest.
        BackboneError: If it cannot be built, or its weights cannot be had.
        CheckpointError: If the checkpoint cannot be read or does not fit.
        OptionError: If an option is out of range or in conflict with the name.
        MissingDependencyError: If the package with its weights is not installed.
    """
    request = backbone_request(
        name,
        checkpoint=checkpoint,
        renamer=renamer,
        transform_overrides=transform_overrides,
        compute=compute,
    )
    if name in BACKBONES:
        return BACKBONES.load(name)(request)
    if request.source.startswith(("random:torchscript:", "random:diffusion:")):
        return BACKBONES.load(name.removeprefix("random:"))(request)
    if request.is_open_clip:
        from featcache.backbones.open_clip_source import open_backbone as open_tower

        return open_tower(request)
    if name.partition(":")[0] in SCHEMES and ":" in name:
        from featcache.backbones.timm_source import open_backbone

        return open_backbone(request)
    if ":" in name:
        return open_factory(request)
    raise _unknown(name)


def request_identity(
    name: str,
    *,
    checkpoint: Path | None = None,
    renamer: str | None = None,
    transform_overrides: Mapping[str, Json] | None = None,
    compute: ComputeDtype = "fp32",
) -> Json | None:
    """Return a fingerprint of a request, equal only if it would load the same backbone.

    For remembering an identity without loading the network: it costs a few `stat` calls and
    imports neither torch nor timm.

    Returns:
        Plain JSON, or None where only loading can tell: weights from the hub, a user's or a
        plug-in's factory, an unknown name, a file that is not there.

    Raises:
        OptionError: If a renamer is given without a checkpoint.
        SpecError: If `compute` is not a known precision.
    """
    request = backbone_request(
        name,
        checkpoint=checkpoint,
        renamer=renamer,
        transform_overrides=transform_overrides,
        compute=compute,
    )
    files = _weight_files(request)
    if files is None:
        return None
    try:
        stats = [(str(path.resolve()), path.stat()) for path in files]
        libraries = (*_LIBRARIES, "open_clip_torch") if request.is_open_clip else _LIBRARIES
        versions = {library: metadata.version(library) for library in libraries}
    except (OSError, metadata.PackageNotFoundError):
        return None
    return {
        "name": name,
        "facts": sha256_json(request.facts),
        "files": [[path, stat.st_size, stat.st_mtime_ns] for path, stat in stats],
        "renamer": renamer,
        "transform": dict(request.transform_overrides),
        "compute": compute,
        "versions": versions,
    }


def _weight_files(request: Request) -> list[Path] | None:
    """Return the local files that the weights come from; None if that is not known."""
    scheme = request.source.partition(":")[0]
    built_in = request.name not in BACKBONES or BACKBONES.get(request.name).target.startswith(
        "featcache.backbones."
    )
    if not built_in or scheme not in _SCHEMES:
        return None
    if request.is_open_clip:
        return _open_clip_files(request)
    if request.checkpoint is not None:
        return [request.checkpoint]
    if scheme in ("random", "pixels"):
        return []
    if scheme == "package":
        try:
            return [packaged_file(request.name, request.facts)]
        except FeatcacheError:
            return None
    if scheme in ("checkpoint", "torchscript"):
        return [place_of(request.source.partition(":")[2])]
    return None


def _open_clip_files(request: Request) -> list[Path] | None:
    """Return the file of the architecture, which users may add to, and that of the weights."""
    found = importlib.util.find_spec("open_clip")
    is_random = request.source.startswith("random:")
    if found is None or found.origin is None or not (is_random or request.checkpoint):
        return None
    architecture = request.source.rpartition(":")[2].partition(".")[0]
    config = Path(found.origin).with_name("model_configs") / f"{architecture}.json"
    return [config, *([request.checkpoint] if request.checkpoint else [])]


def backbone_request(
    name: str,
    *,
    checkpoint: Path | None = None,
    renamer: str | None = None,
    transform_overrides: Mapping[str, Json] | None = None,
    compute: ComputeDtype = "fp32",
) -> Request:
    """Return what a name and options ask for, with the registry's facts; nothing is loaded.

    Raises:
        OptionError: If a renamer is given without a checkpoint.
        SpecError: If `compute` is not a known precision.
    """
    return Request(
        name=name,
        facts=BACKBONES.get(name).facts if name in BACKBONES else twin_facts(name) or {},
        checkpoint=Path(checkpoint) if checkpoint is not None else None,
        renamer=renamer,
        transform_overrides=dict(transform_overrides or {}),
        compute=compute,
    )


def _unknown(name: str) -> UnknownNameError:
    """Return the registry's error, with the scheme to write if timm knows the name."""
    try:
        BACKBONES.get(name)
    except UnknownNameError as error:
        message = str(error)
    known = BACKBONES.names()
    has_tags = any(one.startswith(f"{name}.") for one in known)
    if not has_tags and not difflib.get_close_matches(name, known, n=1, cutoff=_SURE):
        import timm

        if timm.is_model(name.partition(".")[0]):
            message = f"timm knows {name!r}: write timm:{name}. {message}"
    return UnknownNameError(message)
